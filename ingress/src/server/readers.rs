//! edge: notices that the reader of an answer on an HTTP/2 connection takes no more of it.
//!
//! Such a peer may answer every ping and yet never open its stream's window: then nothing is written to the connection,
//! so no write stalls (`unstalled.rs`), and the answer waits for ever. So an answer is handed out in pieces, and one that
//! is not asked for its next piece in time ends its connection. Once the last piece has been asked for, it alone is left
//! in the protocol's buffer: [`PIECE_BYTES`] for each of the connection's streams at most.

use axum::body::Body as Answer;
use bytes::Bytes;
use foldhash::HashMap;
use hyper::body::{Body, Frame, SizeHint};
use shared::clock::{self, Time};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::sleep;

/// A frame of the size that every peer takes.
const PIECE_BYTES: usize = 16 * 1024;

/// Looks in the time that an answer may wait: it waits a quarter longer at most.
const LOOKS: u32 = 4;

/// The answers of one connection whose last piece has not gone, since when. A blocking mutex guards them: held for one
/// look-up, never across an await.
#[derive(Debug, Default)]
pub(super) struct Readers {
    waiting: Mutex<HashMap<u64, Time>>,
    answers: AtomicU64,
    begun: Notify,
}

impl Readers {
    /// Watches over an answer's reader.
    pub(super) fn watch(self: &Arc<Self>, answer: Answer) -> Watched {
        self.begun.notify_one();
        let place = Place { readers: Arc::clone(self), number: self.answers.fetch_add(1, Ordering::Relaxed) };
        Watched { answer, rest: Bytes::new(), place: Some(place) }
    }

    /// Resolves when a reader has taken nothing for `longest`; never on a connection without such answers.
    pub(super) async fn stalled(&self, longest: Duration) {
        self.begun.notified().await;
        while self.waiting().values().all(|&since| clock::now().since(since) < longest) {
            sleep(longest / LOOKS).await;
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, Time>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One answer's entry, until dropped.
struct Place {
    readers: Arc<Readers>,
    number: u64,
}

impl Place {
    fn handed_out(&self) {
        self.readers.waiting().insert(self.number, clock::now());
    }

    fn asked_again(&self) {
        self.readers.waiting().remove(&self.number);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.asked_again();
    }
}

/// An answer on its way out: as it is, or watched and in pieces.
pub(super) struct Watched {
    answer: Answer,
    rest: Bytes,
    place: Option<Place>,
}

impl Watched {
    pub(super) const fn unwatched(answer: Answer) -> Self {
        Self { answer, rest: Bytes::new(), place: None }
    }

    /// The next piece of what is at hand. The last of several is a copy: a slice would keep the whole.
    fn piece(&mut self) -> Bytes {
        if self.rest.len() > PIECE_BYTES {
            self.rest.split_to(PIECE_BYTES)
        } else {
            Bytes::copy_from_slice(&std::mem::take(&mut self.rest))
        }
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
                Some(Ok(Ok(data))) => return Poll::Ready(Some(Ok(self.hand_out(data)))),
                Some(Ok(Err(trailers))) => return Poll::Ready(Some(Ok(trailers))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        let piece = self.piece();
        Poll::Ready(Some(Ok(self.hand_out(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.answer.is_end_stream()
    }

    /// Of the whole: asked before the first piece only.
    fn size_hint(&self) -> SizeHint {
        self.answer.size_hint()
    }
}

impl Watched {
    fn hand_out(&self, data: Bytes) -> Frame<Bytes> {
        if let Some(place) = &self.place {
            place.handed_out();
        }
        Frame::data(data)
    }
}
