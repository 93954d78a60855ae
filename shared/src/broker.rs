//! core: the broker port, the narrow waist between the roles and what carries their messages.
//!
//! Two edges implement it: [`nats`] (JetStream) and [`memory`] (in process). Both pass [`contract`], and a behaviour
//! that is not in the contract may not be relied on.

#[doc(hidden)]
pub mod contract;
mod kept;
pub mod limits;
pub mod memory;
pub mod nats;
mod posts;

pub use self::kept::{Bucket, Entry, Feed, HISTORY, Journal, LEASE_TTL, Record, Since, Store, Topic};

use crate::clock::Time;
use crate::domain::{Lane, NodeId, Token};
use crate::task;
use async_trait::async_trait;
use bytes::Bytes;
use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

/// Where a frame is stored until a scheduler takes it: one per lane, model, part, and origin.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LaneSubject {
    pub lane: Lane,
    pub model: Token,
    /// 0 until a hot model is split.
    pub part: u16,
    /// The ingress (interactive) or the tenant's token (deferred): the unit of the broker's own queue caps.
    pub origin: Token,
}

/// What a puller reads: all origins of one model's part in one lane.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LaneFilter {
    pub lane: Lane,
    pub model: Token,
    pub part: u16,
}

/// Where lossy, unqueued messages go.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    Ingress(NodeId),
    Scheduler(NodeId),
    Worker(NodeId),
    /// Heard by all: who is alive, with what credit.
    Heartbeats,
    /// Heard by schedulers and workers.
    Cancels,
}

impl Address {
    /// Whether one process alone listens there.
    const fn is_one_nodes(&self) -> bool {
        matches!(self, Self::Ingress(_) | Self::Scheduler(_) | Self::Worker(_))
    }
}

/// The right to renew, ack or give back one delivery. Transferable: any process may use it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AckToken(pub Box<str>);

/// One stored frame, handed out until acked.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub frame: Bytes,
    pub token: AckToken,
    /// Position in the lane's stream; the same at every redelivery.
    pub sequence: u64,
    /// Which incarnation of the stream: changes when the stream was made anew and sequences began again.
    pub epoch: u64,
    /// 1 at the first delivery.
    pub attempt: u64,
    /// When it was stored, by the broker's stamp and this process's time; never later than it was pulled.
    pub stored: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    pub sequence: u64,
    pub epoch: u64,
    /// The broker already had this message id; nothing was added.
    pub duplicate: bool,
}

/// How long an unrenewed interactive delivery stays with its taker before it is handed out again.
pub const ACK_WAIT_INTERACTIVE: Duration = Duration::from_secs(3);

/// The same for the deferred lanes, whose owner renews it until they have ended.
pub const ACK_WAIT_DEFERRED: Duration = Duration::from_secs(15);

pub const fn ack_wait(lane: Lane) -> Duration {
    if lane.is_deferred() { ACK_WAIT_DEFERRED } else { ACK_WAIT_INTERACTIVE }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// The lane or the origin's share of it is full; nothing was stored.
    #[error("the queue is full")]
    Full,
    /// Larger than the broker carries.
    #[error("the message is larger than the broker carries")]
    TooLarge,
    /// Compare-and-set lost: the record was written or created by somebody else, or is gone.
    #[error("the record changed in the meantime")]
    Conflict,
    /// Nobody knows the token: its stream or its lane's reader no longer exists.
    #[error("the delivery is no longer known")]
    Gone,
    /// Not reachable, or did not answer in time: whether it took effect is unknown.
    #[error("the broker is unavailable: {0}")]
    Unavailable(String),
    /// It answers, and is not what we need: a wrong version or a stream somebody configured otherwise.
    #[error("the broker cannot be used: {0}")]
    Unfit(String),
}

/// The port. Cheap to share; every method may be called from any task.
#[async_trait]
pub trait Broker: Send + Sync + 'static {
    /// Stores a frame. The same `message_id` within two minutes is stored once.
    ///
    /// # Errors
    /// `Full`, `TooLarge`, or `Unavailable` after at most 5 s (then publish again with the same id).
    async fn publish(&self, to: &LaneSubject, message_id: &str, frame: Bytes) -> Result<Stored, BrokerError>;

    /// Opens the reader of one lane of one model. Deliveries go to one of the open readers.
    async fn puller(&self, from: &LaneFilter) -> Result<Box<dyn Puller>, BrokerError>;

    /// Gives a delivery up as done, without waiting for the broker's word: a lost ack means a redelivery.
    async fn ack(&self, token: &AckToken) -> Result<(), BrokerError>;

    /// Acks and waits for the broker's confirmation: it will not be handed out again. What was acked before is confirmed
    /// again. `Gone` when the broker does not know the token.
    async fn ack_verified(&self, token: &AckToken) -> Result<(), BrokerError>;

    /// Starts the delivery's ack wait again.
    async fn renew(&self, token: &AckToken) -> Result<(), BrokerError>;

    /// Gives a delivery back, to be handed out again after `delay`.
    async fn nak(&self, token: &AckToken, delay: Duration) -> Result<(), BrokerError>;

    /// Whether the lane still stores that frame: it was not acked, did not grow too old, and its stream was not made anew.
    /// Costs about what a delivery of the frame costs.
    async fn holds(&self, lane: Lane, epoch: u64, sequence: u64) -> Result<bool, BrokerError>;

    /// Sends a frame to whoever listens at `to` now. Lossy: no listener, no error. In order between one sender and one listener.
    async fn post(&self, to: &Address, frame: Bytes) -> Result<(), BrokerError>;

    /// Waits until what was posted and acked before has reached the broker: the last thing a draining role does.
    async fn flush(&self) -> Result<(), BrokerError> {
        Ok(())
    }

    /// Listens at an address from now on: a post that starts after this returns is heard.
    async fn listen(&self, at: &Address) -> Result<Box<dyn Inbox>, BrokerError>;

    /// Has `listener` called with each frame posted to an address from now on, until what this returns is dropped. Frames
    /// of one sender come in order. In the sender's own process the call happens inside [`Broker::post`], whatever the broker:
    /// a listener never blocks, and nobody posts while holding a lock that a listener takes.
    async fn attach(&self, at: &Address, listener: Listener) -> Result<Attached, BrokerError> {
        let inbox = self.listen(at).await?;
        Ok(Attached::new(task::spawn_guarded("inbox", hear_all(listener, inbox))))
    }

    /// Whether posting is a function call, which never waits: then nothing is gained by sending messages together.
    fn is_local(&self) -> bool {
        false
    }

    /// Writes a record that must not exist. `Conflict` when it does. Keys are tokens joined by dots.
    async fn record_create(&self, bucket: Bucket, key: &str, value: Bytes) -> Result<u64, BrokerError>;

    /// Writes a record that must still be at `revision`. Returns the new revision.
    async fn record_update(&self, bucket: Bucket, key: &str, value: Bytes, revision: u64) -> Result<u64, BrokerError>;

    /// Deletes a record that must still be at `revision`.
    async fn record_delete(&self, bucket: Bucket, key: &str, revision: u64) -> Result<(), BrokerError>;

    /// Reads the latest write, from its leader: what was written is read.
    async fn record_get(&self, bucket: Bucket, key: &str) -> Result<Option<Record>, BrokerError>;

    /// Adds an entry to a journal, under a topic of as many levels as the journal's topics have. The same `message_id`
    /// within two minutes is stored once. Returns its position.
    ///
    /// # Errors
    /// `TooLarge`; `Full` where nothing makes room by itself; `Unavailable` after at most 5 s (then append again with the
    /// same id).
    async fn append(&self, journal: Journal, topic: &Topic, message_id: &str, entry: Bytes) -> Result<u64, BrokerError>;

    /// Removes the entries of a topic and of all below it, or those `through` a position. Erasing nothing is no error.
    ///
    /// # Errors
    /// `Unfit` for any journal but [`Journal::Results`].
    async fn erase(&self, journal: Journal, topic: &Topic, through: Option<u64>) -> Result<(), BrokerError>;

    /// Begins to read a feed.
    async fn follow(&self, feed: &Feed, since: Since) -> Result<Box<dyn Follower>, BrokerError>;

    /// Stores a blob under a key (tokens joined by dots), to be read whole. The same blob may be stored again.
    ///
    /// # Errors
    /// `Full` when the store is.
    async fn blob_put(&self, store: Store, key: &str, blob: Bytes) -> Result<(), BrokerError>;

    async fn blob_get(&self, store: Store, key: &str) -> Result<Option<Bytes>, BrokerError>;

    /// Deleting what is not there is not an error.
    async fn blob_delete(&self, store: Store, key: &str) -> Result<(), BrokerError>;

    /// Whether the broker is reachable at this moment.
    fn is_connected(&self) -> bool;

    /// What carries the messages, for a banner: `nats://127.0.0.1:4222 (2.15.1)` or `memory`.
    fn describe(&self) -> String;
}

/// The reader of one lane of one model.
#[async_trait]
pub trait Puller: Send {
    /// Waits up to `wait` for deliveries, asks the broker for no more than `max`, returns what has come: at least one,
    /// unless the wait ended. Cancel-safe: what was asked for and not yet returned comes with a later call.
    async fn pull(&mut self, max: usize, wait: Duration) -> Result<Vec<Delivery>, BrokerError>;

    /// How far the lane has been handed out to any reader: the stream's epoch, and the last sequence delivered (0: none).
    async fn position(&mut self) -> Result<(u64, u64), BrokerError> {
        Ok((0, 0))
    }

    /// Frames of the lane that no reader has had yet; a frame published a moment ago may not be counted.
    async fn left(&mut self) -> Result<u64, BrokerError> {
        Ok(0)
    }
}

/// The reader of a feed, at a place of its own.
#[async_trait]
pub trait Follower: Send {
    /// The next entry. `None`: none has come within `wait`, and the broker has said so, at the latest when the longest wait
    /// that was asked for is over (and a second more): the reader is alive and has seen everything. Cancel-safe.
    ///
    /// # Errors
    /// `Unavailable`: no word from the broker, or not what it said that there is; call again, nothing is missed. `Gone`: what
    /// was followed has been made anew: forget what was read, and follow again.
    async fn next(&mut self, wait: Duration) -> Result<Option<Entry>, BrokerError>;
}

/// What is called with the frames posted to one address.
pub type Listener = Arc<dyn Fn(Bytes) + Send + Sync>;

/// A listener's place at its address, which it gives up when this is dropped.
pub struct Attached {
    _guard: Box<dyn Any + Send + Sync>,
}

impl Attached {
    pub(crate) fn new(guard: impl Any + Send + Sync) -> Self {
        Self { _guard: Box::new(guard) }
    }
}

async fn hear_all(listener: Listener, mut inbox: Box<dyn Inbox>) {
    while let Some(frame) = inbox.next().await {
        listener(frame);
        // Those whom the frame has woken go first: a burst would otherwise look like callers that do not read.
        tokio::task::yield_now().await;
    }
    tracing::error!("an inbox is closed: the connection to the broker has ended for good");
}

/// Frames posted to one address, in order of arrival.
#[async_trait]
pub trait Inbox: Send {
    /// The next frame; `None` when the broker connection has been closed for good. Cancel-safe.
    async fn next(&mut self) -> Option<Bytes>;
}
