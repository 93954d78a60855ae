//! core: one account, a tenant's or a key's: two buckets, the open reservations, the budgets.

use super::bucket::Bucket;
use super::budget::Budget;
use super::{No, Wait};
use crate::quota::{Amount, Outcome, Quota, Reason, Standing, Usage};

/// When to try again where places come back with the end of a request, which nobody can foresee.
const CONCURRENCY_RETRY_MS: u32 = 250;

/// A clock that goes back by more was wrong before: what was refilled ahead of time is not waited for.
const AHEAD_MAX_MS: u64 = 10_000;

/// An account that holds nothing but seeded budgets is forgotten after an hour: the usage log has them too.
const SEEDED_IDLE_MS: u64 = 3_600_000;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Account {
    /// When it was last brought up to date.
    at: u64,
    requests: Bucket,
    tokens: Bucket,
    open: u64,
    pub(super) budget: Budget,
}

/// What a reservation was charged for in one account: what is given back is what was taken.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Charged {
    requests: bool,
    tokens: bool,
    budget: bool,
}

impl Account {
    /// Brings it up to date. A clock that went back by a little changes nothing.
    pub(super) fn advance(&mut self, now: u64) {
        if self.at > now.saturating_add(AHEAD_MAX_MS) {
            self.at = now;
        }
        let elapsed = now.saturating_sub(self.at);
        self.requests.refill(elapsed);
        self.tokens.refill(elapsed);
        self.at = self.at.max(now);
        self.budget.roll(now);
    }

    /// Has it filled at the quota's rates from now on, and forget budgets that are no longer kept.
    pub(super) fn adopt(&mut self, quota: &Quota) {
        self.requests.adopt(quota.requests());
        self.tokens.adopt(quota.tokens());
        if !quota.has_budget() {
            self.budget.unseed();
        }
    }

    /// The limit that refuses longest. `amount`: what the budgets are asked for, nothing when they have counted it already.
    pub(super) fn refusal(&self, now: u64, quota: &Quota, tokens: u64, amount: Amount) -> Option<No> {
        let requests = quota.requests().and_then(|rate| self.requests.wait(rate, 1));
        let taken = quota.tokens().and_then(|rate| self.tokens.wait(rate, tokens));
        let open = quota.concurrency.filter(|&most| self.open >= u64::from(most)).map(|_| Wait::Ms(CONCURRENCY_RETRY_MS));
        let rates = [
            requests.map(|wait| (Reason::Requests, wait)),
            taken.map(|wait| (Reason::Tokens, wait)),
            open.map(|wait| (Reason::Concurrency, wait)),
        ];
        let budgets = self.budget.refusals(now, quota, amount);
        rates.into_iter().chain(budgets).flatten().reduce(longest)
    }

    /// Charges everything the quota limits. `counted`: the budgets know this request's usage already.
    pub(super) fn charge(&mut self, quota: &Quota, amount: Amount, counted: bool) -> Charged {
        let budget = quota.has_budget() && !counted;
        let charged = Charged { requests: quota.requests().is_some(), tokens: quota.tokens().is_some(), budget };
        self.open += 1;
        self.requests.take(1);
        self.tokens.take(amount.tokens);
        if charged.budget {
            self.budget.hold(amount);
        }
        charged
    }

    /// Ends a reservation that was charged.
    pub(super) fn settle(&mut self, charged: Charged, reserved: Amount, outcome: Outcome) {
        self.close();
        if charged.budget {
            self.budget.release(reserved);
        }
        match outcome {
            Outcome::Used { tokens, nano_usd } => self.charge_usage(charged, reserved, Amount::of_request(tokens, nano_usd)),
            Outcome::Refund => self.refund(charged, reserved),
        }
    }

    fn charge_usage(&mut self, charged: Charged, reserved: Amount, used: Amount) {
        if charged.tokens {
            self.tokens.take(used.tokens.saturating_sub(reserved.tokens));
            self.tokens.give_back(reserved.tokens.saturating_sub(used.tokens));
        }
        if charged.budget {
            self.budget.charge(used);
        }
    }

    fn refund(&mut self, charged: Charged, reserved: Amount) {
        if charged.requests {
            self.requests.give_back(1);
        }
        if charged.tokens {
            self.tokens.give_back(reserved.tokens);
        }
    }

    /// Ends a reservation that nobody renewed: what it used is not known.
    pub(super) fn expire(&mut self, charged: Charged, reserved: Amount) {
        self.close();
        if charged.budget {
            self.budget.release(reserved);
            self.budget.unseed();
        }
    }

    /// The totals that this account is seeded with hold the reservation's usage.
    pub(super) fn count(&mut self, charged: &mut Charged, reserved: Amount) {
        if charged.budget {
            self.budget.release(reserved);
            charged.budget = false;
        }
    }

    fn close(&mut self) {
        self.open = self.open.saturating_sub(1);
    }

    pub(super) fn standing(&self, quota: &Quota) -> Standing {
        Standing {
            requests: quota.requests().map(|rate| self.requests.window(rate)),
            tokens: quota.tokens().map(|rate| self.tokens.window(rate)),
        }
    }

    pub(super) fn usage(&self) -> Usage {
        Usage {
            requests: self.requests.taken_units(),
            tokens: self.tokens.taken_units(),
            open: self.open,
            held: self.budget.held(),
            settled: self.budget.settled(),
        }
    }

    /// Whether forgetting it changes no decision but, at most, asks for a seed.
    pub(super) fn is_idle(&self, now: u64) -> bool {
        let untouched_ms = now.saturating_sub(self.at);
        let mut then = *self;
        then.advance(now);
        let is_empty = then.open == 0 && then.requests.is_full() && then.tokens.is_full();
        is_empty && (!self.budget.is_seeded() || untouched_ms >= SEEDED_IDLE_MS)
    }
}

/// The one that lasts longer; of two that last as long, the first.
pub(super) fn longest(one: No, other: No) -> No {
    if other.1 > one.1 { other } else { one }
}
