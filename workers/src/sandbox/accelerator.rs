//! edge: the simulated accelerator: seats that are taken in turn, each with a timeline of its own.
//!
//! A timer wakes up to a millisecond late. So work that had to wait begins when the seat's earlier work *should* have
//! ended, not when that was noticed: lateness never adds up, and a busy accelerator has exactly its configured throughput.
//! And an array call, which nothing may be queued behind, ends on time ([`Seat::work_exactly`]): a millisecond on each
//! would make batches look worse than they are.

use shared::clock::{self, Time};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep_until;

/// How late a timer may be on a busy machine. A seat that is held longer than that after its work was not waiting for a
/// timer but for a slow reader, and that time is lost.
const LATENESS_MAX: Duration = Duration::from_millis(20);

/// A timer is at most this late on an idle machine: its wheel turns each millisecond, and it never fires early.
const TIMER_LATENESS: Duration = Duration::from_millis(2);

pub(crate) struct Accelerator {
    /// `None`: as many calls at once as come.
    seats: Option<Seats>,
}

#[derive(Clone)]
struct Seats {
    permits: Arc<Semaphore>,
    /// When each seat that is not taken became free. The lock is held for one push or pop.
    free_since: Arc<Mutex<BinaryHeap<Reverse<Time>>>>,
}

/// A turn at the accelerator. Dropping it gives the seat back, whether the work is done or the caller has left.
pub(crate) struct Seat {
    start: Time,
    /// When the work asked for so far ends.
    end: Time,
    taken: Option<(Seats, OwnedSemaphorePermit)>,
}

impl Accelerator {
    /// `concurrency` seats; 0: no limit.
    pub(crate) fn new(concurrency: u32) -> Self {
        let seats = (concurrency > 0).then(|| Seats {
            permits: Arc::new(Semaphore::new(concurrency as usize)),
            free_since: Arc::new(Mutex::new((0..concurrency).map(|_| Reverse(Time::ZERO)).collect())),
        });
        Self { seats }
    }

    /// Waits for a seat, first come first served. `arrival` is now.
    pub(crate) async fn seat(&self, arrival: Time) -> Seat {
        let Some(seats) = &self.seats else { return Seat::new(arrival, None) };
        let permit = seats.permits.clone().acquire_owned().await.expect("the semaphore is never closed");
        let Reverse(free_since) = seats.lock().pop().expect("there is an entry for each permit that is free");
        Seat::new(arrival.max(free_since), Some((seats.clone(), permit)))
    }
}

impl Seats {
    fn lock(&self) -> std::sync::MutexGuard<'_, BinaryHeap<Reverse<Time>>> {
        self.free_since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    fn new(start: Time, taken: Option<(Seats, OwnedSemaphorePermit)>) -> Self {
        Self { start, end: start, taken }
    }

    /// A turn beginning at `start` that takes up nothing: for what goes on after the accelerator's work is done.
    pub(crate) fn aside(start: Time) -> Self {
        Self::new(start, None)
    }

    /// Works until `span` after the turn's beginning; spans of one turn count from the same beginning and so do not drift.
    pub(crate) async fn work_until(&mut self, span: Duration) {
        self.end = self.end.max(self.start + span);
        if clock::now() < self.end {
            sleep_until(clock::instant(self.end)).await; // Even a timer that is due takes a millisecond to ring.
        }
    }

    /// The same without a timer's lateness: the last two milliseconds are slept on a thread, as long as seats bound how
    /// many do so at once.
    pub(crate) async fn work_exactly(&mut self, span: Duration) {
        if span.is_zero() {
            return;
        }
        self.end = self.end.max(self.start + span);
        if self.taken.is_some() {
            sleep_until(clock::instant(self.end.saturating_sub(TIMER_LATENESS))).await;
            let rest = self.end.since(clock::now());
            #[expect(clippy::disallowed_methods, reason = "on a thread for blocking work")]
            let slept = tokio::task::spawn_blocking(move || std::thread::sleep(rest));
            let _ = slept.await; // It cannot fail, and the timer below holds in any case.
        }
        if clock::now() < self.end {
            sleep_until(clock::instant(self.end)).await;
        }
    }

    /// Works until it is dropped.
    pub(crate) async fn hang(&mut self) {
        self.end = Time(u64::MAX);
        std::future::pending().await
    }

    /// When the seat counts as free, given that it is given back `now`.
    fn free_since(&self, now: Time) -> Time {
        self.end.clamp(now.saturating_sub(LATENESS_MAX), now)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some((seats, _permit)) = &self.taken {
            // The permit goes back after this: whoever gets it finds the entry.
            seats.lock().push(Reverse(self.free_since(clock::now())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::future::join_all;

    const WORK: Duration = Duration::from_micros(5_150);

    #[tokio::test(start_paused = true)]
    async fn a_busy_seat_has_exactly_its_throughput() {
        let accelerator = Accelerator::new(1);
        let begin = clock::now();
        let ends = join_all((0..100).map(|_| async {
            let mut seat = accelerator.seat(clock::now()).await;
            seat.work_until(WORK).await;
            seat.end
        }))
        .await;
        assert_eq!(ends.last().copied(), Some(begin + WORK * 100));
        assert!(clock::now().since(begin) < WORK * 100 + Duration::from_millis(2));
    }

    #[tokio::test]
    async fn exact_work_is_never_early() {
        let accelerator = Accelerator::new(1);
        let begin = clock::now();
        accelerator.seat(begin).await.work_exactly(WORK).await;
        assert!(clock::now().since(begin) >= WORK);
    }

    #[tokio::test(start_paused = true)]
    async fn seats_work_at_once_and_no_limit_means_all() {
        for (concurrency, rounds) in [(4, 2), (0, 1)] {
            let accelerator = Accelerator::new(concurrency);
            let begin = clock::now();
            join_all((0..8).map(|_| async { accelerator.seat(clock::now()).await.work_until(WORK).await })).await;
            let took = clock::now().since(begin);
            assert!(took >= WORK * rounds && took < WORK * rounds + Duration::from_millis(2), "{concurrency}: {took:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_leaves_frees_its_seat_at_once() {
        let accelerator = Accelerator::new(1);
        let begin = clock::now();
        let mut seat = accelerator.seat(begin).await;
        let left = tokio::time::timeout(Duration::from_millis(3), seat.work_until(Duration::from_secs(60))).await;
        assert!(left.is_err());
        drop(seat);
        accelerator.seat(clock::now()).await.work_until(WORK).await;
        assert!(clock::now().since(begin) < Duration::from_millis(12));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_behind_a_hung_call_begins_when_it_is_gone() {
        let accelerator = Accelerator::new(1);
        let begin = clock::now();
        let hung = async {
            let mut seat = accelerator.seat(clock::now()).await;
            let _ = tokio::time::timeout(WORK * 4, seat.hang()).await;
        };
        let waits = async { accelerator.seat(clock::now()).await.work_until(WORK).await };
        tokio::join!(hung, waits);
        assert!(clock::now().since(begin) >= WORK * 5);
    }

    #[test]
    fn lateness_is_forgiven_within_a_timers_bounds() {
        let ms = Time::from_millis;
        let seat = Seat { start: ms(90), end: ms(100), taken: None };
        assert_eq!(seat.free_since(ms(101)), ms(100));
        assert_eq!(seat.free_since(ms(95)), ms(95));
        assert_eq!(seat.free_since(ms(200)), ms(180));
    }
}
