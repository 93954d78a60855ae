//! edge: journals, and the reading of feeds: an ephemeral pull consumer for each reader, made again from where it was.
//!
//! Pull requests and not pushed messages, because the server ends each with a word: a reader that hears nothing knows
//! whether there was nothing, or nobody.

use super::fault::Fault;
use super::layout::{self, StreamId};
use super::link::bounded;
use super::records;
use super::streams::{Incarnation, Streams};
use crate::broker::{BrokerError, Entry, Feed, Follower, Journal, Since, Topic, kept};
use crate::clock::{self, Time};
use crate::entropy;
use crate::task;
use async_nats::datetime::from_nanos;
use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, Info, IntoConsumerConfig, pull};
use async_nats::jetstream::{Message, message};
use async_nats::{HeaderMap, StatusCode, Subject, Subscriber};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::sleep_until;

/// Entries asked for at once.
const BATCH: usize = 256;

/// The server ends a pull request itself; this much later its word was lost.
const WORD_LOST: Duration = Duration::from_secs(1);

/// What the server has said is there may take it so long to find: among many records, longer than somebody waits who only
/// wants to see what there is.
const KNOWN_WAIT: Duration = Duration::from_secs(2);

/// A consumer whose reader has gone without a word is deleted by the server.
const INACTIVE_MAX: Duration = Duration::from_secs(60);

pub(super) async fn append(
    streams: &Streams,
    journal: Journal,
    topic: &Topic,
    message_id: &str,
    entry: &Bytes,
) -> Result<u64, BrokerError> {
    kept::check_entry(journal, topic, entry)?;
    let stream = StreamId::Journal(journal);
    let subject = Subject::from(format!("{}{topic}", stream.prefix()));
    let mut headers = HeaderMap::new();
    headers.insert(NATS_MESSAGE_ID, message_id);
    let attempt = |_| streams.link.store(subject.clone(), headers.clone(), entry.clone());
    Ok(streams.using(stream, Fault::may_pass, attempt).await?.sequence)
}

pub(super) async fn erase(streams: &Streams, journal: Journal, topic: &Topic, through: Option<u64>) -> Result<(), BrokerError> {
    kept::check_erasable(journal)?;
    let (stream, subjects) = (StreamId::Journal(journal), subjects(journal, Some(topic)));
    let below = through.map(|sequence| sequence.saturating_add(1));
    streams.using(stream, Fault::may_pass, |_| streams.link.purge(stream.name(), &subjects, below)).await
}

/// The subjects of a topic and of all below it, or of all topics.
fn subjects(journal: Journal, topic: Option<&Topic>) -> String {
    let prefix = StreamId::Journal(journal).prefix();
    let below = layout::any(journal.depth().saturating_sub(topic.map_or(0, Topic::levels)));
    match topic {
        Some(topic) if below.is_empty() => format!("{prefix}{topic}"),
        Some(topic) => format!("{prefix}{topic}.{below}"),
        None => format!("{prefix}{below}"),
    }
}

const fn stream(feed: &Feed) -> StreamId {
    match feed {
        Feed::Records(bucket, _) => StreamId::Bucket(*bucket),
        Feed::Journal(journal, _) => StreamId::Journal(*journal),
    }
}

pub(super) struct NatsFollower {
    streams: Arc<Streams>,
    feed: Feed,
    since: Since,
    /// The stream that is read, and the last sequence that came.
    epoch: u64,
    last: u64,
    changes: watch::Receiver<u64>,
    bound: Option<Bound>,
}

struct Bound {
    client: async_nats::Client,
    there: Incarnation,
    name: String,
    /// The subject that deletes the consumer.
    farewell: String,
    inbox: Subject,
    subscription: Subscriber,
    /// Entries the server may still send unasked, and when it will have said that there are no more.
    open: usize,
    until: Time,
    /// The server has said that there is more.
    more: bool,
}

/// What the server sent.
enum Word {
    Entry(Entry),
    /// The request has ended and there was nothing more.
    Nothing,
    /// The consumer is not there any more.
    Lost,
    /// The connection was made anew: what was asked over the old one is forgotten.
    Reconnected,
}

impl NatsFollower {
    pub(super) async fn open(streams: Arc<Streams>, feed: Feed, since: Since) -> Result<Self, BrokerError> {
        streams.using(stream(&feed), Fault::may_pass, |_| Self::begin(streams.clone(), feed.clone(), since)).await
    }

    /// "Now" is a place in the stream: whoever binds again does not begin at a later one.
    async fn begin(streams: Arc<Streams>, feed: Feed, since: Since) -> Result<Self, Fault> {
        let changes = streams.link.changes();
        let mut follower = Self { streams, feed, since, epoch: 0, last: 0, changes, bound: None };
        if since == Since::Now {
            follower.epoch = follower.streams.incarnation(follower.stream()).await?.epoch;
            follower.last = follower.streams.link.last_sequence(follower.stream().name()).await?;
        }
        follower.bind().await?;
        Ok(follower)
    }

    const fn stream(&self) -> StreamId {
        stream(&self.feed)
    }

    /// Makes sure that a consumer of ours is there, on this connection, in the stream that was read before.
    async fn bind(&mut self) -> Result<(), Fault> {
        let there = self.streams.incarnation(self.stream()).await?;
        if self.epoch == 0 {
            self.epoch = there.epoch;
        }
        if self.epoch != there.epoch {
            return Err(Fault::Final(BrokerError::Gone));
        }
        if self.bound.as_ref().is_none_or(|bound| bound.there != there) {
            self.bound = Some(self.subscribe(there).await?);
        }
        Ok(())
    }

    async fn subscribe(&self, there: Incarnation) -> Result<Bound, Fault> {
        let (stream, name) = (self.stream().name(), entropy::node_id("feed").to_string());
        let config = pull::Config {
            name: Some(name.clone()),
            filter_subject: self.filter(),
            deliver_policy: self.place(),
            ack_policy: AckPolicy::None,
            inactive_threshold: INACTIVE_MAX,
            memory_storage: true,
            num_replicas: 1,
            ..pull::Config::default()
        }
        .into_consumer_config();
        let operation = format!("CONSUMER.CREATE.{stream}.{name}.{}", config.filter_subject);
        let question = json!({ "stream_name": stream, "config": config }).to_string();
        let more = self.streams.link.api::<Info>(operation, question).await?.num_pending > 0;
        let client = self.streams.link.client();
        let inbox: Subject = client.new_inbox().into();
        let subscription = client.subscribe(inbox.clone()).await.map_err(|error| Fault::Unknown(error.to_string()))?;
        let farewell = format!("$JS.API.CONSUMER.DELETE.{stream}.{name}");
        Ok(Bound { client: client.clone(), there, name, farewell, inbox, subscription, open: 0, until: Time::ZERO, more })
    }

    fn filter(&self) -> String {
        match &self.feed {
            Feed::Records(_, None) => format!("{}>", self.stream().prefix()),
            Feed::Records(_, Some(levels)) => format!("{}{levels}.>", self.stream().prefix()),
            Feed::Journal(journal, topic) => subjects(*journal, topic.as_ref()),
        }
    }

    fn place(&self) -> DeliverPolicy {
        match (self.last, &self.feed, self.since) {
            (0, Feed::Records(..), _) => DeliverPolicy::LastPerSubject,
            (0, _, Since::Start | Since::Now) => DeliverPolicy::All,
            (0, _, Since::Time(time)) => match from_nanos(time.as_nanos().cast_signed()) {
                Ok(start_time) => DeliverPolicy::ByStartTime { start_time },
                // Later than any clock says.
                Err(_) => DeliverPolicy::New,
            },
            (last, ..) => DeliverPolicy::ByStartSequence { start_sequence: last + 1 },
        }
    }

    fn knows_of_more(&self) -> bool {
        self.bound.as_ref().is_some_and(|bound| bound.more)
    }

    fn told(&mut self, more: bool) {
        if let Some(bound) = &mut self.bound {
            bound.more = more;
        }
    }

    /// Asks whether there is more: what was there when the last entry came may have been erased since. The consumer stays: it
    /// may be looking for the next entry, and a new one would begin to look anew.
    async fn look(&mut self) -> Result<bool, Fault> {
        let stream = self.stream().name();
        let Some(bound) = &mut self.bound else { return Ok(false) };
        let operation = format!("CONSUMER.INFO.{stream}.{}", bound.name);
        bound.more = self.streams.link.api::<Info>(operation, "").await?.num_pending > 0;
        Ok(bound.more)
    }

    /// Leaves a request open at the server, if none is.
    async fn request(&mut self, wait: Duration) -> Result<(), Fault> {
        let stream = self.stream().name();
        let Some(bound) = self.bound.as_mut().filter(|bound| bound.open == 0) else { return Ok(()) };
        let request = json!({ "batch": BATCH, "expires": wait.max(Duration::from_millis(1)).as_nanos() }).to_string();
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{}", bound.name);
        self.streams.link.client().publish_with_reply(subject, bound.inbox.clone(), request.into()).await?;
        bound.open = BATCH;
        bound.until = clock::now() + wait;
        Ok(())
    }

    /// The server's next word. A silent server is a lost one.
    async fn listen(&mut self, wait: Duration) -> Word {
        let prefix = self.stream().prefix();
        let Some(bound) = &mut self.bound else { return Word::Lost };
        let patience = clock::now() + wait;
        loop {
            let message = tokio::select! {
                message = bound.subscription.next() => message,
                _ = self.changes.changed() => return Word::Reconnected,
                () = sleep_until(clock::instant(bound.until + WORD_LOST)) => None,
                // An earlier call, with more patience, has left a request open that is still good.
                () = sleep_until(clock::instant(patience)), if patience < bound.until => {
                    return if self.streams.link.is_connected() { Word::Nothing } else { Word::Lost };
                }
            };
            let Some(message) = message else { return Word::Lost };
            match message.status {
                None | Some(StatusCode::OK) => bound.open = bound.open.saturating_sub(1),
                Some(StatusCode::TIMEOUT | StatusCode::NOT_FOUND) => {
                    bound.open = 0;
                    return Word::Nothing;
                }
                Some(_) => return Word::Lost,
            }
            let context = self.streams.link.context().clone();
            if let Some(entry) = entry(prefix, Message { message, context }) {
                return Word::Entry(entry);
            }
        }
    }
}

impl Drop for Bound {
    /// The server would keep the consumer for [`INACTIVE_MAX`], and it has a limit of them.
    fn drop(&mut self) {
        let (client, farewell) = (self.client.clone(), std::mem::take(&mut self.farewell));
        if Handle::try_current().is_ok() {
            task::spawn("a reader's end", async move {
                let _ = client.publish(farewell, Bytes::new()).await; // If it is not heard, the server finds out by itself.
            });
        }
    }
}

#[async_trait]
impl Follower for NatsFollower {
    async fn next(&mut self, wait: Duration) -> Result<Option<Entry>, BrokerError> {
        loop {
            bounded(self.bind()).await?;
            let wait = if self.knows_of_more() { wait.max(KNOWN_WAIT) } else { wait };
            let asked_before = self.bound.as_ref().is_some_and(|bound| bound.open > 0);
            bounded(self.request(wait)).await?;
            match self.listen(wait).await {
                Word::Entry(entry) => {
                    self.last = entry.sequence;
                    self.told(entry.more);
                    return Ok(Some(entry));
                }
                Word::Nothing if asked_before && self.knows_of_more() => {} // With less patience than that takes.
                Word::Nothing if self.knows_of_more() && bounded(self.look()).await? => {
                    return Err(BrokerError::Unavailable("the reader's consumer does not send what it has".into()));
                }
                Word::Nothing => return Ok(None),
                Word::Reconnected => {}
                Word::Lost => {
                    self.bound = None;
                    self.streams.forget(self.stream());
                    return Err(BrokerError::Unavailable("the reader's consumer does not answer".into()));
                }
            }
        }
    }
}

/// A message as an entry; nothing where it is not one of JetStream's.
fn entry(prefix: &str, message: Message) -> Option<Entry> {
    let info = message.info().ok()?;
    let (sequence, stored, more) = (info.stream_sequence, stored(&info), info.pending > 0);
    let deleted = message.headers.as_ref().is_some_and(records::marks_deletion);
    let key = message.subject.strip_prefix(prefix)?.into();
    Some(Entry { key, value: (!deleted).then_some(message.message.payload), sequence, stored, more })
}

fn stored(info: &message::Info<'_>) -> Duration {
    Duration::from_nanos(u64::try_from(info.published.unix_timestamp_nanos()).unwrap_or(0))
}
