//! edge: the ledger in Redis, and what holds while Redis is away. No request waits for it longer than one timeout.
//!
//! A call that fails marks Redis away; until a probe has found it again, nobody asks it. Meanwhile rates and concurrency
//! are kept by this process alone, from full buckets: each process may admit one bucket more, and its refill. Budgets go
//! on for a grace by the usage log and what this process adds to it, then whoever has one is refused. When Redis is
//! back, a tenant that was served meanwhile is seeded by force before its budgets count. What was admitted here does not
//! count in Redis's concurrency; what ended here stays open there until its lease runs out.

mod rule;

use self::rule::Rule;
use super::memory::MemoryLedger;
use super::redis::{Away, RedisLedger};
use super::{Decision, Look, Quota, Refusal, Reserve, Seed, Seeded, Settle, Settled, Turn, Whose};
use crate::clock;
use crate::domain::RequestId;
use crate::task::{self, Guarded};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::sleep;

/// How long budgets go on without Redis unless the configuration says otherwise.
pub const GRACE: Duration = Duration::from_secs(60);

/// Between two looks for a Redis that is away.
const PROBE_EVERY: Duration = Duration::from_millis(500);

/// When to try again with a budget that cannot be kept.
const UNAVAILABLE_RETRY_MS: u32 = 5_000;

/// A ledger that many processes share, and that goes on without them.
pub struct SharedLedger {
    inner: Arc<Inner>,
    _probe: Guarded,
}

struct Inner {
    redis: RedisLedger,
    local: MemoryLedger,
    rule: Mutex<Rule>,
    lost: Notify,
}

impl SharedLedger {
    /// Connects, once. A Redis that is away is looked for from then on; the ledger works at once.
    /// `grace`: how long budgets go on without it.
    pub async fn start(redis: RedisLedger, grace: Duration) -> Self {
        let rule = Mutex::new(Rule::new(grace));
        let inner = Arc::new(Inner { redis, local: MemoryLedger::default(), rule, lost: Notify::new() });
        if let Err(away) = inner.redis.connect().await {
            inner.lose(&away);
        }
        let probe = task::spawn_guarded("redis probe", probe(inner.clone()));
        Self { inner, _probe: probe }
    }

    /// Whether Redis is away, and limits are kept by this process alone.
    pub fn is_away(&self) -> bool {
        self.inner.rule().is_away()
    }

    /// Settles, then reserves: see [`RedisLedger::turn`].
    pub async fn turn(&self, ended: &[Settle], asked: &[Reserve]) -> Turn {
        if !self.inner.rule().has_stale() {
            return self.inner.turn(ended, asked).await;
        }
        let is_stale: Vec<bool> = asked.iter().map(|one| self.inner.must_seed(one)).collect();
        let known: Vec<_> = asked.iter().zip(&is_stale).filter(|(_, is_stale)| !**is_stale).map(|(one, _)| one.clone()).collect();
        let Turn { settled, decisions } = self.inner.turn(ended, &known).await;
        let mut decisions = decisions.into_iter();
        let decision = |is_stale| if is_stale { Some(Decision::Unseeded) } else { decisions.next() };
        Turn { settled, decisions: is_stale.into_iter().filter_map(decision).collect() }
    }

    /// Keeps reservations of a tenant for another [`super::LEASE_MS`]. Returns how many of them are open.
    pub async fn renew(&self, tenant: &str, ids: &[RequestId]) -> usize {
        let here = self.inner.local.renew(tenant, ids);
        here + self.inner.reach(self.inner.redis.renew(tenant, ids)).await.unwrap_or(0)
    }

    pub async fn seed(&self, seed: &Seed) -> Seeded {
        let force = seed.force || self.inner.rule().is_stale(&seed.tenant);
        let seed = Seed { force, ..seed.clone() };
        let Some(seeded) = self.inner.reach(self.inner.redis.seed(&seed)).await else { return self.inner.local.seed(&seed) };
        if seeded == Seeded::Done {
            self.inner.rule().freshen(&seed.tenant);
        }
        seeded
    }

    pub async fn look(&self, tenant: &str, keys: &[Arc<str>]) -> Look {
        let there = self.inner.reach(self.inner.redis.look(tenant, keys)).await;
        there.unwrap_or_else(|| self.inner.local.look(tenant, keys))
    }
}

impl Inner {
    /// What was reserved in this process while Redis was away ends here, whoever settles the rest.
    async fn turn(&self, ended: &[Settle], asked: &[Reserve]) -> Turn {
        let here: Vec<_> = ended.iter().map(|one| self.local.settle_open(one)).collect();
        match self.reach(self.redis.turn(ended, asked)).await {
            Some(Turn { settled, decisions }) => {
                let settled = here.into_iter().zip(settled).map(|(here, there)| here.unwrap_or(there)).collect();
                Turn { settled, decisions }
            }
            None => Turn {
                settled: ended.iter().zip(here).map(|(one, here)| self.settle_here(one, here)).collect(),
                decisions: asked.iter().map(|one| self.reserve_here(one)).collect(),
            },
        }
    }

    /// Redis's answer, unless it is away or goes away over this.
    async fn reach<T>(&self, call: impl Future<Output = Result<T, Away>>) -> Option<T> {
        if self.rule().is_away() {
            return None;
        }
        call.await.inspect_err(|away| self.lose(away)).ok()
    }

    fn reserve_here(&self, one: &Reserve) -> Decision {
        if has_budget(one) {
            let mut rule = self.rule();
            rule.mark(&one.tenant);
            if !rule.keeps_budgets(clock::now()) {
                return Decision::Refused(unavailable(one));
            }
        }
        self.local.reserve(one)
    }

    fn settle_here(&self, one: &Settle, local: Option<Settled>) -> Settled {
        self.rule().mark(&one.tenant);
        local.unwrap_or_else(|| self.local.settle(one))
    }

    /// Redis is there, and what it knows of the tenant's budgets is not all that happened.
    fn must_seed(&self, one: &Reserve) -> bool {
        let rule = self.rule();
        !rule.is_away() && has_budget(one) && rule.is_stale(&one.tenant)
    }

    /// A call failed. One that was still under way over a connection given up before says nothing about the present one.
    fn lose(&self, away: &Away) {
        if self.redis.is_connected() || !self.rule().went(clock::now()) {
            return;
        }
        tracing::warn!(error = %away, "Redis is away: limits are kept by this process alone");
        self.local.unseed();
        self.lost.notify_one();
    }

    fn rule(&self) -> MutexGuard<'_, Rule> {
        self.rule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where only the key has a budget, only the key is shut.
fn unavailable(one: &Reserve) -> Refusal {
    let whose = if one.quotas.tenant.has_budget() { Whose::Tenant } else { Whose::Key };
    Refusal { retry_after_ms: Some(UNAVAILABLE_RETRY_MS), ..Refusal::unavailable(whose) }
}

fn has_budget(one: &Reserve) -> bool {
    one.quotas.tenant.has_budget() || one.quotas.key.as_deref().is_some_and(Quota::has_budget)
}

async fn probe(inner: Arc<Inner>) {
    loop {
        inner.lost.notified().await;
        loop {
            sleep(PROBE_EVERY).await;
            if inner.redis.connect().await.is_ok() {
                break;
            }
        }
        inner.rule().came_back();
        tracing::info!("Redis is back");
    }
}
