//! edge: what waits for a model's loop. A message wakes the loop only while it sleeps: in process, what the loop sends
//! comes back to it as an answer before it has finished its turn, and a wake-up then would cost a turn of its own.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// Messages that may wait; past it they are dropped, as the broker would drop them.
const WAITING_MAX: usize = 65_536;

/// The sender's end. Cheap to clone.
#[derive(Debug)]
pub(crate) struct Mailbox<T>(Arc<Mutex<State<T>>>);

/// The loop's end; once it is dropped, nothing is taken any more.
#[derive(Debug)]
pub(crate) struct Mail<T>(Arc<Mutex<State<T>>>);

#[derive(Debug)]
struct State<T> {
    waiting: Vec<T>,
    /// Set while the loop sleeps.
    sleeper: Option<Waker>,
    /// Either end is gone.
    closed: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Undelivered {
    Full,
    Closed,
}

pub(crate) fn mailbox<T>() -> (Mailbox<T>, Mail<T>) {
    let state = Arc::new(Mutex::new(State { waiting: Vec::new(), sleeper: None, closed: false }));
    (Mailbox(Arc::clone(&state)), Mail(state))
}

fn lock<T>(state: &Mutex<State<T>>) -> MutexGuard<'_, State<T>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> Mailbox<T> {
    /// Leaves a message, without waiting.
    pub(crate) fn leave(&self, message: T) -> Result<(), Undelivered> {
        let mut state = lock(&self.0);
        if state.closed {
            return Err(Undelivered::Closed);
        }
        if state.waiting.len() >= WAITING_MAX {
            return Err(Undelivered::Full);
        }
        state.waiting.push(message);
        let sleeper = state.sleeper.take();
        drop(state);
        if let Some(sleeper) = sleeper {
            sleeper.wake();
        }
        Ok(())
    }
}

impl<T> Mail<T> {
    /// Waits for messages and moves all behind what `into` holds. False when the sender is gone. Cancel-safe.
    pub(crate) async fn take(&self, into: &mut Vec<T>) -> bool {
        std::future::poll_fn(|context| {
            let mut state = lock(&self.0);
            if !state.waiting.is_empty() {
                into.append(&mut state.waiting);
                return Poll::Ready(true);
            }
            if state.closed {
                return Poll::Ready(false);
            }
            state.sleeper = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Moves what has come behind what `into` holds.
    pub(crate) fn take_ready(&self, into: &mut Vec<T>) {
        let mut state = lock(&self.0);
        state.sleeper = None;
        into.append(&mut state.waiting);
    }
}

impl<T> Drop for Mailbox<T> {
    fn drop(&mut self) {
        close(&self.0);
    }
}

impl<T> Drop for Mail<T> {
    fn drop(&mut self) {
        close(&self.0);
    }
}

fn close<T>(state: &Mutex<State<T>>) {
    let mut state = lock(state);
    state.closed = true;
    let sleeper = state.sleeper.take();
    drop(state);
    if let Some(sleeper) = sleeper {
        sleeper.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn messages_come_in_order_behind_what_is_there() {
        let (mailbox, mail) = mailbox();
        (1..4).for_each(|n| mailbox.leave(n).unwrap());
        let mut round = vec![0];
        assert_eq!(mail.take(&mut round).now_or_never(), Some(true));
        assert_eq!(round, [0, 1, 2, 3]);
    }

    #[tokio::test]
    async fn a_sleeper_is_woken_by_a_message_and_by_the_end() {
        let (mailbox, mail) = mailbox();
        let mut round = Vec::new();
        let leave = async { mailbox.leave(7).unwrap() };
        assert!(tokio::join!(biased; mail.take(&mut round), leave).0);
        assert_eq!(round, [7]);
        let end = async { drop(mailbox) };
        assert!(!tokio::join!(biased; mail.take(&mut round), end).0);
    }

    #[test]
    fn a_full_box_and_a_closed_one_take_nothing() {
        let (mailbox, mail) = mailbox();
        (0..WAITING_MAX).for_each(|n| mailbox.leave(n).unwrap());
        assert_eq!(mailbox.leave(0), Err(Undelivered::Full));
        let mut round = Vec::new();
        mail.take_ready(&mut round);
        assert_eq!(round.len(), WAITING_MAX);
        assert_eq!(mailbox.leave(0), Ok(()));
        drop(mail);
        assert_eq!(mailbox.leave(0), Err(Undelivered::Closed));
    }
}
