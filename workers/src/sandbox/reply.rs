//! edge: what the sandbox answers: a status and a body that comes at once or piece by piece, each piece when it is due.

use super::accelerator::Seat;
use super::request::Rejected;
use super::stats::Running;
use bytes::Bytes;
use serde_json::json;
use std::iter::Peekable;
use std::time::Duration;

pub struct Reply {
    pub status: u16,
    pub is_event_stream: bool,
    pub body: Body,
}

pub enum Body {
    Whole(Bytes),
    Pieces(Pieces),
}

/// A body in the making. Dropping it before its end counts as a caller that left.
pub struct Pieces {
    script: Peekable<Script>,
    /// The accelerator and the place among the running, until the last piece is out.
    held: Option<(Seat, Running)>,
}

pub(crate) type Script = Box<dyn Iterator<Item = Piece> + Send>;

/// One piece and when it is due, from the beginning of the seat's turn.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) at: Duration,
    pub(crate) bytes: Result<Bytes, Reset>,
}

/// The connection is closed in the middle of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("reset by the sandbox")]
pub struct Reset;

impl Piece {
    pub(crate) const fn new(at: Duration, bytes: Bytes) -> Self {
        Self { at, bytes: Ok(bytes) }
    }
}

impl Reply {
    pub(crate) const fn whole(bytes: Bytes) -> Self {
        Self { status: 200, is_event_stream: false, body: Body::Whole(bytes) }
    }

    pub(crate) fn pieces(script: Script, is_event_stream: bool, seat: Seat, running: Running) -> Self {
        let pieces = Pieces { script: script.peekable(), held: Some((seat, running)) };
        Self { status: 200, is_event_stream, body: Body::Pieces(pieces) }
    }

    pub(crate) fn rejection(rejected: &Rejected) -> Self {
        Self::error(400, &rejected.message, "invalid_request_error")
    }

    /// The fault of a status: fails as told.
    pub(crate) fn failure(status: u16, running: Running) -> Self {
        running.finish();
        Self::error(status, "the sandbox fails as it was told to", "sandbox_fault")
    }

    pub(crate) fn error(status: u16, message: &str, kind: &str) -> Self {
        let body = json!({ "error": { "message": message, "type": kind, "param": null, "code": null } });
        Self { status, is_event_stream: false, body: Body::Whole(body.to_string().into()) }
    }

    /// The wait that the sandbox asks for beside a status that means "later".
    pub const fn retry_after_s(&self) -> Option<u32> {
        match self.status {
            429 | 503 => Some(1),
            _ => None,
        }
    }
}

impl Body {
    /// The next piece; `None` at the end. May be dropped and asked again without loss.
    pub async fn next(&mut self) -> Option<Result<Bytes, Reset>> {
        match self {
            Self::Whole(bytes) => Some(std::mem::take(bytes)).filter(|bytes| !bytes.is_empty()).map(Ok),
            Self::Pieces(pieces) => pieces.next().await,
        }
    }
}

impl Pieces {
    async fn next(&mut self) -> Option<Result<Bytes, Reset>> {
        let due = self.script.peek()?.at;
        if let Some((seat, _)) = &mut self.held {
            seat.work_until(due).await;
        }
        let piece = self.script.next()?;
        if self.script.peek().is_none()
            && let Some((_, running)) = self.held.take()
        {
            running.finish();
        }
        Some(piece.bytes)
    }
}
