//! edge: a body whose pieces come one after another in time, as those of a model that generates.

use bytes::Bytes;
use hyper::body::{Body, Frame};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Interval, MissedTickBehavior, interval};

pub(super) struct Drip {
    pieces: VecDeque<Bytes>,
    pace: Interval,
}

impl Drip {
    /// The first piece at once, each further one after a `gap`.
    pub(super) fn new(pieces: impl IntoIterator<Item = Bytes>, gap: Duration) -> Self {
        let mut pace = interval(gap);
        // Each piece is due by the stream's beginning: a late timer does not delay those after it.
        pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
        Self { pieces: pieces.into_iter().collect(), pace }
    }
}

impl Body for Drip {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.pieces.is_empty() {
            return Poll::Ready(None);
        }
        ready!(self.pace.poll_tick(context));
        Poll::Ready(self.pieces.pop_front().map(|piece| Ok(Frame::data(piece))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[tokio::test(start_paused = true)]
    async fn pieces_come_in_their_time() {
        let gap = Duration::from_millis(200);
        let body = Drip::new(["a", "b", "c"].map(Bytes::from), gap);
        let whole = tokio::time::timeout(gap * 2 + Duration::from_millis(2), body.collect()).await.unwrap().unwrap();
        assert_eq!(whole.to_bytes(), "abc");
        let early = Drip::new(["a", "b", "c"].map(Bytes::from), gap);
        assert!(tokio::time::timeout(gap * 2 - Duration::from_millis(2), early.collect()).await.is_err());
    }
}
