//! edge: for how long something may make no progress. A timer runs only while it makes none: who never waits pays nothing.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Sleep, sleep};

pub(crate) struct Patience {
    span: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
}

/// Nothing has moved for too long.
#[derive(Debug, thiserror::Error)]
#[error("no progress in time")]
pub(crate) struct Exhausted;

impl Patience {
    pub(crate) const fn new(span: Duration) -> Self {
        Self { span, waiting: None }
    }

    /// Looks at what a poll has brought: what is ready begins the time anew.
    pub(crate) fn judge<T>(&mut self, cx: &mut Context<'_>, polled: Poll<T>) -> Poll<Result<T, Exhausted>> {
        if let Poll::Ready(progress) = polled {
            self.waiting = None;
            return Poll::Ready(Ok(progress));
        }
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(self.span)));
        waiting.as_mut().poll(cx).map(|()| Err(Exhausted))
    }
}
