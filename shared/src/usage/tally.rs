//! core: calls, summed by day and by month, for a tenant and for each of its keys.

use super::answered::Answered;
use crate::calendar::{day_start, month_start};
use crate::domain::RequestId;
use crate::quota::{COUNTED_MAX, RECENT_MS};
use crate::wire::{Call, ItemEnd};
use std::collections::{BTreeMap, BTreeSet};

/// Keys of one tenant that are told apart; the tenant's own totals are right whatever their number.
const KEYS_MAX: usize = 16_384;

/// What was used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    pub calls: u64,
    /// Tokens.
    pub input: u64,
    pub output: u64,
    pub nano_usd: u64,
}

impl Spent {
    pub const fn tokens(&self) -> u64 {
        self.input.saturating_add(self.output)
    }

    fn add(&mut self, call: &Call) {
        self.calls += 1;
        self.input = self.input.saturating_add(call.input.into());
        self.output = self.output.saturating_add(call.output.into());
        self.nano_usd = self.nano_usd.saturating_add(call.nano_usd);
    }
}

/// In the current day and month (UTC).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub day: Spent,
    pub month: Spent,
}

impl Totals {
    fn add(&mut self, call: &Call, is_today: bool) {
        self.month.add(call);
        if is_today {
            self.day.add(call);
        }
    }
}

/// What the journal says of one tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Unix milliseconds: of which day and month.
    pub as_of: u64,
    pub totals: Totals,
    /// By the id of the key; those that called.
    pub keys: BTreeMap<Box<str>, Totals>,
    /// The calls that ended at `counted_from` or later and are in the totals, in the order in which they ended (Unix milliseconds).
    pub counted: BTreeSet<(u64, RequestId)>,
    pub counted_from: u64,
}

pub(super) struct Tally {
    sum: Sum,
    answered: Answered,
    day: u64,
    month: u64,
}

impl Tally {
    pub(super) fn new(now_ms: u64) -> Self {
        let sum = Sum { as_of: now_ms, counted_from: now_ms.saturating_sub(RECENT_MS), ..Sum::default() };
        Self { sum, answered: Answered::default(), day: day_start(now_ms), month: month_start(now_ms) }
    }

    pub(super) fn add(&mut self, call: &Call) {
        if call.at_ms >= self.sum.counted_from {
            self.name(call);
        }
        if call.end == ItemEnd::Answered && !self.answered.is_first(call.id) {
            return; // It ran twice, which is no business of who pays for it.
        }
        if call.at_ms < self.month {
            return;
        }
        let is_today = call.at_ms >= self.day;
        self.sum.totals.add(call, is_today);
        let Some(key) = &call.key else { return };
        if self.sum.keys.contains_key(key) || self.sum.keys.len() < KEYS_MAX {
            self.sum.keys.entry(key.clone()).or_default().add(call, is_today);
        }
    }

    fn name(&mut self, call: &Call) {
        let counted = &mut self.sum.counted;
        counted.insert((call.at_ms, call.id));
        if counted.len() > COUNTED_MAX
            && let Some((oldest, _)) = counted.pop_first()
        {
            self.sum.counted_from = oldest + 1;
        }
    }

    pub(super) fn sum(mut self) -> Sum {
        self.sum.counted.retain(|(at_ms, _)| *at_ms >= self.sum.counted_from);
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calendar::DAY_MS;
    use crate::wire::sample_call;

    /// 2026-11-22 16:00 UTC.
    const NOW: u64 = 1_795_363_200_000;

    fn call(n: u128, at_ms: u64, key: Option<&str>) -> Call {
        Call { at_ms, key: key.map(Into::into), ..sample_call(n) }
    }

    #[test]
    fn a_call_counts_in_its_month_and_its_day_for_its_tenant_and_its_key() {
        let mut tally = Tally::new(NOW);
        let (today, first) = (day_start(NOW), month_start(NOW));
        for (n, at_ms, key) in
            [(1, NOW, Some("k1")), (2, today, None), (3, today - 1, Some("k1")), (4, first, Some("k2")), (5, first - 1, None)]
        {
            tally.add(&call(n, at_ms, key));
        }
        let sum = tally.sum();
        assert_eq!((sum.totals.day.calls, sum.totals.month.calls), (2, 4));
        assert_eq!(sum.totals.month, Spent { calls: 4, input: 80, output: 20, nano_usd: 24_000 });
        assert_eq!(sum.keys["k1"], Totals { day: spent(1), month: spent(2) });
        assert_eq!(sum.keys["k2"], Totals { day: spent(0), month: spent(1) });
    }

    fn spent(calls: u64) -> Spent {
        Spent { calls, input: 20 * calls, output: 5 * calls, nano_usd: 6_000 * calls }
    }

    #[test]
    fn a_request_that_ran_twice_is_paid_once_and_what_failed_before_it_beside() {
        let mut tally = Tally::new(NOW);
        let ended = |end, input| Call { end, input, ..call(1, NOW, Some("k1")) };
        for (end, input) in [(ItemEnd::Failed, 3), (ItemEnd::Answered, 20), (ItemEnd::Answered, 21), (ItemEnd::Cancelled, 4)] {
            tally.add(&ended(end, input));
        }
        tally.add(&call(2, NOW, None));
        let sum = tally.sum();
        assert_eq!((sum.totals.day.calls, sum.totals.day.input), (4, 3 + 20 + 4 + 20));
        assert_eq!(sum.keys["k1"].month.input, 3 + 20 + 4);
    }

    #[test]
    fn the_calls_of_the_last_minutes_are_named() {
        let mut tally = Tally::new(NOW);
        tally.add(&call(1, NOW - DAY_MS, None));
        tally.add(&call(2, NOW - RECENT_MS, None));
        tally.add(&call(3, NOW + 5, None));
        let sum = tally.sum();
        assert_eq!(sum.counted.iter().map(|(_, id)| id.0.as_u128()).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(sum.counted_from, NOW - RECENT_MS);
    }

    #[test]
    fn where_there_were_too_many_to_name_it_says_how_far_it_reaches() {
        let mut tally = Tally::new(NOW);
        // Two in each millisecond, in no order.
        let n = COUNTED_MAX as u128 + 101;
        (0..n).for_each(|i| tally.add(&call(i, NOW - u64::try_from((i * 7_919 % n) / 2).unwrap(), None)));
        let sum = tally.sum();
        assert!(sum.counted.len() > COUNTED_MAX - 2 && sum.counted.len() <= COUNTED_MAX);
        assert!(sum.counted.iter().all(|(at_ms, _)| *at_ms >= sum.counted_from));
        let since = (0..n).filter(|i| NOW - u64::try_from((i * 7_919 % n) / 2).unwrap() >= sum.counted_from).count();
        assert_eq!(since, sum.counted.len(), "all that ended since then are named");
    }
}
