//! core: when a free accelerator should wait a moment for company.
//!
//! Callers in a closed loop all come back just after a batch is answered, spread over a millisecond or two. To take the
//! first of them alone would waste the accelerator's fixed cost on it. So a call waits until nine in ten of the callers
//! recently seen in the system are back, for as long as they keep coming: at most the lane's linger after the last of
//! them, and four times that in all. A lone caller is all there is and never waits.
//!
//! The wait counts from the last arrival, not from the first, and grows with the calls (a quarter of what one takes), because
//! how long callers take to come back depends on the machine and the road: a fixed wait that one machine's callers fit
//! into cuts the batches of a slower one in two.
//!
//! And it is never longer than a call's fixed cost, as far as that has been learnt: what a call costs more by going alone is
//! all that waiting can save. Without that, an open loop's requests wait for company, which makes more of them wait at once,
//! which is then taken for their number.
//!
//! Nor does anybody wait where the accelerator is idle half of the time: fuller calls would gain nothing there.

use shared::clock::Time;
use shared::domain::Lane;
use std::collections::VecDeque;
use std::time::Duration;

/// Calls whose population is remembered: a change in the number of callers is believed after as many.
const MEMORY_CALLS: usize = 8;

/// A population seen longer ago says nothing about who is about to come back.
const MEMORY: Duration = Duration::from_secs(1);

/// The whole wait, in lingers.
const WHOLE_WAIT: u32 = 4;

/// A linger that grew with the calls is at most this many times the lane's own.
const GROWTH_MAX: u32 = 5;

/// What part of the time calls must take up for waiting to be worth it.
const BUSY: f64 = 0.5;

/// How much of that part each call tells.
const BUSY_GAIN: f64 = 0.1;

const fn linger(lane: Lane) -> Duration {
    Duration::from_millis(match lane {
        Lane::Interactive => 2,
        Lane::Async => 20,
        Lane::Bulk => 200,
    })
}

/// What waits while an accelerator is free.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrivals {
    pub(super) lane: Lane,
    /// When the first and the last came, or the accelerator became free.
    pub(super) first: Time,
    pub(super) last: Time,
    pub(super) waiting: usize,
}

#[derive(Debug)]
pub(super) struct Linger {
    /// Requests in the system (waiting or running) at each of the last calls.
    seen: VecDeque<(Time, usize)>,
    /// What a call takes, smoothed.
    call: Duration,
    /// What part of the time calls take up, smoothed, and until when that is counted.
    busy: f64,
    counted_to: Time,
}

impl Default for Linger {
    fn default() -> Self {
        Self { seen: VecDeque::new(), call: Duration::ZERO, busy: 1.0, counted_to: Time::ZERO }
    }
}

impl Linger {
    /// A call goes out while `population` requests are in the system, itself included.
    pub(super) fn dispatched(&mut self, now: Time, population: usize) {
        if self.seen.len() == MEMORY_CALLS {
            self.seen.pop_front();
        }
        self.seen.push_back((now, population));
    }

    /// `population` requests are in the system now. Those that came within a linger of the last call's start were on their
    /// way when it left, and belong to its population; without them, each round would expect only nine in ten of the last.
    pub(super) fn counted(&mut self, now: Time, lane: Lane, population: usize) {
        let linger = self.linger(lane);
        if let Some((at, seen)) = self.seen.back_mut()
            && now.since(*at) <= linger
        {
            *seen = population.max(*seen);
        }
    }

    /// A call came back after `took`.
    pub(super) fn finished(&mut self, now: Time, took: Duration) {
        let since = now.since(self.counted_to).max(took);
        self.busy += (took.as_secs_f64() / since.as_secs_f64().max(1e-6) - self.busy) * BUSY_GAIN;
        self.counted_to = now;
        self.call = if self.call.is_zero() { took } else { (self.call * 4 + took) / 5 };
    }

    fn linger(&self, lane: Lane) -> Duration {
        let own = linger(lane);
        (self.call / 4).clamp(own, own * GROWTH_MAX)
    }

    /// Until when to wait, if besides those who wait `running` more are still in calls, of which each has this `fixed` cost.
    pub(super) fn hold_until(&self, now: Time, arrivals: &Arrivals, running: usize, fixed: Option<Duration>) -> Option<Time> {
        if self.busy < BUSY {
            return None;
        }
        let linger = self.linger(arrivals.lane);
        let whole = fixed.unwrap_or(Duration::MAX).min(linger * WHOLE_WAIT);
        let until = (arrivals.last + linger).min(arrivals.first + whole);
        let absent = self.peak(now).saturating_sub(running);
        let enough = (absent * 9).div_ceil(10);
        (arrivals.waiting < enough && now < until).then_some(until)
    }

    /// The most requests lately in the system at once; 0 when none were.
    pub(super) fn peak(&self, now: Time) -> usize {
        self.seen.iter().filter(|(at, _)| now.since(*at) <= MEMORY).map(|(_, population)| *population).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_millis(1_000);

    fn arrived(first: Time, last: Time, waiting: usize) -> Arrivals {
        Arrivals { lane: Lane::Interactive, first, last, waiting }
    }

    fn hold(linger: &Linger, waiting: usize, running: usize) -> bool {
        linger.hold_until(NOW, &arrived(NOW, NOW, waiting), running, None).is_some()
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
    fn the_wait_ends_when_nobody_comes_any_more_and_in_any_case() {
        let mut linger = Linger::default();
        linger.dispatched(NOW, 64);
        let ms = |n| NOW + Duration::from_millis(n);
        let until = |now, last| linger.hold_until(now, &arrived(NOW, last, 1), 0, None);
        assert_eq!(until(NOW, NOW), Some(ms(2)));
        assert_eq!(until(ms(2), NOW), None);
        assert_eq!(until(ms(2), ms(1)), Some(ms(3)));
        assert_eq!(until(ms(7), ms(7)), Some(ms(8)));
        assert_eq!(until(ms(8), ms(8)), None);
    }

    #[test]
    fn nobody_waits_longer_than_a_call_alone_would_waste() {
        let mut linger = Linger::default();
        linger.dispatched(NOW, 64);
        let ms = |n| NOW + Duration::from_millis(n);
        let until = |now, last| linger.hold_until(now, &arrived(NOW, last, 1), 0, Some(Duration::from_millis(5)));
        assert_eq!(until(ms(2), ms(2)), Some(ms(4)));
        assert_eq!(until(ms(4), ms(4)), Some(ms(5)), "though more keep coming");
        assert_eq!(until(ms(5), ms(5)), None);
    }

    #[test]
    fn those_who_missed_a_call_by_a_little_are_expected_at_the_next() {
        let mut linger = Linger::default();
        linger.dispatched(NOW, 58);
        linger.counted(NOW + Duration::from_millis(1), Lane::Interactive, 64);
        linger.counted(NOW + Duration::from_millis(3), Lane::Interactive, 90);
        assert!(hold(&linger, 57, 0));
        assert!(!hold(&linger, 58, 0), "and those who came later are others");
    }

    #[test]
    fn the_wait_grows_with_the_calls() {
        let mut linger = Linger::default();
        linger.dispatched(NOW, 64);
        linger.finished(NOW, Duration::from_millis(16));
        let until = |linger: &Linger| linger.hold_until(NOW, &arrived(NOW, NOW, 1), 0, None).unwrap().since(NOW);
        assert_eq!(until(&linger), Duration::from_millis(4));
        (0..50).for_each(|_| linger.finished(NOW, Duration::from_secs(1)));
        assert_eq!(until(&linger), Duration::from_millis(10));
    }

    #[test]
    fn nobody_waits_at_an_accelerator_that_is_mostly_idle() {
        let mut linger = Linger::default();
        let calls = |linger: &mut Linger, gap| (0..20).for_each(|n| linger.finished(NOW + gap * n, Duration::from_millis(10)));
        calls(&mut linger, Duration::from_millis(100));
        linger.dispatched(NOW, 64);
        assert!(!hold(&linger, 1, 0));
        calls(&mut linger, Duration::from_millis(12));
        assert!(hold(&linger, 1, 0));
    }

    #[test]
    fn callers_that_left_are_forgotten() {
        let mut linger = Linger::default();
        linger.dispatched(NOW, 64);
        (0..MEMORY_CALLS).for_each(|_| linger.dispatched(NOW, 1));
        assert!(!hold(&linger, 1, 0));
        linger.dispatched(NOW, 64);
        let later = NOW + MEMORY + Duration::from_millis(1);
        assert_eq!(linger.hold_until(later, &arrived(later, later, 1), 0, None), None);
    }
}
