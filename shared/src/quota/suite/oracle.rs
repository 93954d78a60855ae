//! core: what a ledger should answer, worked out the plain way: buckets by their level, budgets by adding up the usage log.

use super::log::Log;
use crate::domain::RequestId;
use crate::quota::{Amount, LEASE_MS, Outcome, Quota, Rate, Reason, Refusal, Totals, Usage, Whose};
use std::collections::HashMap;

/// One tenant with one key.
pub(super) struct Oracle {
    sides: [Side; 2],
    open: HashMap<RequestId, Open>,
    pub(super) log: Log,
    now: u64,
}

struct Side {
    whose: Whose,
    quota: Quota,
    requests: Option<Level>,
    tokens: Option<Level>,
    seeded: bool,
    held: Amount,
}

/// A bucket by what is left in it, in parts of a unit; below zero in debt.
struct Level {
    left: i128,
    rate: Rate,
}

struct Open {
    amount: Amount,
    ends: u64,
    /// By side: its budget holds the estimate.
    holds: [bool; 2],
}

pub(super) enum Expected {
    Granted,
    /// All limits that refuse, each with how long (`None`: for good).
    Refused(Vec<(Whose, Reason, Option<u64>)>),
    Unseeded,
}

const PARTS: i128 = 60_000;

impl Level {
    fn new(rate: Rate) -> Self {
        Self { left: i128::from(rate.burst) * PARTS, rate }
    }

    fn add(&mut self, parts: i128) {
        self.left = (self.left + parts).min(i128::from(self.rate.burst) * PARTS);
    }

    fn refill(&mut self, ms: u64) {
        self.add(i128::from(ms) * i128::from(self.rate.per_minute));
    }

    fn wait(&self, units: u64) -> Option<Option<u64>> {
        let missing = i128::from(units) * PARTS - self.left;
        let ms = (missing + i128::from(self.rate.per_minute) - 1) / i128::from(self.rate.per_minute);
        (missing > 0).then(|| (units <= self.rate.burst).then(|| u64::try_from(ms).expect("above zero")))
    }

    fn taken(&self) -> u64 {
        let taken = i128::from(self.rate.burst) * PARTS - self.left;
        u64::try_from((taken + PARTS - 1) / PARTS).expect("never above its size")
    }
}

impl Side {
    fn new(whose: Whose, quota: Quota) -> Self {
        let (requests, tokens) = (quota.requests().map(Level::new), quota.tokens().map(Level::new));
        Self { whose, quota, requests, tokens, seeded: false, held: Amount::default() }
    }

    fn move_tokens(&mut self, tokens: i128) {
        if let Some(level) = &mut self.tokens {
            level.add(tokens * PARTS);
        }
    }

    fn move_requests(&mut self, requests: i128) {
        if let Some(level) = &mut self.requests {
            level.add(requests * PARTS);
        }
    }

    fn waits(&self, amount: Amount, budget: Amount, open: usize, log: &Log, index: usize) -> Vec<(Whose, Reason, Option<u64>)> {
        let mut all = Vec::new();
        let mut no = |reason, wait: Option<Option<u64>>| all.extend(wait.map(|wait| (self.whose, reason, wait)));
        no(Reason::Requests, self.requests.as_ref().and_then(|level| level.wait(1)));
        no(Reason::Tokens, self.tokens.as_ref().and_then(|level| level.wait(amount.tokens)));
        no(Reason::Concurrency, self.quota.concurrency.filter(|&most| open >= most as usize).map(|_| Some(250)));
        if self.seeded {
            let Totals { day, month } = log.booked(index);
            let (to_day, to_month) = log.until_ends();
            let Quota { tokens_per_day, tokens_per_month, usd_per_day, usd_per_month, .. } = self.quota;
            let over = |limit: Option<u64>, sum: u64, amount: u64, wait: u64| {
                limit.filter(|&limit| sum + amount > limit).map(|limit| (amount <= limit).then_some(wait))
            };
            no(Reason::TokensPerDay, over(tokens_per_day, day.tokens + self.held.tokens, budget.tokens, to_day));
            no(Reason::TokensPerMonth, over(tokens_per_month, month.tokens + self.held.tokens, budget.tokens, to_month));
            let (usd_per_day, usd_per_month) = (usd_per_day.map(|usd| usd.0), usd_per_month.map(|usd| usd.0));
            no(Reason::UsdPerDay, over(usd_per_day, day.nano_usd + self.held.nano_usd, budget.nano_usd, to_day));
            no(Reason::UsdPerMonth, over(usd_per_month, month.nano_usd + self.held.nano_usd, budget.nano_usd, to_month));
        }
        all
    }
}

impl Oracle {
    pub(super) fn new(tenant: Quota, key: Quota, now: u64) -> Self {
        let sides = [Side::new(Whose::Tenant, tenant), Side::new(Whose::Key, key)];
        Self { sides, open: HashMap::new(), log: Log::new(now), now }
    }

    /// Time passes; leases run out.
    pub(super) fn advance(&mut self, now: u64) {
        for level in self.sides.iter_mut().flat_map(|side| [&mut side.requests, &mut side.tokens]).flatten() {
            level.refill(now - self.now);
        }
        self.now = now;
        self.log.advance(now);
        let expired: Vec<_> = self.open.iter().filter(|(_, open)| open.ends <= now).map(|(id, _)| *id).collect();
        for id in expired {
            for side in self.close(id).1.into_iter().flatten() {
                self.sides[side].seeded = false;
            }
        }
    }

    /// Takes a reservation away with what the budgets hold for it. Returns it, and the sides that held something.
    fn close(&mut self, id: RequestId) -> (Open, [Option<usize>; 2]) {
        let open = self.open.remove(&id).expect("it is open");
        let held = [0, 1].map(|side| open.holds[side].then_some(side));
        for side in held.into_iter().flatten() {
            self.sides[side].held.subtract(open.amount);
        }
        (open, held)
    }

    pub(super) fn is_open(&self, id: RequestId) -> bool {
        self.open.contains_key(&id)
    }

    pub(super) fn open_ids(&self) -> Vec<RequestId> {
        let mut ids: Vec<_> = self.open.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    pub(super) fn reserve(&mut self, id: RequestId, amount: Amount) -> Expected {
        self.sides.iter_mut().for_each(|side| side.seeded &= side.quota.has_budget());
        if self.is_open(id) {
            return Expected::Granted;
        }
        let counted = self.has_budget() && self.log.is_known(id);
        let budget = if counted { Amount::default() } else { amount };
        let waits = |index: usize| self.sides[index].waits(amount, budget, self.open.len(), &self.log, index);
        let all: Vec<_> = [0, 1].into_iter().flat_map(waits).collect();
        if !all.is_empty() {
            return Expected::Refused(all);
        }
        if !counted && self.sides.iter().any(|side| side.quota.has_budget() && !side.seeded) {
            return Expected::Unseeded;
        }
        let holds = [0, 1].map(|index| !counted && self.sides[index].quota.has_budget());
        for (side, holds) in self.sides.iter_mut().zip(holds) {
            side.move_requests(-1);
            side.move_tokens(-i128::from(amount.tokens));
            if holds {
                side.held.add(amount);
            }
        }
        self.open.insert(id, Open { amount, ends: self.now + LEASE_MS, holds });
        Expected::Granted
    }

    /// Returns the overrun, where the reservation was open.
    pub(super) fn settle(&mut self, id: RequestId, outcome: Outcome) -> Option<u64> {
        let was_open = self.is_open(id);
        let mut books = [true; 2];
        let mut overrun = 0;
        if was_open {
            let (open, held) = self.close(id);
            books = held.map(|side| side.is_some());
            let (requests, tokens) = match outcome {
                Outcome::Used { tokens, .. } => (0, i128::from(open.amount.tokens) - i128::from(tokens)),
                Outcome::Refund => (1, i128::from(open.amount.tokens)),
            };
            self.sides.iter_mut().for_each(|side| {
                side.move_requests(requests);
                side.move_tokens(tokens);
            });
            overrun = u64::try_from(-tokens).unwrap_or(0);
        }
        if let Outcome::Used { tokens, nano_usd } = outcome {
            let books = [0, 1].map(|side| books[side] && self.sides[side].seeded);
            self.log.settle(id, Amount { tokens, nano_usd }, books);
        }
        was_open.then_some(overrun)
    }

    pub(super) fn renew(&mut self, id: RequestId) {
        if let Some(open) = self.open.get_mut(&id) {
            open.ends = self.now + LEASE_MS;
        }
    }

    /// The accounts take over what the log shows, as it is listed in a seed.
    pub(super) fn seed(&mut self, force: bool) {
        let due = [0, 1].map(|side| force || !self.sides[side].seeded);
        if due == [false; 2] {
            return;
        }
        for id in self.log.listed() {
            let Some(open) = self.open.get_mut(&id) else { continue };
            for side in [0, 1].into_iter().filter(|&side| due[side] && std::mem::take(&mut open.holds[side])) {
                self.sides[side].held.subtract(open.amount);
            }
        }
        self.log.seed(due);
        [0, 1].into_iter().filter(|&side| due[side]).for_each(|side| self.sides[side].seeded = true);
    }

    pub(super) fn has_budget(&self) -> bool {
        self.sides.iter().any(|side| side.quota.has_budget())
    }

    /// What an account should show, where it says so for certain.
    pub(super) fn check(&self, whose: Whose, usage: &Usage) {
        let index = usize::from(whose == Whose::Key);
        let side = &self.sides[index];
        assert_eq!(usage.open, self.open.len() as u64, "{whose:?}: open");
        assert_eq!(usage.requests, side.requests.as_ref().map_or(0, Level::taken), "{whose:?}: requests");
        assert_eq!(usage.tokens, side.tokens.as_ref().map_or(0, Level::taken), "{whose:?}: tokens");
        assert_eq!(usage.held, side.held, "{whose:?}: held");
        if side.quota.has_budget() {
            assert_eq!(usage.settled, side.seeded.then(|| self.log.booked(index)), "{whose:?}: settled");
        }
    }
}

/// Whether a refusal is one of those expected, and none of them lasts longer.
pub(super) fn agrees(refusal: &Refusal, expected: &[(Whose, Reason, Option<u64>)]) -> bool {
    let length = |wait: &Option<u64>| wait.unwrap_or(u64::MAX);
    let longest = expected.iter().map(|(_, _, wait)| length(wait)).max();
    let told = (refusal.whose, refusal.reason, refusal.retry_after_ms.map(u64::from));
    expected.contains(&told) && longest == Some(length(&told.2))
}
