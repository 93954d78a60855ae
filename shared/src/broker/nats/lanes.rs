//! edge: storing frames in a lane, and what may be said about a delivery: renew, ack, give back.

use super::fault::Fault;
use super::layout::StreamId;
use super::link::{Link, bounded};
use super::streams::{Incarnation, Streams};
use crate::broker::{AckToken, BrokerError, LaneFilter, LaneSubject, Stored};
use crate::domain::Lane;
use async_nats::header::NATS_MESSAGE_ID;
use async_nats::{HeaderMap, Subject};
use bytes::Bytes;
use std::time::Duration;
use tokio::time::timeout;

/// How long a verified ack may take. The caller has a renewal to do meanwhile.
const VERIFY_MAX: Duration = Duration::from_secs(2);

pub(super) fn filter_subject(from: &LaneFilter) -> String {
    format!("{}{}.{}.*", StreamId::Lane(from.lane).prefix(), from.model, from.part)
}

fn subject(to: &LaneSubject) -> Subject {
    format!("{}{}.{}.{}", StreamId::Lane(to.lane).prefix(), to.model, to.part, to.origin).into()
}

/// Stores a frame, trying again under the same message id until it is known to be stored, is refused, or 5 s are over.
pub(super) async fn publish(streams: &Streams, to: &LaneSubject, message_id: &str, frame: &Bytes) -> Result<Stored, BrokerError> {
    let subject = subject(to);
    let attempt = |there| publish_once(&streams.link, there, subject.clone(), message_id, frame.clone());
    streams.using(StreamId::Lane(to.lane), Fault::may_pass, attempt).await
}

async fn publish_once(link: &Link, there: Incarnation, to: Subject, message_id: &str, frame: Bytes) -> Result<Stored, Fault> {
    let mut headers = HeaderMap::new();
    headers.insert(NATS_MESSAGE_ID, message_id);
    let ack = link.store(to, headers, frame).await?;
    if link.connects() != there.connects {
        // The ack may speak of the stream before or after the restart. The repetition will tell, and is stored once.
        return Err(Fault::Unknown("reconnected while publishing".into()));
    }
    Ok(Stored { sequence: ack.sequence, epoch: there.epoch, duplicate: ack.duplicate })
}

/// There is no question that leaves the message's bytes out of the answer.
pub(super) async fn holds(streams: &Streams, lane: Lane, epoch: u64, sequence: u64) -> Result<bool, BrokerError> {
    let stream = StreamId::Lane(lane);
    let attempt =
        |there: Incarnation| async move { Ok(sequence > 0 && there.epoch == epoch && streams.link.stores(stream.name(), sequence).await?) };
    streams.using(stream, Fault::may_pass, attempt).await
}

pub(super) async fn ack(streams: &Streams, token: &AckToken) -> Result<(), BrokerError> {
    say(streams, token, Bytes::from_static(b"+ACK")).await
}

pub(super) async fn renew(streams: &Streams, token: &AckToken) -> Result<(), BrokerError> {
    say(streams, token, Bytes::from_static(b"+WPI")).await
}

pub(super) async fn nak(streams: &Streams, token: &AckToken, delay: Duration) -> Result<(), BrokerError> {
    // Without a delay the server would hand it out at once.
    let word = if delay.is_zero() { "-NAK".to_owned() } else { format!("-NAK {{\"delay\": {}}}", delay.as_nanos()) };
    say(streams, token, word.into()).await
}

async fn say(streams: &Streams, token: &AckToken, word: Bytes) -> Result<(), BrokerError> {
    let subject = Subject::from(&*token.0);
    bounded(async { Ok(streams.link.client().publish(subject, word).await?) }).await
}

/// A request in place of the client's own double ack, which takes "nobody is there" for success.
pub(super) async fn ack_verified(streams: &Streams, token: &AckToken) -> Result<(), BrokerError> {
    let asked = streams.link.ask((&*token.0).into(), HeaderMap::new(), Bytes::from_static(b"+ACK"));
    match timeout(VERIFY_MAX, asked).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(Fault::Absent)) => Err(BrokerError::Gone),
        Ok(Err(fault)) => Err(fault.into()),
        Err(_) => Err(BrokerError::Unavailable("no confirmation of the ack".into())),
    }
}
