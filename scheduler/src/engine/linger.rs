//! core: when a free accelerator should wait a moment for company.
//!
//! Callers in a closed loop all come back just after a batch is answered, spread over a millisecond or two. To take the
//! first of them alone would waste the accelerator's fixed cost on it. So a call waits, for at most the lane's linger,
//! until nine in ten of the callers recently seen in the system are back. A lone caller is all there is and never waits.

use shared::clock::Time;
use shared::domain::Lane;
use std::collections::VecDeque;
use std::time::Duration;

/// Calls whose population is remembered: a change in the number of callers is believed after as many.
const MEMORY_CALLS: usize = 8;

/// A population seen longer ago says nothing about who is about to come back.
const MEMORY: Duration = Duration::from_secs(1);

const fn linger(lane: Lane) -> Duration {
    Duration::from_millis(match lane {
        Lane::Interactive => 2,
        Lane::Async => 20,
        Lane::Bulk => 200,
    })
}

#[derive(Debug, Default)]
pub(super) struct Linger {
    /// Requests in the system (waiting or running) at each of the last calls.
    seen: VecDeque<(Time, usize)>,
}

impl Linger {
    /// A call goes out while `population` requests are in the system, itself included.
    pub(super) fn dispatched(&mut self, now: Time, population: usize) {
        if self.seen.len() == MEMORY_CALLS {
            self.seen.pop_front();
        }
        self.seen.push_back((now, population));
    }

    /// Until when to wait, if `waiting` requests wait since `since` and `running` more are still in calls.
    pub(super) fn hold_until(&self, now: Time, lane: Lane, since: Time, waiting: usize, running: usize) -> Option<Time> {
        let until = since + linger(lane);
        let absent = self.peak(now).saturating_sub(running);
        let enough = (absent * 9).div_ceil(10);
        (waiting < enough && now < until).then_some(until)
    }

    fn peak(&self, now: Time) -> usize {
        self.seen.iter().filter(|(at, _)| now.since(*at) <= MEMORY).map(|(_, population)| *population).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_millis(1_000);

    fn hold(linger: &Linger, waiting: usize, running: usize) -> bool {
        linger.hold_until(NOW, Lane::Interactive, NOW, waiting, running).is_some()
    }

    #[test]
    fn a_lone_caller_never_waits() {
        let mut linger = Linger::default();
        assert!(!hold(&linger, 1, 0), "nor does the first of all");
        linger.dispatched(NOW, 1);
        assert!(!hold(&linger, 1, 0));
    }

    #[test]
    fn the_first_to_come_back_waits_for_nine_in_ten() {
        let mut linger = Linger::default();
        linger.dispatched(NOW, 64);
        assert!(hold(&linger, 57, 0));
        assert!(!hold(&linger, 58, 0));
        assert!(!hold(&linger, 29, 32), "those in other calls will not come");
    }

    #[test]
    fn the_wait_ends_with_the_linger() {
        let mut linger = Linger::default();
        linger.dispatched(NOW, 64);
        let until = linger.hold_until(NOW, Lane::Interactive, NOW, 1, 0).unwrap();
        assert_eq!(until, NOW + Duration::from_millis(2));
        assert_eq!(linger.hold_until(until, Lane::Interactive, NOW, 1, 0), None);
    }

    #[test]
    fn callers_that_left_are_forgotten() {
        let mut linger = Linger::default();
        linger.dispatched(NOW, 64);
        (0..MEMORY_CALLS).for_each(|_| linger.dispatched(NOW, 1));
        assert!(!hold(&linger, 1, 0));
        linger.dispatched(NOW, 64);
        let later = NOW + MEMORY + Duration::from_millis(1);
        assert_eq!(linger.hold_until(later, Lane::Interactive, later, 1, 0), None);
    }
}
