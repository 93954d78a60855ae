//! The ledger, in memory and in a real Redis: one suite, one oracle, races, and what happens when Redis is away.

mod server;

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
