//! edge: the broker in process, with JetStream's semantics and nothing on disk.
//!
//! The embedded default of `tidemill up`, and the ground of the tests: it follows tokio's clock, so paused time works.
//! Its locks are blocking ones, held for a few map operations and never across an await: that is faster than an
//! asynchronous lock and cannot be held by a task that was cancelled.

mod blobs;
mod feeds;
mod journals;
mod lane;
mod recent;
mod records;
mod timepiece;
mod trouble;

use self::blobs::Blobs;
use self::feeds::MemoryFollower;
use self::journals::Pages;
use self::lane::LaneQueue;
use self::records::Records;
use self::timepiece::Timepiece;
use super::kept;
use super::limits::{Limits, PAYLOAD_BYTES_MAX};
use super::posts::Posts;
use super::{
    AckToken, Address, Attached, Broker, BrokerError, Bucket, Delivery, Feed, Follower, Inbox, Journal, LaneFilter, LaneSubject, Listener,
    Puller, Record, Since, Store, Stored, Topic, ack_wait,
};
use crate::clock::{self, Time};
use crate::domain::Lane;
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

#[derive(Debug)]
pub struct MemoryBroker {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    time: Timepiece,
    lanes: [Mutex<LaneQueue>; Lane::ALL.len()],
    posts: Posts,
    records: [Mutex<Records>; Bucket::ALL.len()],
    journals: [Mutex<Pages>; Journal::ALL.len()],
    blobs: [Mutex<Blobs>; Store::ALL.len()],
}

impl MemoryBroker {
    pub fn new() -> Arc<Self> {
        Self::with_limits(&Limits::in_process())
    }

    pub fn with_limits(limits: &Limits) -> Arc<Self> {
        Self::build(limits, Timepiece::default())
    }

    fn build(limits: &Limits, time: Timepiece) -> Arc<Self> {
        // When this broker was made: a new one begins its sequences again.
        let epoch = u64::try_from(time.unix().as_nanos()).unwrap_or(u64::MAX);
        let lanes = Lane::ALL.map(|lane| Mutex::new(LaneQueue::new(*limits.lane(lane), ack_wait(lane), epoch)));
        let shared = Shared {
            time,
            lanes,
            posts: Posts::default(),
            records: Bucket::ALL.map(|bucket| Mutex::new(Records::new(bucket))),
            journals: Journal::ALL.map(|journal| Mutex::new(Pages::new(journal, limits.journal(journal)))),
            blobs: Store::ALL.map(|store| Mutex::new(Blobs::new(limits.store(store), store.age_max()))),
        };
        Arc::new(Self { shared: Arc::new(shared) })
    }

    fn now(&self) -> Time {
        self.shared.time.now()
    }

    fn with_delivery<T>(&self, token: &AckToken, act: impl FnOnce(&mut LaneQueue, u64) -> T) -> Result<T, BrokerError> {
        let (lane, sequence) = read_token(token).ok_or(BrokerError::Gone)?;
        Ok(act(&mut self.shared.lane(lane), sequence))
    }
}

impl Shared {
    fn lane(&self, lane: Lane) -> MutexGuard<'_, LaneQueue> {
        lock(&self.lanes[lane.index()])
    }

    const fn records(&self, bucket: Bucket) -> &Mutex<Records> {
        &self.records[bucket.index()]
    }

    const fn journal(&self, journal: Journal) -> &Mutex<Pages> {
        &self.journals[journal.index()]
    }

    const fn blobs(&self, store: Store) -> &Mutex<Blobs> {
        &self.blobs[store.index()]
    }
}

/// A panic in the middle of a change is a defect that its task has reported; the others go on.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn token(lane: Lane, sequence: u64) -> AckToken {
    AckToken(format!("{}.{sequence}", lane.as_str()).into())
}

fn read_token(token: &AckToken) -> Option<(Lane, u64)> {
    let (lane, sequence) = token.0.split_once('.')?;
    let lane = Lane::ALL.into_iter().find(|l| l.as_str() == lane)?;
    Some((lane, sequence.parse().ok()?))
}

#[async_trait]
impl Broker for MemoryBroker {
    async fn publish(&self, to: &LaneSubject, message_id: &str, frame: Bytes) -> Result<Stored, BrokerError> {
        if frame.len() > PAYLOAD_BYTES_MAX {
            return Err(BrokerError::TooLarge);
        }
        let mut lane = self.shared.lane(to.lane);
        let (sequence, duplicate) = lane.publish(self.now(), to, message_id, frame)?;
        Ok(Stored { sequence, epoch: lane.epoch(), duplicate })
    }

    async fn puller(&self, from: &LaneFilter) -> Result<Box<dyn Puller>, BrokerError> {
        let news = self.shared.lane(from.lane).news(from);
        Ok(Box::new(MemoryPuller { shared: self.shared.clone(), from: from.clone(), news }))
    }

    async fn ack(&self, token: &AckToken) -> Result<(), BrokerError> {
        self.with_delivery(token, LaneQueue::ack).map(drop)
    }

    async fn ack_verified(&self, token: &AckToken) -> Result<(), BrokerError> {
        let known = self.with_delivery(token, LaneQueue::ack)?;
        if known { Ok(()) } else { Err(BrokerError::Gone) }
    }

    async fn renew(&self, token: &AckToken) -> Result<(), BrokerError> {
        self.with_delivery(token, |lane, sequence| lane.renew(self.now(), sequence))
    }

    async fn nak(&self, token: &AckToken, delay: Duration) -> Result<(), BrokerError> {
        self.with_delivery(token, |lane, sequence| lane.nak(self.now(), sequence, delay))
    }

    async fn holds(&self, lane: Lane, epoch: u64, sequence: u64) -> Result<bool, BrokerError> {
        let mut lane = self.shared.lane(lane);
        Ok(epoch == lane.epoch() && lane.holds(self.now(), sequence))
    }

    async fn post(&self, to: &Address, frame: Bytes) -> Result<(), BrokerError> {
        if frame.len() > PAYLOAD_BYTES_MAX {
            return Err(BrokerError::TooLarge);
        }
        self.shared.posts.post(to, &frame);
        Ok(())
    }

    async fn listen(&self, at: &Address) -> Result<Box<dyn Inbox>, BrokerError> {
        Ok(Box::new(self.shared.posts.listen(at)))
    }

    async fn attach(&self, at: &Address, listener: Listener) -> Result<Attached, BrokerError> {
        Ok(Attached::new(self.shared.posts.attach(at, listener)))
    }

    fn is_local(&self) -> bool {
        true
    }

    async fn record_create(&self, bucket: Bucket, key: &str, value: Bytes) -> Result<u64, BrokerError> {
        lock(self.shared.records(bucket)).create(self.shared.time.both(), key, value)
    }

    async fn record_update(&self, bucket: Bucket, key: &str, value: Bytes, revision: u64) -> Result<u64, BrokerError> {
        lock(self.shared.records(bucket)).update(self.shared.time.both(), key, value, revision)
    }

    async fn record_delete(&self, bucket: Bucket, key: &str, revision: u64) -> Result<(), BrokerError> {
        lock(self.shared.records(bucket)).delete(self.shared.time.both(), key, revision)
    }

    async fn record_get(&self, bucket: Bucket, key: &str) -> Result<Option<Record>, BrokerError> {
        Ok(lock(self.shared.records(bucket)).get(self.shared.time.both(), key))
    }

    async fn append(&self, journal: Journal, topic: &Topic, message_id: &str, entry: Bytes) -> Result<u64, BrokerError> {
        kept::check_entry(journal, topic, &entry)?;
        lock(self.shared.journal(journal)).append(self.shared.time.both(), topic, message_id, entry)
    }

    async fn erase(&self, journal: Journal, topic: &Topic, through: Option<u64>) -> Result<(), BrokerError> {
        kept::check_erasable(journal)?;
        lock(self.shared.journal(journal)).erase(topic, through.unwrap_or(u64::MAX));
        Ok(())
    }

    async fn follow(&self, feed: &Feed, since: Since) -> Result<Box<dyn Follower>, BrokerError> {
        Ok(Box::new(MemoryFollower::open(self.shared.clone(), feed.clone(), since)))
    }

    async fn blob_put(&self, store: Store, key: &str, blob: Bytes) -> Result<(), BrokerError> {
        lock(self.shared.blobs(store)).put(self.now(), key, blob)
    }

    async fn blob_get(&self, store: Store, key: &str) -> Result<Option<Bytes>, BrokerError> {
        Ok(lock(self.shared.blobs(store)).get(self.now(), key))
    }

    async fn blob_delete(&self, store: Store, key: &str) -> Result<(), BrokerError> {
        lock(self.shared.blobs(store)).delete(key);
        Ok(())
    }

    fn is_connected(&self) -> bool {
        true
    }

    fn describe(&self) -> String {
        "memory".into()
    }
}

struct MemoryPuller {
    shared: Arc<Shared>,
    from: LaneFilter,
    news: Arc<Notify>,
}

#[async_trait]
impl Puller for MemoryPuller {
    async fn pull(&mut self, max: usize, wait: Duration) -> Result<Vec<Delivery>, BrokerError> {
        let deadline = self.shared.time.now() + wait;
        loop {
            // Before the look, so that a frame published between the look and the wait still rings.
            let news = self.news.notified();
            let now = self.shared.time.now();
            let (taken, next_due, epoch) = {
                let mut lane = self.shared.lane(self.from.lane);
                let (taken, next_due) = lane.take(now, &self.from, max);
                (taken, next_due, lane.epoch())
            };
            if !taken.is_empty() || now >= deadline {
                return Ok(taken.into_iter().map(|taken| self.delivery(taken, epoch)).collect());
            }
            // Another reader may take a frame meanwhile; it comes back no sooner than an ack wait from now.
            let next_look = next_due.unwrap_or(now + ack_wait(self.from.lane)).min(deadline);
            tokio::select! {
                () = news => {}
                () = tokio::time::sleep_until(clock::instant(next_look)) => {}
            }
        }
    }

    async fn position(&mut self) -> Result<(u64, u64), BrokerError> {
        let lane = self.shared.lane(self.from.lane);
        Ok((lane.epoch(), lane.delivered(&self.from)))
    }

    async fn left(&mut self) -> Result<u64, BrokerError> {
        Ok(self.shared.lane(self.from.lane).left(&self.from))
    }
}

impl MemoryPuller {
    fn delivery(&self, taken: lane::Taken, epoch: u64) -> Delivery {
        Delivery {
            frame: taken.frame,
            token: token(self.from.lane, taken.sequence),
            sequence: taken.sequence,
            epoch,
            attempt: taken.attempt,
            stored: taken.stored,
        }
    }
}
