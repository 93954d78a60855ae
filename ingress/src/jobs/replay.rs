//! edge: a streamed call with an `Idempotency-Key`: it runs as a job, and its answer is read from the log, from the beginning, by
//! everybody who sends it. Whoever has lost the connection sends it again.

use super::events::{STILL_THERE, event_stream};
use super::tail::{Tail, Told};
use crate::refusal;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::stream;
use shared::error::Failure;
use std::convert::Infallible;

pub(super) fn respond(tail: Tail) -> Response {
    let replay = Replay { tail, is_over: false };
    event_stream(Body::from_stream(stream::unfold(replay, |mut replay| async move {
        let event = replay.next().await?;
        Some((Ok::<_, Infallible>(event), replay))
    })))
}

struct Replay {
    tail: Tail,
    is_over: bool,
}

impl Replay {
    /// The next event as the backend wrote it, or the one that says how the stream broke.
    async fn next(&mut self) -> Option<Bytes> {
        while !self.is_over {
            let told = match self.tail.next().await {
                Ok(told) => told?,
                Err(failure) => return Some(self.break_off(&failure)),
            };
            match (self.tail.setback(&told), told) {
                (Some(failure), _) => return Some(self.break_off(&failure)),
                (None, Told::Event(event)) => return Some(event.frame),
                (None, Told::Idle) => return Some(STILL_THERE),
                (None, Told::State | Told::Restarted) => {}
            }
        }
        None
    }

    fn break_off(&mut self, failure: &Failure) -> Bytes {
        self.is_over = true;
        refusal::event(Some(self.tail.job.value.op), failure)
    }
}
