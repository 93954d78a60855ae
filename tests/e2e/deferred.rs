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

async fn scheduler(config: &Config, broker: &Arc<dyn Broker>, registry: &Registry) -> Scheduler {
    let directory = Arc::new(ArcSwap::from_pointee(Directory::new(config, entropy::secret())));
    let treasury = Treasury { directory, ledger: Ledger::Own(Arc::default()) };
    Scheduler::start(config, treasury, Arc::clone(broker), entropy::node_id("scheduler"), registry).await.expect("a scheduler")
}

fn subject(lane: Lane) -> LaneSubject {
    LaneSubject { lane, model: Token::of_model("slow"), part: 0, origin: Token::parse("t").expect("a token") }
}

fn filter(lane: Lane) -> LaneFilter {
    LaneFilter { lane, model: Token::of_model("slow"), part: 0 }
}

async fn runs_once_and_is_acked(lane: Lane) {
    let (config, broker) = (config(), MemoryBroker::new());
    let broker: Arc<dyn Broker> = broker;
    let registry = Registry::new();
    let ingress = NodeId::parse("nobody-lives-here").expect("a token");
    let mut inbox = broker.listen(&Address::Ingress(ingress.clone())).await.expect("an inbox");
    let worker = Worker::start(&config, None, Arc::clone(&broker), entropy::node_id("worker"), &registry).await.expect("a worker");
    let scheduler = scheduler(&config, &broker, &registry).await;
    broker.publish(&subject(lane), "once", frame(&ingress, lane)).await.expect("stored");
    let replies = replies(inbox.as_mut(), CALL * 2).await;

    assert_eq!(replies.len(), 1, "{replies:?}");
    assert!(replies[0].last && replies[0].failure.is_none(), "{replies:?}");
    let calls = registry.gather().into_iter().find(|family| family.name() == "tidemill_backend_seconds").expect("calls are counted");
    assert_eq!(calls.get_metric()[0].get_histogram().get_sample_count(), 1, "one call");

    scheduler.drain().await;
    worker.drain(Duration::from_secs(1)).await;
    let mut puller = broker.puller(&filter(lane)).await.expect("a puller");
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

/// Promise: what an owner gives back when it leaves is there for the next at once, not when its ack wait is over.
#[tokio::test(start_paused = true)]
async fn what_a_leaving_owner_gives_back_does_not_come_to_it_again() {
    const FRAMES: usize = 20;
    let (config, broker, registry) = (config(), MemoryBroker::new() as Arc<dyn Broker>, Registry::new());
    let owner = scheduler(&config, &broker, &registry).await;
    let ingress = NodeId::parse("nobody-lives-here").expect("a token");
    for n in 0..FRAMES {
        broker.publish(&subject(Lane::Bulk), &n.to_string(), frame(&ingress, Lane::Bulk)).await.expect("stored");
    }
    tokio::time::sleep(Duration::from_secs(5)).await; // It takes over the model, and reads what there is.
    owner.drain().await;
    let mut next = broker.puller(&filter(Lane::Bulk)).await.expect("a puller");
    let given_back = next.pull(FRAMES, ACK_WAIT_DEFERRED / 5).await.expect("a pull");
    assert_eq!(given_back.len(), FRAMES);
}
