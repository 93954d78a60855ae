//! core: one tenant's ledger: its own account, its keys' accounts, and the reservations that are open in them.
//!
//! Each call first ends the reservations that nobody renewed, a bounded number at a time, so that no timer is needed.

use super::account::{Account, Charged, longest};
use super::leases::{Leases, Open};
use super::recent::Recent;
use super::seed;
use crate::domain::RequestId;
use crate::quota::{Amount, Decision, Look, Outcome, Quota, Refusal, Reserve, Seed, Seeded, Settle, Settled, Standing, Whose, Window};
use foldhash::HashMap;
use std::sync::Arc;

/// Leases ended in one call: many more than one call opens, so that they do not pile up.
const EXPIRED_MAX: usize = 64;

#[derive(Debug, Default)]
pub struct Tenant {
    pub(super) account: Account,
    pub(super) keys: HashMap<Arc<str>, Account>,
    pub(super) leases: Leases,
    pub(super) recent: Recent,
}

/// One of the accounts that a request is counted in, and by what quota.
struct Side<'a> {
    whose: Whose,
    quota: &'a Quota,
    account: &'a mut Account,
}

impl Tenant {
    pub fn reserve(&mut self, now: u64, asked: &Reserve) -> Decision {
        self.tidy(now);
        let counted = self.recent.contains(now, asked.id);
        let is_open = self.leases.contains(asked.id);
        let amount = Amount::of_request(asked.tokens, asked.nano_usd);
        let limited_key = asked.limited_key();
        let [tenant, key] = &mut sides(&mut self.account, &mut self.keys, asked, limited_key, now);
        if !is_open && let Some(no) = decline(now, [tenant.as_ref(), key.as_ref()], amount, counted) {
            return no;
        }
        if !is_open {
            let mut open = Open::new(limited_key.map(|(name, _)| name.clone()), amount);
            open.counted = counted;
            open.budgeted = [&*tenant, &*key].into_iter().flatten().any(|side| side.quota.has_budget());
            open.of_tenant = charge(tenant, amount, counted);
            open.of_key = charge(key, amount, counted);
            self.leases.insert(now, asked.id, open);
        }
        Decision::Granted(standing([tenant.as_ref(), key.as_ref()]))
    }

    pub fn settle(&mut self, now: u64, ended: &Settle) -> Settled {
        self.tidy(now);
        match self.leases.remove(ended.id) {
            Some(open) => self.settle_open(now, ended, &open),
            None => self.settle_unknown(now, ended),
        }
    }

    fn settle_open(&mut self, now: u64, ended: &Settle, open: &Open) -> Settled {
        self.account.advance(now);
        self.account.settle(open.of_tenant, open.reserved, ended.outcome);
        if let Some(account) = key_account(&mut self.keys, open.key.as_ref()) {
            account.advance(now);
            account.settle(open.of_key, open.reserved, ended.outcome);
        }
        let Outcome::Used { tokens, nano_usd } = ended.outcome else { return Settled::Open { overrun: 0 } };
        let used = Amount::of_request(tokens, nano_usd);
        if open.budgeted {
            self.remember(now, ended.id, used, open);
        }
        Settled::Open { overrun: used.tokens.saturating_sub(open.reserved.tokens) }
    }

    /// What is remembered of an id that ran again stays: whether the log holds its usage has not changed.
    fn remember(&mut self, now: u64, id: RequestId, used: Amount, open: &Open) {
        if !open.counted {
            self.recent.insert(now, id, used, open.key.clone());
        } else if !self.recent.contains(now, id) {
            self.recent.insert(now, id, Amount::default(), None);
        }
    }

    fn settle_unknown(&mut self, now: u64, ended: &Settle) -> Settled {
        let Outcome::Used { tokens, nano_usd } = ended.outcome else { return Settled::Again };
        if self.recent.contains(now, ended.id) {
            return Settled::Again;
        }
        let used = Amount::of_request(tokens, nano_usd);
        self.account.advance(now);
        self.account.budget.charge(used);
        if let Some(account) = key_account(&mut self.keys, ended.key.as_ref()) {
            account.advance(now);
            account.budget.charge(used);
        }
        self.recent.insert(now, ended.id, used, ended.key.clone());
        Settled::Unknown
    }

    pub fn is_open(&self, id: RequestId) -> bool {
        self.leases.contains(id)
    }

    /// Keeps reservations for another lease. Returns how many of them are open.
    pub fn renew(&mut self, now: u64, ids: &[RequestId]) -> usize {
        self.tidy(now);
        ids.iter().filter(|&&id| self.leases.renew(now, id)).count()
    }

    pub fn seed(&mut self, now: u64, seed: &Seed) -> Seeded {
        self.tidy(now);
        seed::apply(self, now, seed)
    }

    pub fn look(&mut self, now: u64, keys: &[Arc<str>]) -> Look {
        self.tidy(now);
        self.account.advance(now);
        let usage = |key: &Arc<str>| match self.keys.get_mut(key) {
            Some(account) => {
                account.advance(now);
                account.usage()
            }
            None => Default::default(),
        };
        Look { keys: keys.iter().map(usage).collect(), tenant: self.account.usage() }
    }

    /// The counters of all budgets are no longer to be trusted.
    pub fn unseed(&mut self) {
        self.account.budget.unseed();
        self.keys.values_mut().for_each(|account| account.budget.unseed());
    }

    /// Forgets the keys that nothing would be different without. Returns whether the same is true of the whole tenant.
    pub fn forget_idle(&mut self, now: u64) -> bool {
        self.tidy(now);
        self.keys.retain(|_, account| !account.is_idle(now));
        self.keys.is_empty() && self.leases.is_empty() && self.recent.is_empty() && self.account.is_idle(now)
    }

    /// How many accounts it keeps.
    pub fn accounts(&self) -> usize {
        1 + self.keys.len()
    }

    fn tidy(&mut self, now: u64) {
        self.recent.trim(now);
        for _ in 0..EXPIRED_MAX {
            let Some(open) = self.leases.pop_expired(now) else { return };
            self.account.expire(open.of_tenant, open.reserved);
            if let Some(account) = key_account(&mut self.keys, open.key.as_ref()) {
                account.expire(open.of_key, open.reserved);
            }
        }
    }
}

/// The accounts that count, up to date and under the quotas that are in force now.
fn sides<'a>(
    tenant: &'a mut Account,
    keys: &'a mut HashMap<Arc<str>, Account>,
    asked: &'a Reserve,
    key: Option<(&'a Arc<str>, &'a Quota)>,
    now: u64,
) -> [Option<Side<'a>>; 2] {
    let key = key.map(|(name, quota)| {
        if !keys.contains_key(name) {
            keys.insert(name.clone(), Account::default());
        }
        let account = keys.get_mut(name).expect("it was put there");
        Side { whose: Whose::Key, quota, account }
    });
    let mut sides = [Some(Side { whose: Whose::Tenant, quota: &asked.quotas.tenant, account: tenant }), key];
    for side in sides.iter_mut().flatten() {
        side.account.advance(now);
        side.account.adopt(side.quota);
    }
    sides
}

/// Why a request may not go on now, if so. `counted`: the budgets know its usage already.
fn decline(now: u64, sides: [Option<&Side<'_>>; 2], amount: Amount, counted: bool) -> Option<Decision> {
    let of_budgets = if counted { Amount::default() } else { amount };
    let no_of = |side: &Side<'_>| {
        let no = side.account.refusal(now, side.quota, amount.tokens, of_budgets)?;
        Some((no, side.whose))
    };
    let [tenant, key] = sides.map(|side| side.and_then(no_of));
    let no = match (tenant, key) {
        (Some(tenant), Some(key)) if longest(tenant.0, key.0) == key.0 && tenant.0 != key.0 => Some(key),
        (tenant, key) => tenant.or(key),
    };
    if let Some(((reason, wait), whose)) = no {
        let refusal = Refusal { reason, whose, retry_after_ms: wait.retry_after_ms(), standing: standing(sides) };
        return Some(Decision::Refused(refusal));
    }
    let unseeded = |side: &&Side<'_>| side.quota.has_budget() && !side.account.budget.is_seeded();
    let asks_seed = !counted && sides.iter().flatten().any(unseeded);
    asks_seed.then_some(Decision::Unseeded)
}

fn charge(side: &mut Option<Side<'_>>, amount: Amount, counted: bool) -> Charged {
    side.as_mut().map_or_else(Charged::default, |side| side.account.charge(side.quota, amount, counted))
}

fn key_account<'a>(keys: &'a mut HashMap<Arc<str>, Account>, key: Option<&Arc<str>>) -> Option<&'a mut Account> {
    key.and_then(|key| keys.get_mut(key))
}

/// Of each rate, the window with less left.
fn standing(sides: [Option<&Side<'_>>; 2]) -> Standing {
    let of = |side: Option<&Side<'_>>| side.map_or_else(Standing::default, |side| side.account.standing(side.quota));
    let [tenant, key] = sides.map(of);
    Standing { requests: tighter(tenant.requests, key.requests), tokens: tighter(tenant.tokens, key.tokens) }
}

fn tighter(one: Option<Window>, other: Option<Window>) -> Option<Window> {
    match (one, other) {
        (Some(one), Some(other)) if other.remaining < one.remaining => Some(other),
        (one, other) => one.or(other),
    }
}
