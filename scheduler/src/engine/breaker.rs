//! core: the circuit breaker of one backend: whether calls go there, from how its last ones ended.
//!
//! It trips after five bad ends in a row (a dead backend is told by the first of them; an end that took a whole timeout counts as two,
//! because where calls go one by one the next is as long in coming), or when fewer than 70 % of at least
//! twenty in ten seconds were good (one that fails now and then never fails five times in a row). Open, it lets nothing through for
//! a second, twice as long each time up to 30 s; then one call is its trial, which closes it or opens it again.

use super::recent::Recent;
use shared::clock::Time;
use shared::domain::BatchId;
use std::time::Duration;

/// Bad ends in a row that trip it.
const BAD_IN_A_ROW: u8 = 5;

/// Good ends of a hundred below which it trips, once there are so many.
const GOOD_PERCENT: u32 = 70;
const ENDS_MIN: u32 = 20;

/// How long it stays open: at first, and at most.
const OPEN: Duration = Duration::from_secs(1);
const OPEN_MAX: Duration = Duration::from_secs(30);

/// What the end of a call says of its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Good,
    Bad,
    /// There was no answer in time.
    Silent,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    #[default]
    Closed,
    /// Until its next trial.
    Open(Time),
    /// One call shows whether it answers again; since when.
    Trial(BatchId, Time),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Breaker {
    state: State,
    bad_in_a_row: u8,
    /// Good and bad ends.
    ends: Recent,
    /// Times that it opened since it was last closed.
    openings: u32,
}

impl Breaker {
    pub(super) const fn state(&self) -> State {
        self.state
    }

    /// Whether a call may go there now; where it is not closed, as its trial.
    pub(super) fn admits(&self, now: Time) -> bool {
        match self.state {
            State::Closed => true,
            State::Open(until) => until <= now,
            State::Trial(..) => false,
        }
    }

    /// A call went there.
    pub(super) fn called(&mut self, now: Time, batch: BatchId) {
        if let State::Open(_) = self.state {
            self.state = State::Trial(batch, now);
        }
    }

    /// A call ended. True: it is closed, and ought to be open; see [`Breaker::open`]. What began before a trial says nothing.
    pub(super) fn ended(&mut self, now: Time, batch: BatchId, verdict: Verdict) -> bool {
        match (self.state, verdict) {
            (State::Closed, Verdict::Good) => {
                self.bad_in_a_row = 0;
                self.ends.add(now, [1, 0]);
            }
            (State::Closed, Verdict::Bad | Verdict::Silent) => {
                let weight = if verdict == Verdict::Silent { 2 } else { 1 };
                self.bad_in_a_row = self.bad_in_a_row.saturating_add(weight);
                self.ends.add(now, [0, 1]);
            }
            (State::Trial(trial, _), Verdict::Good) if trial == batch => *self = Self::default(),
            (State::Trial(trial, _), Verdict::Bad | Verdict::Silent) if trial == batch => self.open(now),
            (State::Open(_) | State::Trial(..), _) => {}
        }
        verdict != Verdict::Good && self.is_failing(now)
    }

    /// The answer of a call has begun. True: it was the trial, and it is closed: a generation may take minutes to its end.
    pub(super) fn begun(&mut self, batch: BatchId) -> bool {
        let is_trial = matches!(self.state, State::Trial(trial, _) if trial == batch);
        if is_trial {
            *self = Self::default();
        }
        is_trial
    }

    /// A call will not be heard of any more, or its end says nothing. If it was the trial, there may be another.
    pub(super) fn lost(&mut self, batch: BatchId) {
        if matches!(self.state, State::Trial(trial, _) if trial == batch) {
            self.state = State::Open(Time::ZERO);
        }
    }

    /// What it was opened for may be over: there may be a trial at once.
    pub(super) fn try_now(&mut self) {
        if let State::Open(_) = self.state {
            self.state = State::Open(Time::ZERO);
        }
    }

    /// Whether it is closed though its backend fails.
    pub(super) fn is_failing(&self, now: Time) -> bool {
        if self.state != State::Closed || self.bad_in_a_row == 0 {
            return false;
        }
        let [good, bad] = self.ends.sums(now);
        let is_poor = good + bad >= ENDS_MIN && good * 100 < (good + bad) * GOOD_PERCENT;
        self.bad_in_a_row >= BAD_IN_A_ROW || is_poor
    }

    pub(super) fn open(&mut self, now: Time) {
        let span = OPEN.saturating_mul(1 << self.openings.min(8)).min(OPEN_MAX);
        (self.state, self.openings) = (State::Open(now + span), self.openings + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BATCH: BatchId = BatchId(1);

    fn at(ms: u64) -> Time {
        Time::from_millis(20_000 + ms)
    }

    fn bad(breaker: &mut Breaker, times: usize) -> Vec<bool> {
        (0..times).map(|_| breaker.ended(at(0), BATCH, Verdict::Bad)).collect()
    }

    /// One that has opened and whose trial goes out as soon as it may.
    fn on_trial() -> Breaker {
        let mut breaker = Breaker::default();
        breaker.open(at(0));
        breaker.called(at(1_000), BATCH);
        breaker
    }

    #[test]
    fn five_bad_ends_in_a_row_trip_it_and_a_good_one_begins_anew() {
        let mut breaker = Breaker::default();
        assert_eq!(bad(&mut breaker, 4), [false; 4]);
        breaker.ended(at(0), BATCH, Verdict::Good);
        assert_eq!(bad(&mut breaker, 5), [false, false, false, false, true]);
    }

    #[test]
    fn three_timeouts_in_a_row_trip_it() {
        let mut breaker = Breaker::default();
        let ends: Vec<bool> = (0..3).map(|_| breaker.ended(at(0), BATCH, Verdict::Silent)).collect();
        assert_eq!(ends, [false, false, true]);
    }

    #[test]
    fn one_that_fails_every_third_time_trips_when_enough_has_been_seen() {
        let mut breaker = Breaker::default();
        let ends = (0..60).map(|n| breaker.ended(at(n), BATCH, if n % 3 == 2 { Verdict::Bad } else { Verdict::Good }));
        assert_eq!(ends.collect::<Vec<_>>().iter().position(|tripped| *tripped), Some(20), "the 21st, of which 7 were bad");
    }

    #[test]
    fn one_that_fails_every_fourth_time_does_not() {
        let mut breaker = Breaker::default();
        assert!((0..400).all(|n| !breaker.ended(at(n), BATCH, if n % 4 == 3 { Verdict::Bad } else { Verdict::Good })));
    }

    #[test]
    fn open_it_admits_nothing_until_its_trial_and_then_one_call() {
        let mut breaker = Breaker::default();
        breaker.open(at(0));
        assert!(!breaker.admits(at(999)) && breaker.admits(at(1_000)));
        breaker.called(at(1_000), BATCH);
        assert!(!breaker.admits(at(60_000)), "while its trial is out");
    }

    #[test]
    fn a_good_trial_closes_it_as_if_nothing_had_been() {
        let mut breaker = on_trial();
        breaker.ended(at(1_100), BATCH, Verdict::Good);
        assert_eq!(breaker.state(), State::Closed);
        assert_eq!(bad(&mut breaker, 4), [false; 4]);
    }

    #[test]
    fn a_bad_trial_opens_it_for_twice_as_long_up_to_half_a_minute() {
        let mut breaker = on_trial();
        breaker.ended(at(1_100), BATCH, Verdict::Bad);
        assert_eq!(breaker.state(), State::Open(at(3_100)));
        for _ in 0..10 {
            breaker.called(at(60_000), BATCH);
            breaker.ended(at(60_000), BATCH, Verdict::Bad);
        }
        assert_eq!(breaker.state(), State::Open(at(90_000)));
    }

    #[test]
    fn what_began_before_the_trial_does_not_decide_it() {
        let mut breaker = on_trial();
        for verdict in [Verdict::Good, Verdict::Bad] {
            assert!(!breaker.ended(at(1_100), BatchId(0), verdict));
            assert_eq!(breaker.state(), State::Trial(BATCH, at(1_000)));
        }
    }

    #[test]
    fn a_trial_whose_answer_begins_closes_it() {
        let mut breaker = on_trial();
        assert!(!breaker.begun(BatchId(0)) && !breaker.admits(at(1_100)));
        assert!(breaker.begun(BATCH) && breaker.state() == State::Closed);
        assert!(!breaker.begun(BATCH), "once");
    }

    #[test]
    fn a_trial_that_is_lost_is_followed_by_another() {
        let mut breaker = on_trial();
        breaker.lost(BatchId(0));
        assert!(!breaker.admits(at(1_100)));
        breaker.lost(BATCH);
        assert!(breaker.admits(at(1_100)));
    }
}
