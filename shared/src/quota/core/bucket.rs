//! core: a token bucket in integers, kept as what has been taken from it and not yet been refilled.
//!
//! Counted in sixty-thousandths of a unit, a rate of r per minute refills exactly r of them each millisecond: nothing is
//! lost by looking often. A bucket that nobody has touched is full, whatever its size, and a new size applies at once.

use super::{Wait, saturated};
use crate::quota::{Rate, Window};

/// Parts of one unit.
const PARTS: u64 = 60_000;

/// Debt stops growing here: seven times the largest bucket, and below 2^53.
const TAKEN_MAX: u64 = 4_000_000_000_000_000;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bucket {
    /// Parts taken and not yet refilled; above the size while an overrun is paid back.
    taken: u64,
    /// The rate it fills at: units a minute, parts a millisecond. 0: no limit, and nothing is counted.
    per_minute: u64,
}

impl Bucket {
    pub(super) fn refill(&mut self, elapsed_ms: u64) {
        self.taken = if elapsed_ms >= self.full_in_ms() { 0 } else { self.taken - self.per_minute * elapsed_ms };
    }

    /// From now on it fills at this rate. What was taken stays taken.
    pub(super) fn adopt(&mut self, rate: Option<Rate>) {
        self.per_minute = rate.map_or(0, |rate| rate.per_minute);
        if self.per_minute == 0 {
            self.taken = 0;
        }
    }

    /// How long `units` would have to wait. `None`: they can be taken now.
    pub(super) fn wait(&self, rate: Rate, units: u64) -> Option<Wait> {
        let size = rate.burst * PARTS;
        let after = self.taken + units * PARTS;
        match after.checked_sub(size) {
            None | Some(0) => None,
            Some(_) if units > rate.burst => Some(Wait::Never),
            Some(missing) => Some(Wait::ms(missing.div_ceil(rate.per_minute))),
        }
    }

    pub(super) fn take(&mut self, units: u64) {
        if self.per_minute > 0 {
            self.taken = (self.taken + units * PARTS).min(TAKEN_MAX);
        }
    }

    pub(super) fn give_back(&mut self, units: u64) {
        self.taken = self.taken.saturating_sub(units * PARTS);
    }

    pub(super) fn window(&self, rate: Rate) -> Window {
        let remaining = (rate.burst * PARTS).saturating_sub(self.taken) / PARTS;
        Window { limit: rate.burst, remaining, reset_ms: saturated(self.full_in_ms()) }
    }

    /// Whole units taken, a begun one counted.
    pub(super) fn taken_units(&self) -> u64 {
        self.taken.div_ceil(PARTS)
    }

    pub(super) fn is_full(&self) -> bool {
        self.taken == 0
    }

    fn full_in_ms(&self) -> u64 {
        if self.per_minute == 0 { 0 } else { self.taken.div_ceil(self.per_minute) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { per_minute: 60, burst: 10 };

    fn bucket() -> Bucket {
        let mut bucket = Bucket::default();
        bucket.adopt(Some(RATE));
        bucket
    }

    #[test]
    fn it_holds_its_burst_and_refills_evenly() {
        let mut bucket = bucket();
        assert_eq!(bucket.wait(RATE, 10), None);
        bucket.take(10);
        assert_eq!(bucket.wait(RATE, 1), Some(Wait::Ms(1_000)));
        bucket.refill(999);
        assert_eq!(bucket.wait(RATE, 1), Some(Wait::Ms(1)));
        bucket.refill(1);
        assert_eq!(bucket.wait(RATE, 1), None);
        assert_eq!(bucket.window(RATE), Window { limit: 10, remaining: 1, reset_ms: 9_000 });
    }

    #[test]
    fn a_debt_is_paid_before_anybody_is_admitted() {
        let mut bucket = bucket();
        bucket.take(15);
        assert_eq!(bucket.window(RATE).remaining, 0);
        assert_eq!(bucket.wait(RATE, 1), Some(Wait::Ms(6_000)));
    }

    #[test]
    fn what_is_larger_than_the_bucket_never_fits() {
        assert_eq!(bucket().wait(RATE, 11), Some(Wait::Never));
    }

    #[test]
    fn looking_often_changes_nothing() {
        let (mut once, mut often) = (bucket(), bucket());
        once.take(10);
        often.take(10);
        once.refill(777);
        (0..777).for_each(|_| often.refill(1));
        assert_eq!(once.taken, often.taken);
    }

    #[test]
    fn the_largest_bucket_in_the_deepest_debt_stays_exact() {
        let rate = Rate { per_minute: 10_000_000_000, burst: 10_000_000_000 };
        let mut bucket = Bucket::default();
        bucket.adopt(Some(rate));
        (0..100).for_each(|_| bucket.take(crate::quota::TOKENS_MAX));
        assert_eq!(bucket.taken, TAKEN_MAX);
        const { assert!(TAKEN_MAX + crate::quota::TOKENS_MAX * PARTS < 1 << 53) };
        assert!(matches!(bucket.wait(rate, 1), Some(Wait::Ms(_))));
        bucket.refill(u64::MAX);
        assert!(bucket.is_full());
    }
}
