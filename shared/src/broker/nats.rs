//! edge: the broker on NATS: lanes, records, journals and blobs in JetStream, everything that may be lost over core NATS.
//!
//! Every call is bounded in time, and every stream is made when it is missing: a server that restarts takes the
//! interactive lane with it, and the roles carry on over a new incarnation of it.

mod blobs;
pub mod child;
mod fault;
mod feeds;
mod lanes;
mod layout;
mod link;
mod posts;
mod puller;
mod records;
mod streams;
mod version;

pub use self::version::Version;

use self::fault::Fault;
use self::layout::StreamId;
use self::link::{Link, bounded};
use self::puller::NatsPuller;
use self::streams::Streams;
use super::limits::{Limits, PAYLOAD_BYTES_MAX};
use super::posts::Posts;
use super::{
    AckToken, Address, Attached, Broker, BrokerError, Bucket, Feed, Follower, Inbox, Journal, LaneFilter, LaneSubject, Listener, Puller,
    Record, Since, Store, Stored, Topic, hear_all,
};
use crate::config::ClientTls;
use crate::domain::Lane;
use crate::task;
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// How long a start waits for JetStream: several elections' worth.
const SETTLE_MAX: Duration = Duration::from_secs(30);

/// What an operator may choose.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Copies of each stream. Absent: three in a cluster of three or more, else one.
    pub replicas: Option<usize>,
    /// Insist on TLS, and how. Absent: TLS with the system's roots where the server or the address wants it.
    pub tls: Option<ClientTls>,
    pub limits: Limits,
}

#[derive(Debug)]
pub struct NatsBroker {
    streams: Arc<Streams>,
    /// The nodes of this process: what one posts to another takes no detour by the server.
    nodes: Posts,
}

impl NatsBroker {
    /// Connects to one server or a cluster (`nats://A:4222,nats://B:4222`), checks it, and makes or checks the streams.
    ///
    /// # Errors
    /// `Unavailable` when nobody answers within 10 s; `Unfit` when the server is older than 2.10, has no JetStream, does
    /// not speak the TLS that was asked for, or holds one of our streams with other settings.
    pub async fn connect(url: &str, options: Options) -> Result<Arc<Self>, BrokerError> {
        let streams = Arc::new(Streams::new(Link::open(url, options.tls.as_ref()).await?, options));
        for stream in StreamId::all() {
            settled(&streams, stream).await?;
        }
        Ok(Arc::new(Self { streams, nodes: Posts::default() }))
    }
}

/// A cluster that has just come up elects leaders before it makes streams with copies: that is waited for.
async fn settled(streams: &Streams, stream: StreamId) -> Result<(), BrokerError> {
    let made = link::repeat(Fault::may_pass, || streams.incarnation(stream));
    match tokio::time::timeout(SETTLE_MAX, made).await {
        Ok(made) => made.map(drop).map_err(BrokerError::from),
        Err(_) => Err(BrokerError::Unavailable(format!("JetStream was not ready within {} s", SETTLE_MAX.as_secs()))),
    }
}

#[async_trait]
impl Broker for NatsBroker {
    async fn publish(&self, to: &LaneSubject, message_id: &str, frame: Bytes) -> Result<Stored, BrokerError> {
        lanes::publish(&self.streams, to, message_id, &frame).await
    }

    async fn puller(&self, from: &LaneFilter) -> Result<Box<dyn Puller>, BrokerError> {
        Ok(Box::new(NatsPuller::open(self.streams.clone(), from.clone()).await?))
    }

    async fn ack(&self, token: &AckToken) -> Result<(), BrokerError> {
        lanes::ack(&self.streams, token).await
    }

    async fn ack_verified(&self, token: &AckToken) -> Result<(), BrokerError> {
        lanes::ack_verified(&self.streams, token).await
    }

    async fn renew(&self, token: &AckToken) -> Result<(), BrokerError> {
        lanes::renew(&self.streams, token).await
    }

    async fn nak(&self, token: &AckToken, delay: Duration) -> Result<(), BrokerError> {
        lanes::nak(&self.streams, token, delay).await
    }

    async fn holds(&self, lane: Lane, epoch: u64, sequence: u64) -> Result<bool, BrokerError> {
        lanes::holds(&self.streams, lane, epoch, sequence).await
    }

    async fn post(&self, to: &Address, frame: Bytes) -> Result<(), BrokerError> {
        if frame.len() <= PAYLOAD_BYTES_MAX && self.nodes.post(to, &frame) {
            tokio::task::yield_now().await; // As an inbox does: those whom it has woken go first.
            return Ok(());
        }
        posts::post(&self.streams.link, to, frame).await
    }

    async fn flush(&self) -> Result<(), BrokerError> {
        bounded(self.streams.link.round_trip()).await
    }

    async fn listen(&self, at: &Address) -> Result<Box<dyn Inbox>, BrokerError> {
        Ok(Box::new(posts::listen(&self.streams.link, at).await?))
    }

    async fn attach(&self, at: &Address, listener: Listener) -> Result<Attached, BrokerError> {
        let inbox = self.listen(at).await?;
        let here = at.is_one_nodes().then(|| self.nodes.attach(at, Arc::clone(&listener)));
        Ok(Attached::new((here, task::spawn_guarded("inbox", hear_all(listener, inbox)))))
    }

    async fn record_create(&self, bucket: Bucket, key: &str, value: Bytes) -> Result<u64, BrokerError> {
        records::create(&self.streams, bucket, key, value).await
    }

    async fn record_update(&self, bucket: Bucket, key: &str, value: Bytes, revision: u64) -> Result<u64, BrokerError> {
        records::update(&self.streams, bucket, key, value, revision).await
    }

    async fn record_delete(&self, bucket: Bucket, key: &str, revision: u64) -> Result<(), BrokerError> {
        records::delete(&self.streams, bucket, key, revision).await
    }

    async fn record_get(&self, bucket: Bucket, key: &str) -> Result<Option<Record>, BrokerError> {
        records::get(&self.streams, bucket, key).await
    }

    async fn append(&self, journal: Journal, topic: &Topic, message_id: &str, entry: Bytes) -> Result<u64, BrokerError> {
        feeds::append(&self.streams, journal, topic, message_id, &entry).await
    }

    async fn erase(&self, journal: Journal, topic: &Topic, through: Option<u64>) -> Result<(), BrokerError> {
        feeds::erase(&self.streams, journal, topic, through).await
    }

    async fn follow(&self, feed: &Feed, since: Since) -> Result<Box<dyn Follower>, BrokerError> {
        Ok(Box::new(feeds::NatsFollower::open(self.streams.clone(), feed.clone(), since).await?))
    }

    async fn blob_put(&self, store: Store, key: &str, blob: Bytes) -> Result<(), BrokerError> {
        blobs::put(&self.streams, store, key, &blob).await
    }

    async fn blob_get(&self, store: Store, key: &str) -> Result<Option<Bytes>, BrokerError> {
        blobs::get(&self.streams, store, key).await
    }

    async fn blob_delete(&self, store: Store, key: &str) -> Result<(), BrokerError> {
        blobs::delete(&self.streams, store, key).await
    }

    fn is_connected(&self) -> bool {
        self.streams.link.is_connected()
    }

    fn describe(&self) -> String {
        self.streams.link.describe()
    }
}
