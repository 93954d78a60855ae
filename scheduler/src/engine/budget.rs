//! core: how many calls may be made again. A backend that fails is asked less and not more: whoever tries everything again
//! three times triples the load on what is failing for its load already.
//!
//! In any ten seconds a fifth of the calls may be tried again, and three a second besides, so that a quiet model has some, too
//! (the budget of finagle and tower). It is counted in calls: a full batch that is made again is one.

use super::recent::Recent;
use shared::clock::Time;

/// Calls that may be made again, of a hundred.
const PERCENT: u32 = 20;

/// And so many in ten seconds, whatever was called.
const RESERVE: u32 = 30;

#[derive(Debug, Default)]
pub(super) struct Budget {
    /// First calls, and those that were made again.
    calls: Recent,
}

impl Budget {
    /// A call is made for the first time.
    pub(super) fn called(&mut self, now: Time) {
        self.calls.add(now, [1, 0]);
    }

    /// Whether one more may be made again; then it is counted.
    pub(super) fn withdraw(&mut self, now: Time) -> bool {
        let [first, again] = self.calls.sums(now);
        let allowed = again < RESERVE + (u64::from(first) * u64::from(PERCENT) / 100) as u32;
        if allowed {
            self.calls.add(now, [0, 1]);
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn withdrawn(budget: &mut Budget, now: Time) -> u32 {
        let mut count = 0;
        while budget.withdraw(now) {
            count += 1;
        }
        count
    }

    #[test]
    fn a_fifth_of_the_calls_and_three_a_second_may_be_made_again() {
        let mut budget = Budget::default();
        let now = Time::from_millis(5_000);
        (0..1_000).for_each(|_| budget.called(now));
        assert_eq!(withdrawn(&mut budget, now), 230);
        assert_eq!(withdrawn(&mut budget, Time::from_millis(14_999)), 0);
        assert_eq!(withdrawn(&mut budget, Time::from_millis(15_000)), 30, "ten seconds later only what a quiet model has");
    }
}
