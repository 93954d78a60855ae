//! edge: the right to one answer. Dropped before the answer's end, it cancels the request wherever it is.

use crate::claim::BlobGuard;
use crate::road::Road;
use bytes::Bytes;
use shared::clock::{self, Time};
use shared::domain::RequestId;
use shared::error::{Code, Failure};
use shared::wire::ReplyHead;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout_at;

/// The next part of an answer, or its bad end.
pub(crate) type Piece = Result<AnswerPart, Failure>;

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

    fn sub(&self, bytes: usize) {
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
    _blob: Option<BlobGuard>,
}

impl Ticket {
    pub(crate) fn new(
        id: RequestId,
        road: Arc<Road>,
        pieces: UnboundedReceiver<Piece>,
        draining: Option<Meter>,
        deadline: Time,
        blob: Option<BlobGuard>,
    ) -> Self {
        Self { id, road, pieces, draining, deadline, _blob: blob }
    }

    /// Waits for the next piece until the request's deadline.
    ///
    /// # Errors
    /// How the request ended, when it ended badly; `deadline_exceeded`.
    pub(crate) async fn next(&mut self) -> Piece {
        let piece = match timeout_at(clock::instant(self.deadline), self.pieces.recv()).await {
            Ok(piece) => piece.unwrap_or_else(|| Err(Failure::new(Code::Internal, "The answer ended without an end: try again"))),
            Err(_) => Err(deadline_exceeded()),
        };
        if let (Some(meter), Ok(part)) = (&self.draining, &piece) {
            meter.sub(part.body.len());
        }
        piece
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
