//! core: an account's budgets of tokens and money in the calendar day and month, UTC.
//!
//! What is settled and what open reservations hold are kept apart: a new period begins with nothing settled and with
//! everything held, so it needs no word from the usage log.

use super::{No, Wait};
use crate::calendar::{day_end, month_end};
use crate::quota::{Amount, Quota, Reason, Totals};

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Budget {
    /// Whether `day` and `month` are known. What is not seeded is not counted.
    seeded: bool,
    held: Amount,
    day: Period,
    month: Period,
}

#[derive(Clone, Copy, Debug, Default)]
struct Period {
    /// The first moment after it.
    until: u64,
    settled: Amount,
}

impl Period {
    fn roll(&mut self, now: u64, end: fn(u64) -> u64) {
        if now >= self.until {
            *self = Self { until: end(now), settled: Amount::default() };
        }
    }
}

impl Budget {
    pub(super) fn roll(&mut self, now: u64) {
        self.day.roll(now, day_end);
        self.month.roll(now, month_end);
    }

    pub(super) const fn is_seeded(&self) -> bool {
        self.seeded
    }

    /// From now on the counters are not to be trusted: something may have been used that nobody told.
    pub(super) const fn unseed(&mut self) {
        self.seeded = false;
    }

    pub(super) const fn seed(&mut self, totals: Totals) {
        self.day.settled = totals.day;
        self.month.settled = totals.month;
        self.seeded = true;
    }

    /// Whether a moment of the past is in the current day, and in the current month.
    pub(super) const fn covers(&self, at: u64) -> (bool, bool) {
        (day_end(at) == self.day.until, month_end(at) == self.month.until)
    }

    pub(super) fn hold(&mut self, amount: Amount) {
        self.held.add(amount);
    }

    pub(super) fn release(&mut self, amount: Amount) {
        self.held.subtract(amount);
    }

    pub(super) fn charge(&mut self, amount: Amount) {
        if self.seeded {
            self.day.settled.add(amount);
            self.month.settled.add(amount);
        }
    }

    /// The budgets that an amount would exceed. Nothing is refused for counters that are not known.
    pub(super) fn refusals(&self, now: u64, quota: &Quota, amount: Amount) -> [Option<No>; 4] {
        if !self.seeded {
            return [None; 4];
        }
        let (day, month) = (self.day.counted(self.held), self.month.counted(self.held));
        let (today, this_month) = (self.day.until.saturating_sub(now), self.month.until.saturating_sub(now));
        let usd = |limit: Option<crate::quota::NanoUsd>| limit.map(|usd| usd.0);
        [
            over(quota.tokens_per_day, day.tokens, amount.tokens, today).map(|wait| (Reason::TokensPerDay, wait)),
            over(quota.tokens_per_month, month.tokens, amount.tokens, this_month).map(|wait| (Reason::TokensPerMonth, wait)),
            over(usd(quota.usd_per_day), day.nano_usd, amount.nano_usd, today).map(|wait| (Reason::UsdPerDay, wait)),
            over(usd(quota.usd_per_month), month.nano_usd, amount.nano_usd, this_month).map(|wait| (Reason::UsdPerMonth, wait)),
        ]
    }

    pub(super) const fn held(&self) -> Amount {
        self.held
    }

    pub(super) fn settled(&self) -> Option<Totals> {
        self.seeded.then_some(Totals { day: self.day.settled, month: self.month.settled })
    }
}

impl Period {
    fn counted(&self, held: Amount) -> Amount {
        let mut counted = self.settled;
        counted.add(held);
        counted
    }
}

fn over(limit: Option<u64>, counted: u64, amount: u64, until_ms: u64) -> Option<Wait> {
    let limit = limit?;
    match counted + amount {
        sum if sum <= limit => None,
        _ if amount > limit => Some(Wait::Never),
        _ => Some(Wait::ms(until_ms)),
    }
}
