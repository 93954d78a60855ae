//! loop: the recorder against a broker that fails when told to.

use super::*;
use prometheus::Registry;
use shared::broker::memory::MemoryBroker;
use shared::broker::{
    AckToken, Address, Bucket, Feed, Follower, Inbox, LaneFilter, LaneSubject, Puller, Record, Since, Store, Stored, Topic,
};
use shared::domain::{Lane, Operation};
use shared::hear;
use shared::wire::{COALESCE_MAX, ItemEnd};
use std::sync::atomic::{AtomicUsize, Ordering};

pub(super) fn call(tenant: &str, n: usize) -> Call {
    Call {
        at_ms: 0,
        id: entropy::request_id(),
        tenant: tenant.into(),
        key: None,
        model: "m".into(),
        op: Operation::Chat,
        lane: Lane::Interactive,
        backend: "b".into(),
        input: u32::try_from(n).unwrap(),
        output: 0,
        nano_usd: 0,
        end: ItemEnd::Answered,
        ms: 1,
    }
}

/// Stores every entry, and says so only when it has failed often enough.
struct Flaky {
    memory: Arc<MemoryBroker>,
    failures: AtomicUsize,
}

impl Flaky {
    fn failing(failures: usize) -> Arc<Self> {
        Arc::new(Self { memory: MemoryBroker::new(), failures: AtomicUsize::new(failures) })
    }

    /// What is on record, entry by entry.
    async fn recorded(&self, tenant: &str) -> Vec<Vec<Call>> {
        let feed = Feed::Journal(Journal::Usage, Some(Token::of_name(tenant).into()));
        let mut follower = self.memory.follow(&feed, Since::Start).await.unwrap();
        let mut entries = Vec::new();
        while let Some(entry) = follower.next(Duration::ZERO).await.unwrap() {
            entries.push(hear::messages(&entry.value.unwrap()).into_iter().map(|(call, _)| call).collect());
        }
        entries
    }
}

fn recorder(broker: &Arc<Flaky>) -> Recorder {
    Recorder::start(Arc::clone(broker) as Arc<dyn Broker>, Metrics::new(&Registry::new()).unwrap())
}

#[tokio::test(start_paused = true)]
async fn calls_that_end_together_share_an_entry_of_their_tenant() {
    let (broker, calls) = (Flaky::failing(0), COALESCE_MAX + 1);
    let recorder = recorder(&broker);
    (0..calls).for_each(|n| recorder.note(call("a", n)));
    recorder.note(call("b", 7));
    assert!(broker.recorded("a").await.is_empty(), "they gather first");
    recorder.settled().await;
    let of_a = broker.recorded("a").await;
    assert_eq!(of_a.iter().map(Vec::len).collect::<Vec<_>>(), [COALESCE_MAX, 1]);
    assert!(of_a.concat().iter().map(|call| call.input as usize).eq(0..calls), "in order");
    assert_eq!(broker.recorded("b").await.concat()[0].input, 7);
}

#[tokio::test(start_paused = true)]
async fn an_entry_whose_confirmation_is_lost_is_recorded_once() {
    let broker = Flaky::failing(3);
    let recorder = recorder(&broker);
    recorder.note(call("a", 1));
    recorder.settled().await;
    recorder.note(call("a", 2));
    recorder.settled().await;
    let inputs: Vec<_> = broker.recorded("a").await.concat().iter().map(|call| call.input).collect();
    assert_eq!(inputs, [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_drain_does_not_wait_for_ever() {
    let broker = Flaky::failing(usize::MAX);
    let recorder = recorder(&broker);
    recorder.note(call("a", 1));
    let started = clock::now();
    recorder.settled().await;
    assert!(clock::now().since(started) < SETTLE_MAX + Duration::from_millis(10));
    assert!(!recorder.desk.notes().are_settled());
}

fn unavailable<T>() -> Result<T, BrokerError> {
    Err(BrokerError::Unavailable("scripted".into()))
}

#[async_trait::async_trait]
impl Broker for Flaky {
    async fn append(&self, journal: Journal, topic: &Topic, message_id: &str, entry: Bytes) -> Result<u64, BrokerError> {
        let stored = self.memory.append(journal, topic, message_id, entry).await;
        let fails = self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        if fails { unavailable() } else { stored }
    }
    async fn publish(&self, _: &LaneSubject, _: &str, _: Bytes) -> Result<Stored, BrokerError> {
        unavailable()
    }
    async fn puller(&self, _: &LaneFilter) -> Result<Box<dyn Puller>, BrokerError> {
        unavailable()
    }
    async fn ack(&self, _: &AckToken) -> Result<(), BrokerError> {
        unavailable()
    }
    async fn ack_verified(&self, _: &AckToken) -> Result<(), BrokerError> {
        unavailable()
    }
    async fn renew(&self, _: &AckToken) -> Result<(), BrokerError> {
        unavailable()
    }
    async fn nak(&self, _: &AckToken, _: Duration) -> Result<(), BrokerError> {
        unavailable()
    }
    async fn holds(&self, _: Lane, _: u64, _: u64) -> Result<bool, BrokerError> {
        unavailable()
    }
    async fn post(&self, _: &Address, _: Bytes) -> Result<(), BrokerError> {
        unavailable()
    }
    async fn listen(&self, _: &Address) -> Result<Box<dyn Inbox>, BrokerError> {
        unavailable()
    }
    async fn record_create(&self, _: Bucket, _: &str, _: Bytes) -> Result<u64, BrokerError> {
        unavailable()
    }
    async fn record_update(&self, _: Bucket, _: &str, _: Bytes, _: u64) -> Result<u64, BrokerError> {
        unavailable()
    }
    async fn record_delete(&self, _: Bucket, _: &str, _: u64) -> Result<(), BrokerError> {
        unavailable()
    }
    async fn record_get(&self, _: Bucket, _: &str) -> Result<Option<Record>, BrokerError> {
        unavailable()
    }
    async fn follow(&self, _: &Feed, _: Since) -> Result<Box<dyn Follower>, BrokerError> {
        unavailable()
    }
    async fn erase(&self, _: Journal, _: &Topic, _: Option<u64>) -> Result<(), BrokerError> {
        unavailable()
    }
    async fn blob_put(&self, _: Store, _: &str, _: Bytes) -> Result<(), BrokerError> {
        unavailable()
    }
    async fn blob_get(&self, _: Store, _: &str) -> Result<Option<Bytes>, BrokerError> {
        unavailable()
    }
    async fn blob_delete(&self, _: Store, _: &str) -> Result<(), BrokerError> {
        unavailable()
    }
    fn is_connected(&self) -> bool {
        false
    }
    fn describe(&self) -> String {
        "flaky".into()
    }
}
