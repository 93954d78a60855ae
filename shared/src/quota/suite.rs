//! edge: what every ledger must do, as one suite of checks that both edges pass. Used by tests only.

mod budgets;
mod leases;
mod log;
mod oracle;
pub mod random;
mod rates;

use super::memory::{MemoryLedger, UnixClock};
use super::redis::RedisLedger;
use super::{Decision, Look, Outcome, Quota, Quotas, Refusal, Reserve, Seed, Seeded, Settle, Settled, Standing, Usage};
use crate::domain::RequestId;
use crate::entropy;
use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What both ledgers can do, for the suite's sake alone: their users need no common trait.
#[async_trait]
pub trait Ledger: Send + Sync {
    async fn reserve(&self, asked: &Reserve) -> Decision;
    async fn settle(&self, ended: &Settle) -> Settled;
    async fn renew(&self, tenant: &str, ids: &[RequestId]) -> usize;
    async fn seed(&self, seed: &Seed) -> Seeded;
    async fn look(&self, tenant: &str, keys: &[Arc<str>]) -> Look;
}

#[async_trait]
impl Ledger for MemoryLedger {
    async fn reserve(&self, asked: &Reserve) -> Decision {
        self.reserve(asked)
    }

    async fn settle(&self, ended: &Settle) -> Settled {
        self.settle(ended)
    }

    async fn renew(&self, tenant: &str, ids: &[RequestId]) -> usize {
        self.renew(tenant, ids)
    }

    async fn seed(&self, seed: &Seed) -> Seeded {
        self.seed(seed)
    }

    async fn look(&self, tenant: &str, keys: &[Arc<str>]) -> Look {
        self.look(tenant, keys)
    }
}

#[async_trait]
impl Ledger for RedisLedger {
    async fn reserve(&self, asked: &Reserve) -> Decision {
        self.reserve(std::slice::from_ref(asked)).await.expect("Redis answers").remove(0)
    }

    async fn settle(&self, ended: &Settle) -> Settled {
        self.settle(std::slice::from_ref(ended)).await.expect("Redis answers").remove(0)
    }

    async fn renew(&self, tenant: &str, ids: &[RequestId]) -> usize {
        self.renew(tenant, ids).await.expect("Redis answers")
    }

    async fn seed(&self, seed: &Seed) -> Seeded {
        self.seed(seed).await.expect("Redis answers")
    }

    async fn look(&self, tenant: &str, keys: &[Arc<str>]) -> Look {
        self.look(tenant, keys).await.expect("Redis answers")
    }
}

/// Noon of 30 November 2026, UTC: a day and a month end soon.
pub const NOON: u64 = 1_796_040_000_000;

/// The time of a test, which moves when told to.
#[derive(Clone)]
pub struct TestClock(Arc<AtomicU64>);

impl Default for TestClock {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(NOON)))
    }
}

impl TestClock {
    pub fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub fn advance(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::Relaxed);
    }

    fn set_back(&self, ms: u64) {
        self.0.fetch_sub(ms, Ordering::Relaxed);
    }

    fn to_the_last_second_of_the_day(&self) {
        self.advance(86_399_000 - self.now() % 86_400_000);
    }

    pub fn unix(&self) -> UnixClock {
        let at = self.0.clone();
        Arc::new(move || at.load(Ordering::Relaxed))
    }
}

type Check = (&'static str, fn(Desk) -> BoxFuture<'static, ()>);

macro_rules! checks {
    ($($module:ident::$name:ident),* $(,)?) => {
        &[$((stringify!($name), |desk| $module::$name(desk).boxed())),*]
    };
}

const CHECKS: &[Check] = checks![
    rates::a_bucket_admits_its_burst_and_then_its_refill,
    rates::tokens_are_taken_by_estimate,
    rates::what_is_larger_than_the_bucket_is_refused_for_good,
    rates::a_refusal_charges_nothing,
    rates::an_open_id_is_granted_again_for_nothing,
    rates::tenant_and_key_are_charged_together_or_not_at_all,
    rates::the_standing_is_the_tighter_one,
    rates::the_refusal_that_lasts_longest_is_told,
    rates::what_was_not_used_is_given_back,
    rates::an_overrun_is_reported_and_repaid_before_anybody_is_admitted,
    rates::a_refund_gives_everything_back,
    rates::a_settlement_counts_once,
    rates::a_new_quota_applies_at_once,
    rates::a_clock_that_goes_back_refills_nothing_twice,
    rates::a_clock_that_was_an_hour_ahead_does_not_stop_refills_for_an_hour,
    rates::tenants_are_apart_whatever_they_are_called,
    leases::places_come_back_when_requests_end,
    leases::a_lease_that_is_not_renewed_runs_out,
    leases::a_renewed_lease_lasts,
    leases::an_expired_reservation_stays_charged_to_the_rates,
    leases::many_leases_run_out_a_bounded_number_at_a_time,
    budgets::a_budget_is_not_kept_before_it_is_seeded,
    budgets::reserved_and_used_count_against_a_budget,
    budgets::an_exhausted_budget_says_when_its_period_ends,
    budgets::a_new_day_begins_with_what_is_held,
    budgets::a_new_month_needs_no_seed,
    budgets::an_expired_lease_unseeds,
    budgets::what_a_seed_counted_is_not_charged_again,
    budgets::what_a_seed_missed_is_added,
    budgets::what_is_open_and_counted_is_no_longer_held,
    budgets::an_unknown_settlement_is_charged_once,
    budgets::a_seed_of_another_day_is_not_taken,
    budgets::a_second_seed_changes_nothing_unless_forced,
    budgets::a_keys_budget_is_its_own,
    budgets::an_id_that_ran_twice_is_charged_once,
];

/// Runs every check, one after another.
///
/// # Panics
/// With the names of the checks that failed.
pub async fn run(ledger: Arc<dyn Ledger>, clock: &TestClock) {
    let mut failed = Vec::new();
    for (name, check) in CHECKS {
        let desk = Desk { ledger: ledger.clone(), clock: clock.clone(), tenant: format!("{name} {:x}", entropy::draw()).into() };
        if AssertUnwindSafe(check(desk)).catch_unwind().await.is_err() {
            failed.push(*name);
        }
    }
    assert!(failed.is_empty(), "the ledger breaks its contract: {failed:?}");
}

/// One tenant of one check.
#[derive(Clone)]
struct Desk {
    ledger: Arc<dyn Ledger>,
    clock: TestClock,
    tenant: Arc<str>,
}

/// A quota as the configuration would write it.
fn quota(json: &str) -> Arc<Quota> {
    Arc::new(serde_json::from_str(json).expect("a quota"))
}

fn of_tenant(json: &str) -> Quotas {
    Quotas { tenant: quota(json), key: None }
}

fn of_both(tenant: &str, key: &str) -> Quotas {
    Quotas { tenant: quota(tenant), key: Some(quota(key)) }
}

impl Desk {
    fn ask(&self, quotas: &Quotas, tokens: u64, nano_usd: u64) -> Reserve {
        let (id, key) = (entropy::request_id(), Some("key".into()));
        Reserve { id, tenant: self.tenant.clone(), key, quotas: quotas.clone(), tokens, nano_usd }
    }

    async fn decide(&self, quotas: &Quotas, tokens: u64) -> Decision {
        self.ledger.reserve(&self.ask(quotas, tokens, 0)).await
    }

    async fn grant(&self, quotas: &Quotas, tokens: u64) -> (RequestId, Standing) {
        let asked = self.ask(quotas, tokens, 0);
        match self.ledger.reserve(&asked).await {
            Decision::Granted(standing) => (asked.id, standing),
            other => panic!("{other:?}"),
        }
    }

    async fn refuse(&self, quotas: &Quotas, tokens: u64) -> Refusal {
        match self.decide(quotas, tokens).await {
            Decision::Refused(refusal) => refusal,
            other => panic!("{other:?}"),
        }
    }

    async fn settle(&self, id: RequestId, outcome: Outcome) -> Settled {
        self.ledger.settle(&Settle { id, tenant: self.tenant.clone(), key: Some("key".into()), outcome }).await
    }

    async fn used(&self, id: RequestId, tokens: u64) -> Settled {
        self.settle(id, Outcome::Used { tokens, nano_usd: 0 }).await
    }

    async fn usage(&self) -> Usage {
        self.ledger.look(&self.tenant, &[]).await.tenant
    }

    async fn key_usage(&self) -> Usage {
        self.ledger.look(&self.tenant, &["key".into()]).await.keys[0]
    }
}
