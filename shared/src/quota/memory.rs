//! edge: the ledger in this process, behind one blocking lock.
//!
//! A call is some map operations, well under a microsecond: a lock per tenant would cost more than it saves. The bounds
//! are for a flood of names; idle accounts are forgotten when nothing would be different without them.

use super::core::Tenant;
use super::{Decision, Look, Reason, Refusal, Reserve, Seed, Seeded, Settle, Settled, Standing, Whose};
use crate::clock;
use crate::domain::RequestId;
use foldhash::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Accounts kept at once, of tenants and keys: what a configuration may name, with room for as many keys again. Past it a new one is
/// refused until others are idle.
const ACCOUNTS_MAX: usize = 262_144;

/// No look for idle accounts before there are this many.
const SWEEP_MIN: usize = 1_024;

/// Nor sooner after the last one: it takes milliseconds where there are many.
const SWEEP_EVERY_MS: u64 = 5_000;

/// When to try again with a ledger that is full.
const FULL_RETRY_MS: u32 = 5_000;

/// Tells the Unix time in milliseconds.
pub type UnixClock = Arc<dyn Fn() -> u64 + Send + Sync>;

pub struct MemoryLedger {
    clock: UnixClock,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    tenants: HashMap<Arc<str>, Tenant>,
    accounts: usize,
    /// The number of accounts, and the time, from which on idle ones are looked for.
    sweep_at: usize,
    sweep_after: u64,
}

impl Default for MemoryLedger {
    fn default() -> Self {
        Self::with_clock(Arc::new(|| u64::try_from(clock::unix().as_millis()).unwrap_or(u64::MAX)))
    }
}

impl MemoryLedger {
    /// A ledger whose time is told: for tests, and for simulations.
    pub fn with_clock(clock: UnixClock) -> Self {
        Self { clock, state: Mutex::default() }
    }

    pub fn reserve(&self, asked: &Reserve) -> Decision {
        let now = (self.clock)();
        let full = Refusal {
            reason: Reason::Unavailable,
            whose: Whose::Tenant,
            retry_after_ms: Some(FULL_RETRY_MS),
            standing: Standing::default(),
        };
        self.lock().with(now, &asked.tenant, |tenant| tenant.reserve(now, asked)).unwrap_or(Decision::Refused(full))
    }

    pub fn settle(&self, ended: &Settle) -> Settled {
        let now = (self.clock)();
        self.lock().with(now, &ended.tenant, |tenant| tenant.settle(now, ended)).unwrap_or(Settled::Again)
    }

    /// Settles a reservation that is open here, and does nothing about any other.
    pub fn settle_open(&self, ended: &Settle) -> Option<Settled> {
        let now = (self.clock)();
        let mut state = self.lock();
        let tenant = state.tenants.get_mut(&ended.tenant)?;
        tenant.is_open(ended.id).then(|| tenant.settle(now, ended))
    }

    /// Keeps reservations of a tenant for another [`super::LEASE_MS`]. Returns how many of them are open.
    pub fn renew(&self, tenant: &str, ids: &[RequestId]) -> usize {
        let now = (self.clock)();
        self.lock().tenants.get_mut(tenant).map_or(0, |tenant| tenant.renew(now, ids))
    }

    pub fn seed(&self, seed: &Seed) -> Seeded {
        let now = (self.clock)();
        self.lock().with(now, &seed.tenant, |tenant| tenant.seed(now, seed)).unwrap_or(Seeded::Already)
    }

    pub fn look(&self, tenant: &str, keys: &[Arc<str>]) -> Look {
        let now = (self.clock)();
        let nothing = || Look { keys: vec![Default::default(); keys.len()], ..Look::default() };
        self.lock().tenants.get_mut(tenant).map_or_else(nothing, |tenant| tenant.look(now, keys))
    }

    /// The counters of all budgets are no longer to be trusted.
    pub fn unseed(&self) {
        self.lock().tenants.values_mut().for_each(Tenant::unseed);
    }

    /// A panic in the middle of a change is a defect that its task has reported; the others go on.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Acts on a tenant, known or new. `None`: it is new, and there is no room.
    fn with<T>(&mut self, now: u64, name: &Arc<str>, act: impl FnOnce(&mut Tenant) -> T) -> Option<T> {
        if self.accounts >= self.sweep_at.max(SWEEP_MIN) && now >= self.sweep_after {
            self.sweep(now);
        }
        if !self.tenants.contains_key(name) {
            self.admit(name)?;
        }
        let tenant = self.tenants.get_mut(name)?;
        let before = tenant.accounts();
        let done = act(tenant);
        self.accounts += tenant.accounts() - before;
        Some(done)
    }

    fn admit(&mut self, name: &Arc<str>) -> Option<()> {
        if self.accounts >= ACCOUNTS_MAX {
            return None;
        }
        self.accounts += 1;
        self.tenants.insert(name.clone(), Tenant::default());
        Some(())
    }

    /// Forgets idle accounts. The next look is when there are twice as many as are left, so that looking stays cheap.
    fn sweep(&mut self, now: u64) {
        self.tenants.retain(|_, tenant| !tenant.forget_idle(now));
        self.accounts = self.tenants.values().map(Tenant::accounts).sum();
        self.sweep_at = (self.accounts * 2).min(ACCOUNTS_MAX);
        self.sweep_after = now + SWEEP_EVERY_MS;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy;
    use crate::quota::suite::TestClock;
    use crate::quota::{Outcome, Quota, Quotas};
    use std::ops::Range;

    fn ask(tenant: usize) -> Reserve {
        let quota = Quota { requests_per_minute: Some(60_000), ..Quota::default() };
        let quotas = Quotas { tenant: Arc::new(quota), key: None };
        Reserve { id: entropy::request_id(), tenant: tenant.to_string().into(), key: None, quotas, tokens: 1, nano_usd: 0 }
    }

    /// A request of each tenant, begun and ended.
    fn pass(ledger: &MemoryLedger, tenants: Range<usize>) {
        for asked in tenants.map(ask) {
            assert!(matches!(ledger.reserve(&asked), Decision::Granted(_)));
            let outcome = Outcome::Used { tokens: 1, nano_usd: 0 };
            ledger.settle(&Settle { id: asked.id, tenant: asked.tenant, key: None, outcome });
        }
    }

    #[test]
    fn accounts_that_say_nothing_are_forgotten_once_they_are_many() {
        let clock = TestClock::default();
        let ledger = MemoryLedger::with_clock(clock.unix());
        let open = ask(0);
        ledger.reserve(&open);
        pass(&ledger, 1..2 * SWEEP_MIN);
        assert_eq!(ledger.lock().accounts, 2 * SWEEP_MIN, "no bucket has filled again");
        clock.advance(SWEEP_EVERY_MS);
        pass(&ledger, 2 * SWEEP_MIN..2 * SWEEP_MIN + 1);
        let accounts = ledger.lock().accounts;
        assert_eq!(accounts, 2, "the one that holds a reservation, and the new one");
        assert_eq!(ledger.look(&open.tenant, &[]).tenant.open, 1);
    }
}
