//! The loop over the in-process broker, with a scripted target.

use super::courier::{CONNECT_TIMEOUT, Undelivered, connect};
use super::*;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prometheus::Registry;
use shared::broker::memory::MemoryBroker;
use shared::config::{EventKind, WebhookPolicy, parse};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(10);
const SECRET: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

/// A target that answers each post with the next of these heads, and then with the last.
struct Target {
    port: u16,
    posts: mpsc::UnboundedReceiver<String>,
}

impl Target {
    async fn answering(heads: &'static [&'static str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (heard, posts) = mpsc::unbounded_channel();
        task::spawn("target", async move {
            for n in 0.. {
                let (mut socket, _) = listener.accept().await.unwrap();
                let head = heads[n.min(heads.len() - 1)];
                drop(heard.send(read_post(&mut socket).await));
                let answer = format!("HTTP/1.1 {head}\r\ncontent-length: 0\r\n\r\n");
                socket.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        Self { port, posts }
    }

    async fn post(&mut self) -> String {
        timeout(SOON, self.posts.recv()).await.expect("a post in time").unwrap()
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hook?token=canary", self.port)
    }

    fn config(&self) -> Config {
        let Self { port, .. } = self;
        let webhook = format!("{{ url: '{}', secret: '{SECRET}', events: [ batch.* ] }}", self.url());
        let policy = format!("{{ allow_private: true, allow_http: true, ports: [ {port} ] }}");
        parse(&format!("webhooks: {policy}\ntenants: [ {{ name: t, webhooks: [ {webhook} ] }} ]\n"), "f").unwrap()
    }
}

async fn read_post(socket: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut post = Vec::new();
    while !post.ends_with(b"}}") {
        assert!(socket.read_buf(&mut post).await.unwrap() > 0, "cut off");
    }
    String::from_utf8(post).unwrap()
}

fn header<'a>(post: &'a str, name: &str) -> &'a str {
    let line = post.lines().find(|line| line.starts_with(&format!("{name}: "))).unwrap_or_else(|| panic!("{name} in {post}"));
    &line[name.len() + 2..]
}

fn event(n: usize) -> Event {
    Event::new(EventKind::BatchCompleted, &format!("batch_{n}"), 7)
}

async fn start(config: &Config, broker: &Arc<MemoryBroker>, name: &str) -> (Arc<Webhooks>, Guarded) {
    let id = NodeId::parse(name).unwrap();
    Webhooks::start(config, Arc::clone(broker) as Arc<dyn Broker>, id, &Registry::new()).await.unwrap()
}

/// The deliveries, once they are as they should be.
async fn until(webhooks: &Webhooks, holds: impl Fn(&[Delivery]) -> bool) -> Vec<Delivery> {
    let told = async {
        loop {
            let all = webhooks.list(None, 100).await.unwrap();
            if holds(&all) {
                return all;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, told).await.expect("in time")
}

#[tokio::test]
async fn an_event_is_posted_with_its_signature_and_then_forgotten() {
    let mut target = Target::answering(&["204 No Content"]).await;
    let (webhooks, _task) = start(&target.config(), &MemoryBroker::new(), "one").await;
    webhooks.announce("t", &event(1)).await.unwrap();
    let post = target.post().await;
    assert!(post.starts_with("POST /hook?token=canary HTTP/1.1\r\n"), "{post}");
    assert_eq!(header(&post, "host"), format!("127.0.0.1:{}", target.port));
    assert_eq!(header(&post, "webhook-id"), event(1).id());
    let (_, body) = post.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, event(1).body());
    let signed = format!("{}.{}.{body}", event(1).id(), header(&post, "webhook-timestamp"));
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, b"01234567890123456789012345678901");
    let tag = STANDARD.decode(header(&post, "webhook-signature").strip_prefix("v1,").unwrap()).unwrap();
    aws_lc_rs::hmac::verify(&key, signed.as_bytes(), &tag).expect("the receiver's check");
    until(&webhooks, |all| all.is_empty()).await;
}

#[tokio::test]
async fn nobody_is_told_what_nobody_asked_for() {
    let mut target = Target::answering(&["200 OK"]).await;
    let (webhooks, _task) = start(&target.config(), &MemoryBroker::new(), "one").await;
    webhooks.announce("t", &Event::new(EventKind::JobFailed, "job_1", 7)).await.unwrap();
    webhooks.announce("another", &event(1)).await.unwrap();
    webhooks.announce("t", &event(2)).await.unwrap();
    assert!(target.post().await.contains("batch_2"));
}

#[tokio::test]
async fn a_target_that_fails_is_tried_again_by_and_by_or_when_asked_for() {
    let mut target = Target::answering(&["500 Internal Server Error", "307 Temporary Redirect\r\nlocation: /elsewhere", "200 OK"]).await;
    let (webhooks, _task) = start(&target.config(), &MemoryBroker::new(), "one").await;
    webhooks.announce("t", &event(1)).await.unwrap();
    target.post().await;
    let failed = until(&webhooks, |all| all.iter().any(|one| one.last.is_some())).await.remove(0);
    assert_eq!((failed.attempts, failed.last.as_deref()), (1, Some("the target answered 500")));
    let pause = failed.next_ms - failed.since_ms;
    assert!((3_750..10_000).contains(&pause), "{pause}");

    assert_eq!(webhooks.redeliver(&failed.event).await, Ok(1));
    target.post().await;
    let redirected = until(&webhooks, |all| all.iter().any(|one| one.last.as_deref().is_some_and(|why| why.contains("307")))).await;
    assert_eq!(redirected[0].attempts, 1, "patience begins anew");

    webhooks.redeliver(&failed.event).await.unwrap();
    let post = target.post().await;
    assert!(post.starts_with("POST /hook"), "no redirect was followed: {post}");
    until(&webhooks, |all| all.is_empty()).await;
    assert_eq!(webhooks.redeliver(&failed.event).await, Ok(0));
}

#[tokio::test]
async fn a_target_that_is_gone_is_given_up_at_once_and_can_be_asked_again() {
    let mut target = Target::answering(&["410 Gone", "200 OK"]).await;
    let (webhooks, _task) = start(&target.config(), &MemoryBroker::new(), "one").await;
    webhooks.announce("t", &event(1)).await.unwrap();
    target.post().await;
    let given_up = until(&webhooks, |all| all.iter().any(Delivery::is_given_up)).await;
    webhooks.redeliver(&given_up[0].event).await.unwrap();
    target.post().await;
    until(&webhooks, |all| all.is_empty()).await;
}

#[tokio::test]
async fn what_a_dead_ingress_has_announced_is_delivered_by_another() {
    let mut target = Target::answering(&["200 OK"]).await;
    let (config, broker) = (target.config(), MemoryBroker::new());
    let (dead, task) = start(&config, &broker, "one").await;
    drop(task);
    dead.announce("t", &event(1)).await.unwrap();
    let (alive, _task) = start(&config, &broker, "other").await;
    assert!(target.post().await.contains("batch_1"));
    until(&alive, |all| all.is_empty()).await;
}

#[tokio::test]
async fn of_two_ingresses_one_delivers() {
    let mut target = Target::answering(&["200 OK"]).await;
    let (config, broker) = (target.config(), MemoryBroker::new());
    let ((one, _task), (other, _another)) = (start(&config, &broker, "one").await, start(&config, &broker, "other").await);
    for n in 0..20 {
        one.announce("t", &event(n)).await.unwrap();
        other.announce("t", &event(n)).await.unwrap();
    }
    let mut posts = Vec::new();
    for _ in 0..20 {
        posts.push(header(&target.post().await, "webhook-id").to_owned());
    }
    for webhooks in [&one, &other] {
        until(webhooks, |all| all.is_empty()).await;
    }
    assert!(target.posts.is_empty(), "more than twenty");
    posts.sort();
    let mut expected: Vec<_> = (0..20).map(|n| event(n).id()).collect();
    expected.sort();
    assert_eq!(posts, expected);
}

#[tokio::test]
async fn a_tenant_with_too_many_is_told_no_more() {
    let target = Target::answering(&["200 OK"]).await;
    let (webhooks, _task) = start(&target.config(), &MemoryBroker::new(), "one").await;
    for n in 0..PER_TENANT_MAX {
        let waiting = Delivery::new("t", &event(n), "https://h.example/", "one", u64::MAX / 2);
        webhooks.agenda().enter(&waiting.key(), &waiting, "one", 0);
    }
    webhooks.announce("t", &event(PER_TENANT_MAX)).await.unwrap();
    let refused = Delivery::new("t", &event(PER_TENANT_MAX), &target.url(), "one", 0);
    assert_eq!(webhooks.broker.record_get(Bucket::Hooks, &refused.key()).await, Ok(None));
}

fn webhook(url: &str, policy: &WebhookPolicy) -> Webhook {
    let secret = shared::config::SigningSecret::parse(SECRET).unwrap();
    Webhook { url: policy.target(url).unwrap(), secret, events: Vec::new() }
}

async fn deliver(courier: &Courier, webhook: &Webhook) -> Result<(), Undelivered> {
    courier.deliver(webhook, &Delivery::new("t", &event(1), webhook.url.as_str(), "one", 0), 7).await
}

#[tokio::test]
async fn a_name_that_leads_inside_is_refused_whatever_it_is_called() {
    let target = Target::answering(&["200 OK"]).await;
    let policy = WebhookPolicy { allow_private: false, allow_http: true, ports: vec![target.port] };
    let webhook = webhook(&format!("http://localhost:{}/", target.port), &policy);
    let refused = deliver(&Courier::new(policy, tls::client(None).unwrap()), &webhook).await;
    assert!(matches!(refused, Err(Undelivered::Private)), "{refused:?}");
    assert!(target.posts.is_empty(), "nothing was connected to");
}

#[tokio::test(start_paused = true)]
async fn a_target_that_hangs_is_left_after_ten_seconds() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let policy = WebhookPolicy { allow_private: true, allow_http: true, ports: vec![port] };
    let webhook = webhook(&format!("http://127.0.0.1:{port}/"), &policy);
    let begun = clock::now();
    let hung = deliver(&Courier::new(policy, tls::client(None).unwrap()), &webhook).await;
    assert!(matches!(hung, Err(Undelivered::Timeout)), "{hung:?}");
    assert_eq!(clock::now().since(begun).as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_silent_address_leaves_time_for_the_others() {
    let [silent, refuses, takes] = [1_u8, 2, 3].map(|n| SocketAddr::from(([192, 0, 2, n], 443)));
    let open = |address: SocketAddr| async move {
        if address == silent {
            std::future::pending::<io::Result<SocketAddr>>().await
        } else if address == refuses {
            Err(io::ErrorKind::ConnectionRefused.into())
        } else {
            Ok(address)
        }
    };
    let begun = clock::now();
    assert_eq!(connect(&[silent, refuses, takes], open).await.unwrap(), takes);
    assert_eq!(clock::now().since(begun).as_secs(), CONNECT_TIMEOUT.as_secs());
    let failed = connect(&[silent, silent], open).await;
    assert!(matches!(&failed, Err(Undelivered::Connect(error)) if error.kind() == io::ErrorKind::TimedOut), "{failed:?}");
}

#[tokio::test]
async fn a_receipt_counts_although_what_follows_never_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let target = task::spawn_guarded("target", async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        read_post(&mut socket).await;
        socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nand").await.unwrap();
        std::future::pending::<()>().await;
    });
    let policy = WebhookPolicy { allow_private: true, allow_http: true, ports: vec![port] };
    let webhook = webhook(&format!("http://127.0.0.1:{port}/"), &policy);
    deliver(&Courier::new(policy, tls::client(None).unwrap()), &webhook).await.unwrap();
    drop(target);
}

#[tokio::test]
async fn over_tls_the_certificate_must_bear_the_targets_name() {
    let issued = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(issued.signing_key.serialize_der()).unwrap();
    let serving = rustls::ServerConfig::builder_with_provider(tls::provider()).with_safe_default_protocol_versions().unwrap();
    let serving = serving.with_no_client_auth().with_single_cert(vec![issued.cert.der().clone()], key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(serving));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (heard, mut posts) = mpsc::unbounded_channel();
    task::spawn("target", async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let Ok(mut socket) = acceptor.accept(socket).await else { continue };
            drop(heard.send((read_post(&mut socket).await, socket.get_ref().1.server_name().map(str::to_owned))));
            socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        }
    });
    let mut roots = rustls::RootCertStore::empty();
    roots.add(issued.cert.der().clone()).unwrap();
    let calling = rustls::ClientConfig::builder_with_provider(tls::provider()).with_safe_default_protocol_versions().unwrap();
    let calling = calling.with_root_certificates(roots).with_no_client_auth();
    let policy = WebhookPolicy { allow_private: true, allow_http: false, ports: vec![port] };
    let courier = Courier::new(policy.clone(), calling);

    deliver(&courier, &webhook(&format!("https://localhost:{port}/"), &policy)).await.unwrap();
    let (post, server_name) = timeout(SOON, posts.recv()).await.unwrap().unwrap();
    assert_eq!((header(&post, "host"), server_name.as_deref()), (&*format!("localhost:{port}"), Some("localhost")));
    let other_name = deliver(&courier, &webhook(&format!("https://127.0.0.1:{port}/"), &policy)).await;
    assert!(matches!(other_name, Err(Undelivered::Connect(_))), "{other_name:?}");
}
