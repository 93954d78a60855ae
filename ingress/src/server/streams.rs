//! edge: what the requests of one HTTP/2 connection have come to: whether a reader takes no more of its answer, and
//! whether anything is asked at all.
//!
//! A peer may answer every ping and yet never open a stream's window: then nothing is written to the connection, so no
//! write stalls (`unstalled.rs`), and the answer waits for ever. So an answer is handed out in pieces, and one that is not
//! asked for its next piece in time ends its connection. Of an answer that has ended, one piece may be left in the
//! protocol's buffer. HTTP/1.1 needs none of this: its answers stall at the socket, and its silence has a timer.

use axum::body::Body as Answer;
use bytes::Bytes;
use foldhash::HashMap;
use hyper::body::{Body, Frame, SizeHint};
use shared::clock::{self, Time};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::sleep;

/// A frame of the size that every peer takes.
const PIECE_BYTES: usize = 16 * 1024;

/// A connection on which nothing has been asked for so long gives its place to others. Longer than callers pause between
/// two questions.
const QUIET_MAX: Duration = Duration::from_secs(300);

/// Looks in the time that an answer may wait: it waits a quarter longer at most.
const LOOKS: u32 = 4;

/// What is to be done with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// A reader takes nothing: end it.
    Stalled,
    /// Nothing is asked: take leave.
    Quiet,
}

/// The open requests of one connection. A blocking mutex guards them: held for one look-up, never across an await.
#[derive(Debug, Default)]
pub(super) struct Streams {
    state: Mutex<State>,
    begun: Notify,
}

#[derive(Debug, Default)]
struct State {
    entered: u64,
    open: usize,
    /// When the last request ended, or the leave was taken.
    quiet_since: Time,
    /// The answers of which a piece has not gone, since when.
    waiting: HashMap<u64, Time>,
}

impl State {
    fn judge(&mut self, now: Time, longest: Duration) -> Option<Verdict> {
        if self.waiting.values().any(|&since| now.since(since) >= longest) {
            return Some(Verdict::Stalled);
        }
        if self.open > 0 || now.since(self.quiet_since) < QUIET_MAX {
            return None;
        }
        self.quiet_since = now;
        Some(Verdict::Quiet)
    }
}

impl Streams {
    /// A request has come.
    pub(super) fn enter(self: &Arc<Self>) -> Place {
        let mut state = self.state();
        state.entered += 1;
        state.open += 1;
        self.begun.notify_one();
        Place { streams: Arc::clone(self), number: state.entered }
    }

    /// Resolves when something is to be done: never before the first request. No piece may wait for `longest`.
    pub(super) async fn verdict(&self, longest: Duration) -> Verdict {
        self.begun.notified().await;
        loop {
            let verdict = self.state().judge(clock::now(), longest);
            match verdict {
                Some(verdict) => return verdict,
                None => sleep(longest / LOOKS).await,
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request among those of its connection, until dropped.
pub(super) struct Place {
    streams: Arc<Streams>,
    number: u64,
}

impl Place {
    fn handed_out(&self) {
        self.streams.state().waiting.insert(self.number, clock::now());
    }

    fn asked_again(&self) {
        self.streams.state().waiting.remove(&self.number);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.streams.state();
        state.waiting.remove(&self.number);
        state.open -= 1;
        state.quiet_since = clock::now();
    }
}

/// An answer on its way out: as it is, or, with a place, watched and in pieces.
pub(super) struct Watched {
    answer: Answer,
    rest: Bytes,
    place: Option<Place>,
}

impl Watched {
    pub(super) const fn new(answer: Answer, place: Option<Place>) -> Self {
        Self { answer, rest: Bytes::new(), place }
    }

    /// The next piece of what is at hand. The last of several is a copy: a slice would keep the whole.
    fn piece(&mut self) -> Bytes {
        if self.rest.len() > PIECE_BYTES {
            self.rest.split_to(PIECE_BYTES)
        } else {
            Bytes::copy_from_slice(&std::mem::take(&mut self.rest))
        }
    }

    fn hand_out(&self, data: Bytes) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(place) = &self.place {
            place.handed_out();
        }
        Poll::Ready(Some(Ok(Frame::data(data))))
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(place) = &self.place else { return Pin::new(&mut self.answer).poll_frame(cx) };
        place.asked_again();
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.answer).poll_frame(cx)).map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) if data.len() > PIECE_BYTES => self.rest = data,
                Some(Ok(Ok(data))) => return self.hand_out(data),
                Some(Ok(Err(trailers))) => return Poll::Ready(Some(Ok(trailers))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        let piece = self.piece();
        self.hand_out(piece)
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.answer.is_end_stream()
    }

    /// Of the whole: asked before the first piece only.
    fn size_hint(&self) -> SizeHint {
        self.answer.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    const LONGEST: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_connection_on_which_nothing_is_asked_is_taken_leave_of_and_no_sooner() {
        let streams = Arc::new(Streams::default());
        let (busy, began) = (streams.enter(), clock::now());
        let released = async {
            sleep(QUIET_MAX * 2).await; // A model may think for long.
            drop(busy);
        };
        let (verdict, ()) = tokio::join!(streams.verdict(LONGEST), released);
        assert_eq!(verdict, Verdict::Quiet);
        let after = clock::now().since(began);
        assert!(after >= QUIET_MAX * 3 && after <= QUIET_MAX * 3 + LONGEST / LOOKS, "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_of_which_no_more_is_taken_stalls_its_connection() {
        let streams = Arc::new(Streams::default());
        let mut answer = Watched::new(Answer::from(vec![b'x'; PIECE_BYTES + 1]), Some(streams.enter()));
        let piece = answer.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(piece.len(), PIECE_BYTES);
        assert_eq!(streams.verdict(LONGEST).await, Verdict::Stalled);
        drop(answer);
        assert_eq!(streams.state().judge(clock::now(), LONGEST), None, "what has left waits no more");
    }
}
