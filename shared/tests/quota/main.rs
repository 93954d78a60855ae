//! The ledger, in memory and in a real Redis: one suite, one oracle, races, and what happens when Redis is away.

mod away;
mod cost;
mod races;
mod server;
mod tls;
mod turns;

use server::RedisServer;
use shared::quota::memory::MemoryLedger;
use shared::quota::redis::RedisLedger;
use shared::quota::suite::{self, TestClock};
use std::sync::Arc;
use std::time::Duration;

/// Longer than a test machine under load keeps a call waiting.
const PATIENT: Duration = Duration::from_secs(20);

async fn connected(server: &RedisServer, clock: Option<&TestClock>) -> RedisLedger {
    let ledger = RedisLedger::open(&server.url(), PATIENT).unwrap();
    let ledger = match clock {
        Some(clock) => ledger.with_clock(clock.unix()),
        None => ledger,
    };
    ledger.connect().await.unwrap();
    ledger
}

#[tokio::test]
async fn the_memory_ledger_keeps_the_contract() {
    let clock = TestClock::default();
    suite::run(Arc::new(MemoryLedger::with_clock(clock.unix())), &clock).await;
}

#[tokio::test]
async fn the_redis_ledger_keeps_the_contract() {
    let (server, clock) = (RedisServer::start().await, TestClock::default());
    suite::run(Arc::new(connected(&server, Some(&clock)).await), &clock).await;
}

/// The first operations of a run, and how many of them the long run makes.
const SEED: u64 = 4;
const MILLION: usize = 1_000_000;

#[tokio::test]
async fn a_million_random_operations_in_memory_agree_with_the_oracle() {
    let clock = TestClock::default();
    let ledger = MemoryLedger::with_clock(clock.unix());
    suite::random::run(&ledger, &clock, SEED, MILLION).await;
}

#[tokio::test]
async fn random_operations_in_redis_agree_with_the_oracle() {
    let server = RedisServer::start().await;
    random_in_redis(&server, SEED, 10_000).await;
}

#[tokio::test]
#[ignore = "takes some minutes"]
async fn a_million_random_operations_in_redis_agree_with_the_oracle() {
    const RUNS: u64 = 8;
    let server = RedisServer::start().await;
    let runs = (SEED..SEED + RUNS).map(|seed| random_in_redis(&server, seed, MILLION / 8));
    futures::future::join_all(runs).await;
}

async fn random_in_redis(server: &RedisServer, seed: u64, operations: usize) {
    let clock = TestClock::default();
    let ledger = connected(server, Some(&clock)).await;
    suite::random::run(&ledger, &clock, seed, operations).await;
}
