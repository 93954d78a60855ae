//! edge: the right to one answer. Dropped before the answer's end, it cancels the request wherever it is.

use crate::claim::BlobGuard;
use crate::refusals;
use crate::road::Road;
use bytes::Bytes;
use shared::clock::{self, Time};
use shared::domain::RequestId;
use shared::error::{Code, Failure};
use shared::quota::Refusal;
use shared::wire::ReplyHead;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{sleep_until, timeout_at};

/// The next part of an answer, or what came in its place.
pub(crate) type Piece = Result<AnswerPart, Setback>;

#[derive(Debug)]
pub(crate) enum Setback {
    /// It has ended badly.
    Failed(Failure),
    /// A limit does not allow it now: it is nowhere but here.
    Refused(Refusal),
}

#[derive(Debug)]
pub(crate) struct AnswerPart {
    /// From 0; another 0 begins the answer anew, with another execution.
    pub(crate) number: u32,
    /// With part 0.
    pub(crate) head: Option<Box<ReplyHead>>,
    pub(crate) body: Bytes,
    pub(crate) last: bool,
}

/// Bytes of one answer that have come: for a stream, those that its caller has not yet taken.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meter(Arc<AtomicUsize>);

impl Meter {
    pub(crate) fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// Adds and returns what was there before.
    pub(crate) fn add(&self, bytes: usize) -> usize {
        self.0.fetch_add(bytes, Ordering::Relaxed)
    }

    pub(crate) fn sub(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

pub(crate) struct Ticket {
    id: RequestId,
    road: Arc<Road>,
    pieces: UnboundedReceiver<Piece>,
    /// Set for a stream, whose parts leave memory as the caller takes them.
    draining: Option<Meter>,
    deadline: Time,
    /// A refusal that the request need not travel to hear.
    refused: Option<Refusal>,
    /// Until when it waits for a limit.
    patience: Time,
    _blob: Option<BlobGuard>,
}

/// What a ticket is made of.
pub(crate) struct Terms {
    pub(crate) id: RequestId,
    pub(crate) pieces: UnboundedReceiver<Piece>,
    pub(crate) draining: Option<Meter>,
    pub(crate) deadline: Time,
    pub(crate) patience: Time,
    pub(crate) blob: Option<BlobGuard>,
}

impl Ticket {
    pub(crate) fn new(road: Arc<Road>, terms: Terms) -> Self {
        let Terms { id, pieces, draining, deadline, patience, blob } = terms;
        Self { id, road, pieces, draining, deadline, refused: None, patience, _blob: blob }
    }

    /// The request was refused before it was sent.
    pub(crate) fn refuse(&mut self, refusal: Refusal) {
        self.refused = Some(refusal);
    }

    /// Waits for the next part until the request's deadline. One that a limit refuses waits here for a while, and is
    /// sent again.
    ///
    /// # Errors
    /// How the request ended, when it ended badly; `deadline_exceeded`; those of [`refusals::failure`].
    pub(crate) async fn next(&mut self) -> Result<AnswerPart, Failure> {
        loop {
            let piece = match self.refused.take() {
                Some(refusal) => Err(Setback::Refused(refusal)),
                None => self.hear().await,
            };
            match piece {
                Ok(part) => {
                    if let Some(meter) = &self.draining {
                        meter.sub(part.body.len());
                    }
                    return Ok(part);
                }
                Err(Setback::Failed(failure)) => return Err(failure),
                Err(Setback::Refused(refusal)) => self.sit_out(&refusal).await?,
            }
        }
    }

    async fn hear(&mut self) -> Piece {
        match timeout_at(clock::instant(self.deadline), self.pieces.recv()).await {
            Ok(Some(piece)) => piece,
            Ok(None) => Err(Setback::Failed(Failure::new(Code::Internal, "The answer ended without an end: try again"))),
            Err(_) => Err(Setback::Failed(deadline_exceeded())),
        }
    }

    /// Waits until a limit allows the request, where that is soon, and sends it again.
    async fn sit_out(&mut self, refusal: &Refusal) -> Result<(), Failure> {
        let soon = |at: &Time| *at <= self.patience && *at < self.deadline;
        let again_at = refusals::retry_after(refusal).map(|wait| clock::now() + wait).filter(soon);
        let again_at = again_at.ok_or_else(|| refusals::failure(refusal))?;
        let place = self.road.wait(self.id).ok_or_else(|| refusals::failure(refusal))?;
        sleep_until(clock::instant(again_at)).await;
        drop(place);
        self.refused = self.road.send_again(self.id).await?;
        Ok(())
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.road.abandon(self.id);
    }
}

pub(crate) fn deadline_exceeded() -> Failure {
    Failure::new(Code::DeadlineExceeded, "The request's time was up before its answer was complete: allow more with x-request-timeout-ms")
}
