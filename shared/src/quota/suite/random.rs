//! edge: random operations on a ledger, each compared with the oracle.

use super::log::{LAG_MS, LISTED_MS};
use super::oracle::{Expected, Oracle, agrees};
use super::{Ledger, TestClock, of_both};
use crate::domain::RequestId;
use crate::entropy;
use crate::quota::{Amount, Decision, Outcome, Quotas, Reserve, Seed, Seeded, Settle, Settled, Whose};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::VecDeque;
use std::sync::Arc;
use uuid::Uuid;

/// Tenants with all kinds of limits, beside one another.
const QUOTAS: [(&str, &str); 5] = [
    (r#"{"requests_per_minute":600,"tokens_per_minute":300000}"#, r#"{"requests_per_minute":300,"request_burst":7}"#),
    (r#"{"tokens_per_minute":70001,"token_burst":2500}"#, r#"{"concurrency":9}"#),
    (r#"{"tokens_per_day":20000000,"concurrency":30}"#, r#"{"tokens_per_day":9000000,"tokens_per_minute":900000}"#),
    (r#"{"usd_per_day":90,"usd_per_month":130,"requests_per_minute":59}"#, r#"{"requests_per_minute":1000000}"#),
    (r#"{"concurrency":20}"#, r#"{"tokens_per_month":30000000,"usd_per_day":75.5,"requests_per_minute":9000}"#),
];

/// Fewer than a ledger ends in one call, so that the oracle need not know how many that is.
const OPEN_MAX: usize = 60;

/// Ended ids that may come up again.
const ENDED_MAX: usize = 64;

/// Runs `operations` operations chosen by `seed`.
///
/// # Panics
/// At the first disagreement, with the operation's number.
pub async fn run(ledger: &dyn Ledger, clock: &TestClock, seed: u64, operations: usize) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut tenants: Vec<_> = QUOTAS.iter().map(|(tenant, key)| Tenant::new(&of_both(tenant, key), clock.now())).collect();
    for operation in 0..operations {
        let _told = ToldIfItFails(operation);
        clock.advance(step_ms(&mut random));
        let tenant = &mut tenants[random.random_range(0..QUOTAS.len())];
        tenant.now = clock.now();
        tenant.oracle.advance(clock.now());
        tenant.operate(ledger, &mut random).await;
    }
}

/// Says which operation a panic was at.
struct ToldIfItFails(usize);

impl Drop for ToldIfItFails {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("at operation {}", self.0);
        }
    }
}

/// Mostly as fast as requests come; at times long enough for leases to run out, or for a day to end.
fn step_ms(random: &mut StdRng) -> u64 {
    match random.random_range(0..20_000) {
        0 => random.random_range(0..50_000_000),
        1..20 => random.random_range(0..40_000),
        20..15_000 => random.random_range(0..20),
        _ => 0,
    }
}

struct Tenant {
    name: Arc<str>,
    quotas: Quotas,
    oracle: Oracle,
    now: u64,
    ended: VecDeque<(u64, RequestId)>,
}

impl Tenant {
    fn new(quotas: &Quotas, now: u64) -> Self {
        let key = quotas.key.as_deref().cloned().unwrap_or_default();
        let oracle = Oracle::new((*quotas.tenant).clone(), key, now);
        Self { name: format!("{:x}", entropy::draw()).into(), quotas: quotas.clone(), oracle, now, ended: VecDeque::new() }
    }

    async fn operate(&mut self, ledger: &dyn Ledger, random: &mut StdRng) {
        let open = self.oracle.open_ids();
        let any = open.get(random.random_range(0..open.len().max(1))).copied();
        let ended = self.an_ended(random);
        match random.random_range(0..100) {
            0..45 if open.len() < OPEN_MAX => self.reserve(ledger, random, None).await,
            45..48 => self.reserve(ledger, random, any).await,
            48..50 if open.len() < OPEN_MAX => self.reserve(ledger, random, ended).await,
            50..53 => self.settle(ledger, random, ended).await,
            53..56 => self.write_early(random, any),
            56..60 => self.renew(ledger, &open).await,
            60..61 => self.seed(ledger, random.random_bool(0.5)).await,
            61..66 => {}
            _ => self.settle(ledger, random, any).await,
        }
        self.look(ledger).await;
    }

    /// One that has ended lately enough to be remembered.
    fn an_ended(&self, random: &mut StdRng) -> Option<RequestId> {
        let (at, id) = *self.ended.get(random.random_range(0..self.ended.len().max(1)))?;
        (at + LISTED_MS - 2 * LAG_MS > self.now).then_some(id)
    }

    async fn reserve(&mut self, ledger: &dyn Ledger, random: &mut StdRng, again: Option<RequestId>) {
        let id = again.unwrap_or_else(|| RequestId(Uuid::from_u128(random.random())));
        let amount = Amount { tokens: random.random_range(0..3_000), nano_usd: random.random_range(0..10_000_000) };
        let (tenant, quotas) = (self.name.clone(), self.quotas.clone());
        let asked = Reserve { id, tenant, key: Some("key".into()), quotas, tokens: amount.tokens, nano_usd: amount.nano_usd };
        let decision = ledger.reserve(&asked).await;
        match (&decision, self.oracle.reserve(id, amount)) {
            (Decision::Granted(_), Expected::Granted) => {}
            (Decision::Refused(refusal), Expected::Refused(all)) if agrees(refusal, &all) => {}
            (Decision::Unseeded, Expected::Unseeded) => self.seed(ledger, false).await,
            (_, Expected::Refused(all)) => panic!("{decision:?} instead of a refusal of {all:?}"),
            (_, Expected::Granted) => panic!("{decision:?} instead of a grant"),
            (_, Expected::Unseeded) => panic!("{decision:?} instead of asking for a seed"),
        }
    }

    async fn settle(&mut self, ledger: &dyn Ledger, random: &mut StdRng, id: Option<RequestId>) {
        let Some(id) = id else { return };
        let drawn = Amount { tokens: random.random_range(0..4_000), nano_usd: random.random_range(0..14_000_000) };
        let written = self.oracle.log.amount(id);
        let Amount { tokens, nano_usd } = written.unwrap_or(drawn);
        let refunded = written.is_none() && random.random_bool(0.3);
        let outcome = if refunded { Outcome::Refund } else { Outcome::Used { tokens, nano_usd } };
        if !refunded {
            self.oracle.log.write(id, Amount { tokens, nano_usd }, random.random_range(0..LAG_MS));
        }
        let was_known = self.oracle.log.is_known(id);
        let settled = ledger.settle(&Settle { id, tenant: self.name.clone(), key: Some("key".into()), outcome }).await;
        match (settled, self.oracle.settle(id, outcome)) {
            (Settled::Open { overrun }, Some(expected)) => assert_eq!(overrun, expected),
            (Settled::Unknown, None) => assert!(!refunded && (!was_known || !self.oracle.has_budget()), "charged twice"),
            (Settled::Again, None) => assert!(refunded || was_known, "not charged"),
            (settled, expected) => panic!("{settled:?} instead of {expected:?}"),
        }
        if !was_known {
            self.end(id);
        }
    }

    fn end(&mut self, id: RequestId) {
        self.ended.push_back((self.now, id));
        if self.ended.len() > ENDED_MAX {
            self.ended.pop_front();
        }
    }

    /// The log may know of a request's end before the ledger does. (Not at midnight, when they may differ about its day.)
    fn write_early(&mut self, random: &mut StdRng, id: Option<RequestId>) {
        let Some(id) = id else { return };
        let (to_midnight, _) = self.oracle.log.until_ends();
        if to_midnight > 2 * LISTED_MS {
            let amount = Amount { tokens: random.random_range(0..4_000), nano_usd: random.random_range(0..14_000_000) };
            self.oracle.log.write(id, amount, random.random_range(0..LAG_MS));
            self.end(id);
        }
    }

    async fn renew(&mut self, ledger: &dyn Ledger, open: &[RequestId]) {
        let half: Vec<_> = open.iter().step_by(2).copied().collect();
        assert_eq!(ledger.renew(&self.name, &half).await, half.len());
        half.into_iter().for_each(|id| self.oracle.renew(id));
    }

    async fn seed(&mut self, ledger: &dyn Ledger, force: bool) {
        let (totals, counted) = (self.oracle.log.totals(), self.oracle.log.listed());
        let keys = vec![("key".into(), totals)];
        let counted_from = self.now - LISTED_MS;
        let seed = Seed { tenant: self.name.clone(), totals, keys, as_of: self.now, counted, counted_from, force };
        assert_ne!(ledger.seed(&seed).await, Seeded::OfAnotherDay);
        self.oracle.seed(force);
    }

    async fn look(&self, ledger: &dyn Ledger) {
        let look = ledger.look(&self.name, &["key".into()]).await;
        self.oracle.check(Whose::Tenant, &look.tenant);
        self.oracle.check(Whose::Key, &look.keys[0]);
    }
}
