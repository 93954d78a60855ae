//! edge: the lines of a segment on their way into the bulk lane: composed like any request, packed into frames of one model.

use crate::claim::CLAIM_OVER;
use crate::compose::{Composed, Order, compose as compose_request};
use crate::gate::Gate;
use bytes::Bytes;
use shared::broker::{Broker, BrokerError, LaneSubject, Store};
use shared::clock;
use shared::domain::{Lane, RequestId, Token};
use shared::error::{Code, Failure};
use shared::identity::Caller;
use shared::jobs::{Batch, Place};
use shared::wire::{Claim, Envelope, FrameWriter, JobRef, Part};
use std::collections::BTreeMap;
use std::time::Duration;

/// Pause before a frame is published again that the lane had no room for.
const FULL_PAUSE: Duration = Duration::from_millis(250);

/// A line that can be run.
pub struct Batched {
    pub model: Token,
    pub envelope: Envelope,
    pub body: Bytes,
}

impl Batched {
    /// Whether its body goes by claim check.
    pub(super) fn is_large(&self) -> bool {
        self.body.len() > CLAIM_OVER
    }

    pub(super) fn row(&self) -> u32 {
        self.envelope.job.as_ref().map_or(0, |of| of.row)
    }

    /// It was in the lane before.
    pub(super) fn mark_again(&mut self) {
        if let Some(of) = &mut self.envelope.job {
            of.again = true;
        }
    }
}

/// Makes a line's request.
///
/// # Errors
/// What its caller would be told.
pub(super) fn compose(
    gate: &Gate,
    caller: Result<&Caller, &Failure>,
    batch: &Batch,
    of: JobRef,
    id: RequestId,
    body: Bytes,
) -> Result<Batched, Failure> {
    let caller = caller.map_err(Clone::clone)?;
    let order = Order { id, op: batch.op, caller, traceparent: None, body };
    let Composed { model, envelope, body, background, .. } = compose_request(gate, order)?;
    if background.is_some() {
        return Err(Failure::new(Code::InvalidValue, "`background` must be false: a batch's answers are files").param("background"));
    }
    if envelope.stream {
        return Err(Failure::new(Code::InvalidValue, "`stream` must be false: a batch's answers are files").param("stream"));
    }
    let remaining_ms = u32::try_from(batch.expires_ms.saturating_sub(clock::unix_ms())).unwrap_or(u32::MAX);
    let envelope = Envelope { lane: Lane::Bulk, remaining_ms, job: Some(Box::new(of)), ..envelope };
    Ok(Batched { model, envelope, body })
}

/// Publishes the lines of one segment. The same lines in the same turn are stored once. Returns where their frames are.
///
/// # Errors
/// `Unavailable`: publish them again.
pub(super) async fn send(
    broker: &dyn Broker,
    batch: &Batch,
    segment: u32,
    turn: &str,
    lines: Vec<Batched>,
) -> Result<Vec<Place>, BrokerError> {
    let mut models: BTreeMap<Token, Vec<Part>> = BTreeMap::new();
    for mut line in lines {
        check_claim(broker, &mut line).await?;
        models.entry(line.model).or_default().push(Part::encode(&line.envelope, line.body));
    }
    let mut places = Vec::new();
    for (model, parts) in models {
        let subject = LaneSubject { lane: Lane::Bulk, model, part: 0, origin: Token::of_name(&batch.tenant) };
        for (n, frame) in frames(&parts).into_iter().enumerate() {
            let message_id = format!("{}.{segment}.{}.{n}.{turn}", batch.id, subject.model);
            places.push(publish(broker, &subject, &message_id, frame).await?);
        }
    }
    Ok(places)
}

fn frames(parts: &[Part]) -> Vec<Bytes> {
    let (mut frames, mut writer) = (Vec::new(), FrameWriter::new());
    for part in parts {
        if !writer.fits(part) {
            frames.push(writer.take());
        }
        writer.push(part);
    }
    frames.push(writer.take());
    frames
}

/// However long the lane is full: a batch has time.
async fn publish(broker: &dyn Broker, subject: &LaneSubject, message_id: &str, frame: Bytes) -> Result<Place, BrokerError> {
    loop {
        match broker.publish(subject, message_id, frame.clone()).await {
            Ok(stored) => return Ok(Place { lane: subject.lane, epoch: stored.epoch, sequence: stored.sequence }),
            Err(BrokerError::Full) => tokio::time::sleep(FULL_PAUSE).await,
            Err(error) => return Err(error),
        }
    }
}

/// Leaves a large body in the store of files, where it stays until its segment is settled.
async fn check_claim(broker: &dyn Broker, line: &mut Batched) -> Result<(), BrokerError> {
    if !line.is_large() {
        return Ok(());
    }
    let body = std::mem::take(&mut line.body);
    let (key, hash) = (claim_key(line.envelope.id), blake3::hash(&body).as_bytes().to_vec());
    broker.blob_put(Store::Files, &key, body).await?;
    line.envelope.claim = Some(Claim { key: key.into(), hash, kept: true });
    Ok(())
}

/// Where the body of a line is, if it is large.
pub(super) fn claim_key(id: RequestId) -> String {
    format!("claim.{id}")
}
