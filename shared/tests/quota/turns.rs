//! What comes to Redis together is done as if it had come one by one: each turn is compared with the ledger in memory, which
//! takes its operations singly.

use super::races::{ask, settle};
use super::server::RedisServer;
use super::{PATIENT, connected};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shared::domain::RequestId;
use shared::quota::memory::MemoryLedger;
use shared::quota::redis::RedisLedger;
use shared::quota::suite::TestClock;
use shared::quota::{Amount, Decision, Outcome, Quota, Quotas, Reserve, Seed, Settle, Settled, Totals};
use std::sync::Arc;
use uuid::Uuid;

const SEED: u64 = 11;
const TURNS: usize = 1_500;

/// More than one call holds, at times.
const TOGETHER_MAX: usize = 200;

/// Fewer than run out of time in one operation.
const KNOWN_MAX: usize = 60;

/// By tenant: its quota and its key's.
const QUOTAS: [[&str; 2]; 3] = [
    [
        r#"{"requests_per_minute":60000,"tokens_per_minute":30000000}"#,
        r#"{"requests_per_minute":30000,"request_burst":70,"concurrency":90}"#,
    ],
    [r#"{"tokens_per_day":9000000,"usd_per_month":500,"concurrency":50}"#, r#"{"tokens_per_minute":9000000,"tokens_per_day":7000000}"#],
    [r#"{}"#, r#"{"tokens_per_month":20000000}"#],
];

struct Both {
    memory: MemoryLedger,
    redis: RedisLedger,
    clock: TestClock,
    random: StdRng,
    quotas: Vec<[Arc<Quota>; 2]>,
    /// Ids that were asked for, lately, and whose.
    known: Vec<(usize, RequestId)>,
    /// Those that are known no longer, and are to end: what runs out of time does so a bounded number at a time.
    left: Vec<(usize, RequestId)>,
    granted: usize,
    refused: usize,
}

fn tenant(index: usize) -> Arc<str> {
    format!("tenant {index}").into()
}

impl Both {
    fn new(redis: RedisLedger, clock: TestClock) -> Self {
        let quota = |json: &str| Arc::new(serde_json::from_str(json).unwrap());
        let quotas = QUOTAS.iter().map(|both| both.map(quota)).collect();
        let (memory, random) = (MemoryLedger::with_clock(clock.unix()), StdRng::seed_from_u64(SEED));
        Self { memory, redis, clock, random, quotas, known: Vec::new(), left: Vec::new(), granted: 0, refused: 0 }
    }

    fn drawn(&mut self) -> Option<(usize, RequestId)> {
        let place = self.random.random_range(0..self.known.len().max(1));
        self.known.get(place).copied()
    }

    fn ends(&mut self) -> Option<Settle> {
        let (index, id) = self.left.pop().or_else(|| self.drawn())?;
        let (tokens, nano_usd) = (self.random.random_range(0..4_000), self.random.random_range(0..10_000_000));
        let outcome = if self.random.random_bool(0.3) { Outcome::Refund } else { Outcome::Used { tokens, nano_usd } };
        Some(Settle { id, tenant: tenant(index), key: Some("key".into()), outcome })
    }

    fn asks(&mut self) -> Reserve {
        let again = if self.random.random_bool(0.1) { self.drawn() } else { None };
        let new = (self.random.random_range(0..QUOTAS.len()), RequestId(Uuid::from_u128(self.random.random())));
        let (index, id) = again.unwrap_or(new);
        if again.is_none() {
            self.known.push(new);
        }
        let [of_tenant, of_key] = self.quotas[index].clone();
        let key = self.random.random_bool(0.8).then_some(of_key);
        let (tokens, nano_usd) = (self.random.random_range(0..3_000), self.random.random_range(0..8_000_000));
        Reserve { id, tenant: tenant(index), key: Some("key".into()), quotas: Quotas { tenant: of_tenant, key }, tokens, nano_usd }
    }

    async fn turn(&mut self) {
        let count = self.random.random_range(0..TOGETHER_MAX);
        let ended: Vec<_> = (0..count + self.left.len()).filter_map(|_| self.ends()).collect();
        let asked: Vec<_> = (0..count).map(|_| self.asks()).collect();
        let turn = self.redis.turn(&ended, &asked).await.unwrap();
        let settled: Vec<Settled> = ended.iter().map(|one| self.memory.settle(one)).collect();
        let decisions: Vec<Decision> = asked.iter().map(|one| self.memory.reserve(one)).collect();
        assert_eq!(turn.settled, settled);
        assert_eq!(turn.decisions, decisions);
        self.granted += decisions.iter().filter(|one| matches!(one, Decision::Granted(_))).count();
        self.refused += decisions.iter().filter(|one| matches!(one, Decision::Refused(_))).count();
        for index in 0..QUOTAS.len() {
            if asked.iter().zip(&decisions).any(|(one, no)| *no == Decision::Unseeded && one.tenant == tenant(index)) {
                self.seed(index).await;
            }
        }
        self.left = self.known.drain(..self.known.len().saturating_sub(KNOWN_MAX)).collect();
    }

    async fn seed(&mut self, index: usize) {
        let day = Amount { tokens: self.random.random_range(0..1_000_000), nano_usd: 5 };
        let (totals, now) = (Totals { day, month: day }, self.clock.now());
        let counted = self.known.iter().filter(|(of, _)| *of == index).map(|(_, id)| *id).step_by(3).collect();
        let keys = vec![("key".into(), totals)];
        let seed = Seed { tenant: tenant(index), totals, keys, as_of: now, counted, counted_from: now - 60_000, force: false };
        assert_eq!(self.redis.seed(&seed).await.unwrap(), self.memory.seed(&seed));
    }

    async fn look(&self) {
        for index in 0..QUOTAS.len() {
            let keys = ["key".into()];
            assert_eq!(self.redis.look(&tenant(index), &keys).await.unwrap(), self.memory.look(&tenant(index), &keys), "tenant {index}");
        }
    }
}

#[tokio::test]
async fn what_comes_together_is_done_as_if_it_came_one_by_one() {
    let (server, clock) = (RedisServer::start().await, TestClock::default());
    let mut both = Both::new(connected(&server, Some(&clock)).await, clock);
    for turn in 0..TURNS {
        let step = if turn % 100 == 99 { 31_000 } else { both.random.random_range(0..50) };
        both.clock.advance(step);
        both.turn().await;
        both.look().await;
    }
    assert!(both.granted > TURNS && both.refused > TURNS, "{} granted, {} refused", both.granted, both.refused);
}

#[tokio::test]
async fn what_a_tenant_gives_back_is_there_for_those_who_ask_with_it() {
    let server = RedisServer::start().await;
    let ledger = RedisLedger::open(&server.url(), PATIENT).unwrap();
    ledger.connect().await.unwrap();
    let [first, second] = [(); 2].map(|()| ask("tenant", r#"{"concurrency":1}"#, 1));
    assert!(matches!(ledger.reserve(std::slice::from_ref(&first)).await.unwrap()[0], Decision::Granted(_)));
    let turn = ledger.turn(&[settle(&first, Outcome::Refund)], &[second]).await.unwrap();
    assert!(matches!(turn.decisions[0], Decision::Granted(_)), "{turn:?}");
}
