//! edge: reading one lane of one model through a durable pull consumer.
//!
//! Pull requests are made by hand, so that one may be left open at the server across calls: a frame that is published
//! while a pull waits is sent at once, and a cancelled pull leaves nothing behind but an open request. The server counts
//! each request down and says, when it ends, how much of it was not delivered; the sum of what is open is kept here.

use super::BrokerError;
use super::fault::Fault;
use super::lanes::filter_subject;
use super::layout::StreamId;
use super::link::bounded;
use super::streams::{Incarnation, Streams, TRUST};
use crate::broker::{AckToken, Delivery, LaneFilter, Puller, ack_wait};
use crate::clock::{self, Time};
use async_nats::jetstream::consumer::{AckPolicy, Config, DeliverPolicy, Info, IntoConsumerConfig, pull};
use async_nats::jetstream::{Message, message};
use async_nats::{StatusCode, Subject, Subscriber};
use async_trait::async_trait;
use futures::{FutureExt, StreamExt};
use serde_json::json;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{sleep, sleep_until};

/// Deliveries that may be out at once: more than any scheduler's window, so that the window and not this is the limit.
const OUT_MAX: i64 = 10_000;

/// A model that nobody serves for this long loses its consumer; the next reader makes a new one and misses nothing.
const INACTIVE_MAX: Duration = Duration::from_secs(6 * 3_600);

/// The server ends a pull request itself; past this much later, its word was lost.
const WORD_LOST: Duration = Duration::from_secs(1);

/// The pause before asking again where nobody answered: a cluster that elects a leader takes a few of these.
const REBIND_PAUSE: Duration = Duration::from_millis(50);

const PENDING_HEADER: &str = "Nats-Pending-Messages";

pub(super) struct NatsPuller {
    streams: Arc<Streams>,
    from: LaneFilter,
    changes: watch::Receiver<u64>,
    bound: Option<Bound>,
    ready: VecDeque<Delivery>,
}

/// The consumer we read, and the inbox it sends to.
struct Bound {
    there: Incarnation,
    name: String,
    inbox: Subject,
    subscription: Subscriber,
    open: OpenRequests,
}

/// What the server may still send unasked.
#[derive(Debug, Default)]
struct OpenRequests {
    messages: usize,
    until: Time,
}

impl OpenRequests {
    fn settle(&mut self, now: Time) {
        if now.since(self.until) > WORD_LOST {
            self.messages = 0;
        }
    }

    /// How many more to ask for, so that `max` are open; 0 while at least half of them are, for fewer, larger requests.
    fn shortfall(&self, max: usize) -> usize {
        if self.messages * 2 <= max { max - self.messages } else { 0 }
    }

    fn opened(&mut self, messages: usize, until: Time) {
        self.messages += messages;
        self.until = self.until.max(until);
    }

    fn closed(&mut self, messages: usize) {
        self.messages = self.messages.saturating_sub(messages);
    }
}

impl NatsPuller {
    /// Makes the consumer, so that a configuration that will not do shows at once.
    pub(super) async fn open(streams: Arc<Streams>, from: LaneFilter) -> Result<Self, BrokerError> {
        streams.using(StreamId::Lane(from.lane), Fault::may_pass, |_| Self::begin(streams.clone(), from.clone())).await
    }

    async fn begin(streams: Arc<Streams>, from: LaneFilter) -> Result<Self, Fault> {
        let changes = streams.link.changes();
        let mut puller = Self { streams, from, changes, bound: None, ready: VecDeque::new() };
        puller.bind().await?;
        Ok(puller)
    }

    /// What the server says of the consumer, and of which incarnation of the stream.
    async fn info(&mut self) -> Result<(u64, Info), BrokerError> {
        let stream = self.stream().name();
        let streams = self.streams.clone();
        bounded(async {
            let bound = self.bind().await?;
            let info = streams.link.api(format!("CONSUMER.INFO.{stream}.{}", bound.name), "").await?;
            Ok((bound.there.epoch, info))
        })
        .await
    }

    const fn stream(&self) -> StreamId {
        StreamId::Lane(self.from.lane)
    }

    /// Makes sure that the consumer is there, on this connection and in this incarnation of the stream.
    async fn bind(&mut self) -> Result<&mut Bound, Fault> {
        let there = self.streams.incarnation(self.stream()).await?;
        let kept = self.bound.take().filter(|bound| bound.there.epoch == there.epoch);
        let bound = match kept {
            Some(mut bound) => {
                if bound.there != there {
                    // A server forgets the requests of a connection that broke.
                    bound.there = there;
                    bound.open = OpenRequests::default();
                }
                bound
            }
            None => {
                self.ready.clear();
                subscribe(&self.streams, &self.from, there).await?
            }
        };
        Ok(self.bound.insert(bound))
    }

    /// Leaves up to `max` messages open at the server until `wait` has passed.
    async fn request(&mut self, max: usize, wait: Duration) -> Result<(), Fault> {
        let now = clock::now();
        let (stream, client) = (self.stream().name(), self.streams.link.client().clone());
        let Some(bound) = &mut self.bound else { return Ok(()) };
        bound.open.settle(now);
        let batch = bound.open.shortfall(max);
        if batch == 0 {
            return Ok(());
        }
        let wait = wait.max(Duration::from_millis(1));
        let request = json!({ "batch": batch, "expires": wait.as_nanos() }).to_string();
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{}", bound.name);
        client.publish_with_reply(subject, bound.inbox.clone(), request.into()).await?;
        bound.open.opened(batch, now + wait);
        Ok(())
    }

    /// Waits until something comes, the connection is made anew, or `until`; takes in what has come.
    async fn listen(&mut self, until: Time, max: usize) {
        let Some(bound) = &mut self.bound else { return };
        tokio::select! {
            message = bound.subscription.next() => self.take_in(message).await,
            _ = self.changes.changed() => {}
            () = sleep_until(clock::instant(until)) => {}
        }
        self.drain(max).await;
    }

    /// Takes in what has come already, up to `max` deliveries.
    async fn drain(&mut self, max: usize) {
        while self.ready.len() < max
            && let Some(bound) = &mut self.bound
            && let Some(message) = bound.subscription.next().now_or_never()
        {
            self.take_in(message).await;
        }
    }

    async fn take_in(&mut self, message: Option<async_nats::Message>) {
        let Some(bound) = &mut self.bound else { return };
        match message {
            None => self.lost().await,
            Some(message) => match message.status {
                None | Some(StatusCode::OK) => {
                    bound.open.closed(1);
                    self.ready.extend(delivery(self.streams.link.context().clone(), message, bound.there.epoch));
                }
                Some(status) => self.end_request(status, &message).await,
            },
        }
    }

    /// A pull request ended: what was not delivered of it is no longer open.
    async fn end_request(&mut self, status: StatusCode, message: &async_nats::Message) {
        let why = message.description.as_deref().unwrap_or_default();
        let Some(bound) = &mut self.bound else { return };
        let header = message.headers.as_ref().and_then(|headers| headers.get(PENDING_HEADER));
        let undelivered = header.and_then(|count| count.as_str().parse().ok()).unwrap_or(bound.open.messages);
        bound.open.closed(undelivered);
        if status == StatusCode::NO_RESPONDERS || why.contains("Consumer Deleted") {
            self.lost().await;
        } else if status != StatusCode::TIMEOUT {
            tracing::debug!(why, "a pull request ended early");
            sleep(REBIND_PAUSE).await;
        }
    }

    /// The consumer or its stream is gone: look again before the next request.
    async fn lost(&mut self) {
        self.bound = None;
        self.streams.forget(self.stream());
        sleep(REBIND_PAUSE).await;
    }

    fn take(&mut self, max: usize) -> Vec<Delivery> {
        let count = self.ready.len().min(max);
        self.ready.drain(..count).collect()
    }
}

#[async_trait]
impl Puller for NatsPuller {
    async fn pull(&mut self, max: usize, wait: Duration) -> Result<Vec<Delivery>, BrokerError> {
        let deadline = clock::now() + wait;
        loop {
            bounded(self.bind()).await?;
            self.drain(max).await;
            let left = deadline.since(clock::now());
            if !self.ready.is_empty() || left.is_zero() {
                return Ok(self.take(max));
            }
            let wait = left.min(TRUST);
            bounded(self.request(max, wait)).await?;
            self.listen(clock::now() + wait, max).await;
        }
    }

    async fn position(&mut self) -> Result<(u64, u64), BrokerError> {
        let (epoch, info) = self.info().await?;
        Ok((epoch, info.delivered.stream_sequence))
    }

    async fn left(&mut self) -> Result<u64, BrokerError> {
        Ok(self.info().await?.1.num_pending)
    }
}

async fn subscribe(streams: &Streams, from: &LaneFilter, there: Incarnation) -> Result<Bound, Fault> {
    let name = make_consumer(streams, from).await?;
    let client = streams.link.client();
    let inbox: Subject = client.new_inbox().into();
    let subscription = client.subscribe(inbox.clone()).await.map_err(|error| Fault::Unknown(error.to_string()))?;
    Ok(Bound { there, name, inbox, subscription, open: OpenRequests::default() })
}

/// Makes the durable consumer, or takes the one there is and sets it right. Two on one filter would be refused (10100).
async fn make_consumer(streams: &Streams, from: &LaneFilter) -> Result<String, Fault> {
    let (stream, name, wanted) = (StreamId::Lane(from.lane).name(), format!("{}_{}", from.model, from.part), consumer_config(from));
    let operation = format!("CONSUMER.CREATE.{stream}.{name}.{}", wanted.filter_subject);
    let question = json!({ "stream_name": stream, "config": wanted }).to_string();
    let found: Info = streams.link.api(operation, question).await?;
    if is_as_wanted(&wanted, &found.config) {
        Ok(name)
    } else {
        let sentence = format!("consumer {name} of stream {stream} is configured otherwise and cannot be changed: delete it");
        Err(Fault::Final(BrokerError::Unfit(sentence)))
    }
}

fn consumer_config(from: &LaneFilter) -> Config {
    pull::Config {
        durable_name: Some(format!("{}_{}", from.model, from.part)),
        filter_subject: filter_subject(from),
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::Explicit,
        ack_wait: ack_wait(from.lane),
        // For ever: a frame given up by the consumer would lie in a work queue undelivered.
        max_deliver: -1,
        max_ack_pending: OUT_MAX,
        inactive_threshold: INACTIVE_MAX,
        memory_storage: !from.lane.is_deferred(),
        ..pull::Config::default()
    }
    .into_consumer_config()
}

fn is_as_wanted(wanted: &Config, found: &Config) -> bool {
    found.filter_subject == wanted.filter_subject
        && found.ack_policy == wanted.ack_policy
        && found.ack_wait == wanted.ack_wait
        && found.max_deliver == wanted.max_deliver
        && found.max_ack_pending == wanted.max_ack_pending
}

/// A message as a delivery; nothing where it is not one of JetStream's.
fn delivery(context: async_nats::jetstream::Context, message: async_nats::Message, epoch: u64) -> Option<Delivery> {
    let message = Message { message, context };
    let info = message.info().ok()?;
    let (sequence, attempt, stored) = (info.stream_sequence, u64::try_from(info.delivered).unwrap_or(1), stored(&info));
    let token = AckToken(message.reply.as_deref()?.into());
    Some(Delivery { frame: message.message.payload, token, sequence, epoch, attempt, stored })
}

fn stored(info: &message::Info<'_>) -> Time {
    let stored = u64::try_from(info.published.unix_timestamp_nanos()).unwrap_or(0);
    clock::now().saturating_sub(clock::unix().saturating_sub(Duration::from_nanos(stored)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_topped_up_when_half_of_them_is_used() {
        let mut open = OpenRequests::default();
        assert_eq!(open.shortfall(64), 64);
        open.opened(64, Time::from_millis(10));
        assert_eq!(open.shortfall(64), 0);
        open.closed(32);
        assert_eq!((open.shortfall(64), open.shortfall(16)), (32, 0));
    }

    #[test]
    fn a_request_whose_end_was_never_told_is_given_up() {
        let mut open = OpenRequests::default();
        open.opened(1, Time::from_millis(10));
        open.settle(Time::from_millis(1_010));
        assert_eq!(open.shortfall(1), 0);
        open.settle(Time::from_millis(1_011));
        assert_eq!(open.shortfall(1), 1);
    }
}
