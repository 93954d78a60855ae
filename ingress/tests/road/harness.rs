//! A running ingress, a client for it, and the other end of the wire.

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use ingress::Ingress;
use prometheus::Registry;
use shared::broker::memory::MemoryBroker;
use shared::broker::{
    AckToken, Address, Broker, BrokerError, Bucket, Entry, Feed, Follower, Inbox, Journal, LaneFilter, LaneSubject, Puller, Record, Since,
    Store, Stored, Topic,
};
use shared::config::{Config, Secret, Tenant};
use shared::domain::{ExecId, Lane, NodeId, RequestId, Token};
use shared::error::Failure;
use shared::identity::{Directory, LiveDirectory};
use shared::task::{self, Guarded};
use shared::wire::{Cancel, Envelope, Held, Passed, Reply, ReplyHead, ToIngress, decode, encode_one};
use std::collections::VecDeque;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::timeout;

pub(crate) const KEY: &str = "sk-test-1";
pub(crate) const CHAT: &str = "/v1/chat/completions";
pub(crate) const EMBEDDINGS: &str = "/v1/embeddings";
pub(crate) const CHAT_BODY: &str = r#"{"model":"sandbox-chat","messages":[{"role":"user","content":"hi"}]}"#;
pub(crate) const STREAM_BODY: &str = r#"{"model":"sandbox-chat","messages":[{"role":"user","content":"hi"}],"stream":true}"#;

/// Nothing that is awaited takes longer; on a paused clock it costs no time.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("it did not happen in time")
}

/// Runs something while the test goes on.
pub(crate) fn meanwhile<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> oneshot::Receiver<T> {
    let (done, result) = oneshot::channel();
    task::spawn("test", async move {
        let _ = done.send(work.await);
    });
    result
}

pub(crate) struct Stand {
    pub(crate) broker: Arc<Scripted>,
    pub(crate) ingress: Ingress,
    pub(crate) addr: SocketAddr,
    pub(crate) id: NodeId,
    pub(crate) http: Http,
    lanes: Vec<(Token, Box<dyn Puller>)>,
    taken: VecDeque<Taken>,
    cancels: Box<dyn Inbox>,
    pub(crate) heartbeats: Box<dyn Inbox>,
    _following: Guarded,
}

/// A request as a scheduler takes it from its lane.
pub(crate) struct Taken {
    pub(crate) envelope: Envelope,
    pub(crate) body: Bytes,
    pub(crate) epoch: u64,
    pub(crate) sequence: u64,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    /// The `code` of an error body.
    pub(crate) fn code(&self) -> String {
        let body: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.body));
        let error = &body["error"];
        assert!(error["message"].as_str().is_some_and(|m| m.len() > 10), "a sentence for the caller: {body}");
        assert!(error["type"].is_string(), "{body}");
        error["code"].as_str().unwrap().to_owned()
    }
}

impl Stand {
    pub(crate) async fn start() -> Self {
        Self::with(|_| ()).await
    }

    pub(crate) async fn with(adjust: impl FnOnce(&mut Config)) -> Self {
        Self::over(MemoryBroker::new(), adjust, false).await
    }

    pub(crate) async fn over(memory: Arc<MemoryBroker>, adjust: impl FnOnce(&mut Config), require_worker: bool) -> Self {
        let mut config = Config::sandbox();
        config.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        for (name, key) in [("one", KEY), ("two", "sk-test-2")] {
            config.tenants.push(Tenant::unlimited(name, Secret::literal(key).unwrap()));
        }
        adjust(&mut config);
        let broker = Arc::new(Scripted { memory, unanswered: AtomicUsize::new(0), away: AtomicBool::new(false), mute: Arc::default() });
        let mut lanes = Vec::new();
        for model in &config.models {
            let filter = LaneFilter { lane: Lane::Interactive, model: model.token.clone(), part: 0 };
            lanes.push((model.token.clone(), broker.puller(&filter).await.unwrap()));
        }
        let cancels = broker.listen(&Address::Cancels).await.unwrap();
        let heartbeats = broker.listen(&Address::Heartbeats).await.unwrap();
        let id = NodeId::parse("ingress-1").unwrap();
        let port: Arc<dyn Broker> = broker.clone();
        let file = Directory::new(&config, [7; 32]);
        let (directory, following) = LiveDirectory::follow(file, Arc::clone(&port)).await.unwrap();
        let ingress = Ingress::start(Arc::new(config), port, directory, id.clone(), &Registry::new(), require_worker).await.unwrap();
        let addr = ingress.local_addr();
        Self { broker, addr, id, http: Http::new(addr), ingress, lanes, taken: VecDeque::new(), cancels, heartbeats, _following: following }
    }

    pub(crate) async fn metrics(&self) -> String {
        self.http.send("GET", "/metrics", &[], "").await.body
    }

    /// The next request of a model's lane; its frame is acked as accepted.
    pub(crate) async fn take(&mut self, model: &str) -> Taken {
        if self.taken.is_empty() {
            self.pull(model).await;
        }
        self.taken.pop_front().unwrap()
    }

    async fn pull(&mut self, model: &str) {
        let token = Token::of_model(model);
        let (_, lane) = self.lanes.iter_mut().find(|(of, _)| *of == token).unwrap();
        let delivery = lane.pull(1, PATIENCE).await.unwrap().pop().expect("a request should be in the lane");
        self.broker.ack(&delivery.token).await.unwrap();
        for part in decode(&delivery.frame).unwrap() {
            let (epoch, sequence) = (delivery.epoch, delivery.sequence);
            self.taken.push_back(Taken { envelope: part.decode().unwrap(), body: part.body, epoch, sequence });
        }
    }

    /// Whether nothing waits in a model's lane.
    pub(crate) async fn lane_is_empty(&mut self, model: &str) -> bool {
        let token = Token::of_model(model);
        let (_, lane) = self.lanes.iter_mut().find(|(of, _)| *of == token).unwrap();
        self.taken.is_empty() && lane.pull(1, Duration::from_millis(200)).await.unwrap().is_empty()
    }

    pub(crate) async fn post(&self, message: ToIngress, body: impl Into<Bytes>) {
        self.broker.post(&Address::Ingress(self.id.clone()), encode_one(&message, &body.into())).await.unwrap();
    }

    pub(crate) async fn reply(&self, id: RequestId, exec: ExecId, part: u32, last: bool, body: impl Into<Bytes>) {
        let head = ReplyHead { backend: "sandbox-0".into(), batch_size: 3, queue_ms: 7, backend_ms: 5, ..Default::default() };
        let head = (part == 0).then_some(Box::new(head));
        self.post(ToIngress::Reply(Reply { id, exec: Some(exec), part, last, head, failure: None, usage: None }), body).await;
    }

    /// Begins a stream as a worker does that keeps its parts.
    pub(crate) async fn begin(&self, id: RequestId, exec: ExecId, keeper: &NodeId, body: impl Into<Bytes>) {
        let head = Some(Box::new(ReplyHead { keeper: Some(keeper.clone()), ..Default::default() }));
        self.post(ToIngress::Reply(Reply { id, exec: Some(exec), part: 0, last: false, head, failure: None, usage: None }), body).await;
    }

    pub(crate) async fn fail(&self, id: RequestId, exec: Option<ExecId>, part: u32, failure: Failure) {
        let failure = Some(Box::new(failure));
        self.post(ToIngress::Reply(Reply { id, exec, part, last: true, head: None, failure, usage: None }), Bytes::new()).await;
    }

    /// Says, as an owner does, that a request's lane has been handed out up to it, and names `ids` as held.
    pub(crate) async fn held(&self, taken: &Taken, ids: Vec<RequestId>) {
        let model = Token::of_model(&taken.envelope.model);
        let passed = vec![Passed { model, epoch: taken.epoch, sequence: taken.sequence }];
        self.post(ToIngress::Held(Held { from: NodeId::parse("scheduler-1").unwrap(), ids, passed }), Bytes::new()).await;
    }

    pub(crate) async fn cancelled(&mut self) -> Cancel {
        let frame = soon(self.cancels.next()).await.unwrap();
        decode(&frame).unwrap()[0].decode().unwrap()
    }
}

#[derive(Clone)]
pub(crate) struct Http {
    addr: SocketAddr,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Http {
    pub(crate) fn new(addr: SocketAddr) -> Self {
        Self { addr, client: Client::builder(TokioExecutor::new()).build_http() }
    }

    pub(crate) async fn open(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> http::Response<Incoming> {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.addr));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        soon(self.client.request(request.body(Full::new(body.into())).unwrap())).await.unwrap()
    }

    pub(crate) async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        let (parts, body) = self.open(method, path, headers, body).await.into_parts();
        let body = soon(body.collect()).await.unwrap().to_bytes();
        Answer { status: parts.status, headers: parts.headers, body: String::from_utf8(body.into()).unwrap() }
    }

    /// A JSON POST with a good key.
    pub(crate) async fn post(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        self.send("POST", path, &[("authorization", &format!("Bearer {KEY}")), ("content-type", "application/json")], body).await
    }

    /// The same, while the test goes on.
    pub(crate) fn posting(&self, path: &'static str, body: impl Into<Bytes>) -> oneshot::Receiver<Answer> {
        let (http, body) = (self.clone(), body.into());
        meanwhile(async move { http.post(path, body).await })
    }

    /// The same for an answer that is read bit by bit.
    pub(crate) fn streaming(&self, body: &'static str) -> oneshot::Receiver<http::Response<Incoming>> {
        let http = self.clone();
        let headers = [("authorization", "Bearer sk-test-1"), ("content-type", "application/json")];
        meanwhile(async move { http.open("POST", CHAT, &headers, body).await })
    }
}

/// The next bytes of a stream; `None` at its end.
pub(crate) async fn chunk(body: &mut Incoming) -> Option<String> {
    let frame = soon(body.frame()).await?;
    Some(String::from_utf8(frame.unwrap().into_data().unwrap().into()).unwrap())
}

/// Sends bytes on a new connection and reads what comes back until it is closed.
pub(crate) async fn raw(addr: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    soon(stream.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8(answer).unwrap()
}

struct Muted {
    follower: Box<dyn Follower>,
    mute: Arc<AtomicBool>,
}

#[async_trait]
impl Follower for Muted {
    async fn next(&mut self, wait: Duration) -> Result<Option<Entry>, BrokerError> {
        if self.mute.load(Ordering::Relaxed) {
            tokio::time::sleep(wait).await;
            return Err(BrokerError::Unavailable("no word".into()));
        }
        self.follower.next(wait).await
    }
}

/// The in-process broker, which on demand stores without saying so, is away, or tells nobody of changes.
pub(crate) struct Scripted {
    pub(crate) memory: Arc<MemoryBroker>,
    /// So many publishes are stored and then reported as failed.
    pub(crate) unanswered: AtomicUsize,
    pub(crate) away: AtomicBool,
    /// Those who follow a feed hear nothing.
    pub(crate) mute: Arc<AtomicBool>,
}

#[async_trait]
impl Broker for Scripted {
    async fn publish(&self, to: &LaneSubject, message_id: &str, frame: Bytes) -> Result<Stored, BrokerError> {
        let stored = self.memory.publish(to, message_id, frame).await;
        let unanswered = self.unanswered.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if unanswered.is_ok() { Err(BrokerError::Unavailable("no answer".into())) } else { stored }
    }
    async fn puller(&self, from: &LaneFilter) -> Result<Box<dyn Puller>, BrokerError> {
        self.memory.puller(from).await
    }
    async fn ack(&self, token: &AckToken) -> Result<(), BrokerError> {
        self.memory.ack(token).await
    }
    async fn ack_verified(&self, token: &AckToken) -> Result<(), BrokerError> {
        self.memory.ack_verified(token).await
    }
    async fn renew(&self, token: &AckToken) -> Result<(), BrokerError> {
        self.memory.renew(token).await
    }
    async fn nak(&self, token: &AckToken, delay: Duration) -> Result<(), BrokerError> {
        self.memory.nak(token, delay).await
    }
    async fn holds(&self, lane: Lane, epoch: u64, sequence: u64) -> Result<bool, BrokerError> {
        self.memory.holds(lane, epoch, sequence).await
    }
    async fn post(&self, to: &Address, frame: Bytes) -> Result<(), BrokerError> {
        self.memory.post(to, frame).await
    }
    async fn listen(&self, at: &Address) -> Result<Box<dyn Inbox>, BrokerError> {
        self.memory.listen(at).await
    }
    async fn record_create(&self, bucket: Bucket, key: &str, value: Bytes) -> Result<u64, BrokerError> {
        self.memory.record_create(bucket, key, value).await
    }
    async fn record_update(&self, bucket: Bucket, key: &str, value: Bytes, revision: u64) -> Result<u64, BrokerError> {
        self.memory.record_update(bucket, key, value, revision).await
    }
    async fn record_delete(&self, bucket: Bucket, key: &str, revision: u64) -> Result<(), BrokerError> {
        self.memory.record_delete(bucket, key, revision).await
    }
    async fn record_get(&self, bucket: Bucket, key: &str) -> Result<Option<Record>, BrokerError> {
        self.memory.record_get(bucket, key).await
    }
    async fn append(&self, journal: Journal, topic: &Topic, message_id: &str, entry: Bytes) -> Result<u64, BrokerError> {
        self.memory.append(journal, topic, message_id, entry).await
    }
    async fn follow(&self, feed: &Feed, since: Since) -> Result<Box<dyn Follower>, BrokerError> {
        let follower = self.memory.follow(feed, since).await?;
        Ok(Box::new(Muted { follower, mute: Arc::clone(&self.mute) }))
    }
    async fn erase(&self, journal: Journal, topic: &Topic, through: Option<u64>) -> Result<(), BrokerError> {
        self.memory.erase(journal, topic, through).await
    }
    async fn blob_put(&self, store: Store, key: &str, blob: Bytes) -> Result<(), BrokerError> {
        self.memory.blob_put(store, key, blob).await
    }
    async fn blob_get(&self, store: Store, key: &str) -> Result<Option<Bytes>, BrokerError> {
        self.memory.blob_get(store, key).await
    }
    async fn blob_delete(&self, store: Store, key: &str) -> Result<(), BrokerError> {
        self.memory.blob_delete(store, key).await
    }
    fn is_connected(&self) -> bool {
        !self.away.load(Ordering::Relaxed)
    }
    fn describe(&self) -> String {
        "scripted".into()
    }
}
