//! The deferred lanes, whose callers come in a later release: their deliveries are kept by the owner for as long as a worker
//! runs them, and acked after that. In one process and on virtual time, because an ack wait is 15 s.

use arc_swap::ArcSwap;
use bytes::Bytes;
use prometheus::Registry;
use scheduler::{Ledger, Scheduler, Treasury};
use shared::broker::memory::MemoryBroker;
use shared::broker::{ACK_WAIT_DEFERRED, Address, Broker, LaneFilter, LaneSubject};
use shared::config::{self, Config};
use shared::domain::{Lane, NodeId, Operation, Token};
use shared::entropy;
use shared::identity::Directory;
use shared::wire::{Encoding, Envelope, Reply, ToIngress, decode, encode_one};
use std::sync::Arc;
use std::time::Duration;
use workers::Worker;

/// Longer than two ack waits.
const CALL: Duration = Duration::from_secs(40);

fn config() -> Config {
    let yaml = format!(
        "models: [{{ name: slow, kind: sequence, backends: [{{ kind: sandbox, sandbox: {{ first_token_ms: {} }} }}] }}]",
        CALL.as_millis()
    );
    config::parse(&yaml, "test").expect("the configuration is valid")
}

fn frame(ingress: &NodeId, lane: Lane) -> Bytes {
    let body = Bytes::from_static(br#"{"model":"slow","max_tokens":1,"messages":[{"role":"user","content":"tide"}]}"#);
    let envelope = Envelope {
        id: entropy::request_id(),
        key: None,
        tenant: "t".into(),
        model: "slow".into(),
        lane,
        op: Operation::Chat,
        remaining_ms: 600_000,
        tokens_in: 10,
        tokens_out: 1,
        items: 1,
        longest: 0,
        bytes: 78,
        compat: 0,
        ingress: ingress.clone(),
        stream: false,
        encoding: Encoding::Float,
        model_at: Some((9, 15)),
        params: "".into(),
        traceparent: None,
        claim: None,
        asked: None,
        job: None,
    };
    encode_one(&envelope, &body)
}

/// Replies that come to `inbox` before it has been silent for `silence`.
async fn replies(inbox: &mut dyn shared::broker::Inbox, silence: Duration) -> Vec<Reply> {
    let mut replies = Vec::new();
    while let Ok(Some(frame)) = tokio::time::timeout(silence, inbox.next()).await {
        for part in decode(&frame).expect("a frame") {
            if let ToIngress::Reply(reply) = part.decode().expect("a message") {
                replies.push(reply);
            }
        }
    }
    replies
}

async fn runs_once_and_is_acked(lane: Lane) {
    let (config, broker) = (config(), MemoryBroker::new());
    let broker: Arc<dyn Broker> = broker;
    let registry = Registry::new();
    let ingress = NodeId::parse("nobody-lives-here").expect("a token");
    let mut inbox = broker.listen(&Address::Ingress(ingress.clone())).await.expect("an inbox");
    let worker = Worker::start(&config, None, Arc::clone(&broker), entropy::node_id("worker"), &registry).await.expect("a worker");
    let directory = Arc::new(ArcSwap::from_pointee(Directory::new(&config, entropy::secret())));
    let treasury = Treasury { directory, ledger: Ledger::Own(Arc::default()) };
    let scheduler =
        Scheduler::start(&config, treasury, Arc::clone(&broker), entropy::node_id("scheduler"), &registry).await.expect("a scheduler");

    let model = Token::of_model("slow");
    let to = LaneSubject { lane, model: model.clone(), part: 0, origin: Token::parse("t").expect("a token") };
    broker.publish(&to, "once", frame(&ingress, lane)).await.expect("stored");
    let replies = replies(inbox.as_mut(), CALL * 2).await;

    assert_eq!(replies.len(), 1, "{replies:?}");
    assert!(replies[0].last && replies[0].failure.is_none(), "{replies:?}");
    let calls = registry.gather().into_iter().find(|family| family.name() == "tidemill_backend_seconds").expect("calls are counted");
    assert_eq!(calls.get_metric()[0].get_histogram().get_sample_count(), 1, "one call");

    scheduler.drain().await;
    worker.drain(Duration::from_secs(1)).await;
    let mut puller = broker.puller(&LaneFilter { lane, model, part: 0 }).await.expect("a puller");
    let left = puller.pull(1, ACK_WAIT_DEFERRED * 2).await.expect("a pull");
    assert!(left.is_empty(), "the delivery was acked: {left:?}");
}

#[tokio::test(start_paused = true)]
async fn an_async_delivery_outlives_its_ack_wait_at_the_worker_and_is_acked_once() {
    runs_once_and_is_acked(Lane::Async).await;
}

#[tokio::test(start_paused = true)]
async fn so_does_a_bulk_delivery() {
    runs_once_and_is_acked(Lane::Bulk).await;
}
