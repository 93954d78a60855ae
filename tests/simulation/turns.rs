//! edge: the broker as a role sees it from afar: each call sets out in one turn, takes effect in another, and its word comes back in a
//! third. Between any two of them others may act, and whoever called may die.

use async_trait::async_trait;
use bytes::Bytes;
use futures::pending;
use shared::broker::memory::MemoryBroker;
use shared::broker::{
    AckToken, Address, Broker, BrokerError, Bucket, Delivery, Entry, Feed, Follower, Inbox, Journal, LaneFilter, LaneSubject, Puller,
    Record, Since, Store, Stored, Topic,
};
use shared::clock::Time;
use shared::domain::Lane;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub(crate) struct Turns {
    broker: Arc<MemoryBroker>,
    clock: Arc<AtomicU64>,
}

impl Turns {
    /// `clock`: the world's, in microseconds.
    pub(crate) const fn new(broker: Arc<MemoryBroker>, clock: Arc<AtomicU64>) -> Self {
        Self { broker, clock }
    }
}

/// A call, with a turn before and one after it.
macro_rules! travel {
    ($call:expr) => {{
        pending!();
        let done = $call.await;
        pending!();
        done
    }};
}

#[async_trait]
impl Broker for Turns {
    async fn publish(&self, to: &LaneSubject, message_id: &str, frame: Bytes) -> Result<Stored, BrokerError> {
        travel!(self.broker.publish(to, message_id, frame))
    }

    async fn puller(&self, from: &LaneFilter) -> Result<Box<dyn Puller>, BrokerError> {
        let puller = travel!(self.broker.puller(from))?;
        Ok(Box::new(TurningPuller(puller)))
    }

    async fn ack(&self, token: &AckToken) -> Result<(), BrokerError> {
        travel!(self.broker.ack(token))
    }

    async fn ack_verified(&self, token: &AckToken) -> Result<(), BrokerError> {
        travel!(self.broker.ack_verified(token))
    }

    async fn renew(&self, token: &AckToken) -> Result<(), BrokerError> {
        travel!(self.broker.renew(token))
    }

    async fn nak(&self, token: &AckToken, delay: Duration) -> Result<(), BrokerError> {
        travel!(self.broker.nak(token, delay))
    }

    async fn holds(&self, lane: Lane, epoch: u64, sequence: u64) -> Result<bool, BrokerError> {
        travel!(self.broker.holds(lane, epoch, sequence))
    }

    async fn post(&self, to: &Address, frame: Bytes) -> Result<(), BrokerError> {
        travel!(self.broker.post(to, frame))
    }

    async fn listen(&self, at: &Address) -> Result<Box<dyn Inbox>, BrokerError> {
        travel!(self.broker.listen(at))
    }

    async fn record_create(&self, bucket: Bucket, key: &str, value: Bytes) -> Result<u64, BrokerError> {
        travel!(self.broker.record_create(bucket, key, value))
    }

    async fn record_update(&self, bucket: Bucket, key: &str, value: Bytes, revision: u64) -> Result<u64, BrokerError> {
        travel!(self.broker.record_update(bucket, key, value, revision))
    }

    async fn record_delete(&self, bucket: Bucket, key: &str, revision: u64) -> Result<(), BrokerError> {
        travel!(self.broker.record_delete(bucket, key, revision))
    }

    async fn record_get(&self, bucket: Bucket, key: &str) -> Result<Option<Record>, BrokerError> {
        travel!(self.broker.record_get(bucket, key))
    }

    async fn append(&self, journal: Journal, topic: &Topic, message_id: &str, entry: Bytes) -> Result<u64, BrokerError> {
        travel!(self.broker.append(journal, topic, message_id, entry))
    }

    async fn erase(&self, journal: Journal, topic: &Topic, through: Option<u64>) -> Result<(), BrokerError> {
        travel!(self.broker.erase(journal, topic, through))
    }

    async fn follow(&self, feed: &Feed, since: Since) -> Result<Box<dyn Follower>, BrokerError> {
        let follower = travel!(self.broker.follow(feed, since))?;
        Ok(Box::new(TurningFollower { follower, clock: Arc::clone(&self.clock) }))
    }

    async fn blob_put(&self, store: Store, key: &str, blob: Bytes) -> Result<(), BrokerError> {
        travel!(self.broker.blob_put(store, key, blob))
    }

    async fn blob_get(&self, store: Store, key: &str) -> Result<Option<Bytes>, BrokerError> {
        travel!(self.broker.blob_get(store, key))
    }

    async fn blob_delete(&self, store: Store, key: &str) -> Result<(), BrokerError> {
        travel!(self.broker.blob_delete(store, key))
    }

    fn is_connected(&self) -> bool {
        true
    }

    fn describe(&self) -> String {
        "simulated".into()
    }
}

struct TurningPuller(Box<dyn Puller>);

#[async_trait]
impl Puller for TurningPuller {
    async fn pull(&mut self, max: usize, wait: Duration) -> Result<Vec<Delivery>, BrokerError> {
        travel!(self.0.pull(max, wait))
    }

    async fn position(&mut self) -> Result<(u64, u64), BrokerError> {
        travel!(self.0.position())
    }
}

struct TurningFollower {
    follower: Box<dyn Follower>,
    clock: Arc<AtomicU64>,
}

#[async_trait]
impl Follower for TurningFollower {
    /// What has not come yet is looked for turn by turn, a longer one each.
    async fn next(&mut self, wait: Duration) -> Result<Option<Entry>, BrokerError> {
        let until = Time(self.clock.load(Ordering::Relaxed)) + wait;
        loop {
            if let Some(entry) = self.follower.next(Duration::ZERO).await? {
                return Ok(Some(entry));
            }
            if Time(self.clock.load(Ordering::Relaxed)) >= until {
                return Ok(None);
            }
            REST.set(true);
            pending!();
        }
    }
}

thread_local! {
    /// The turn that has just ended waits for something to come.
    static REST: Cell<bool> = const { Cell::new(false) };
}

/// Whether whoever had the last turn had nothing to do in it.
pub(crate) fn rests() -> bool {
    REST.take()
}
