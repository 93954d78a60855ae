//! The stated rule for a Redis that is killed, flushed, paused or slow: see `quota/fallback.rs`.

mod proxy;

use super::PATIENT;
use super::races::{ask, settle};
use super::server::RedisServer;
use proxy::Proxy;
use shared::clock;
use shared::quota::fallback::{GRACE, SharedLedger};
use shared::quota::redis::{RedisLedger, TIMEOUT};
use shared::quota::{Decision, Outcome, Reason, Reserve, Seed, Seeded, Settled, Totals, Whose};
use std::time::Duration;
use tokio::time::{sleep, timeout};

const RATE: &str = r#"{"requests_per_minute":1,"request_burst":3}"#;
const BUDGET: &str = r#"{"tokens_per_day":1000}"#;

/// One timeout, and what a busy machine adds.
const BOUND: Duration = Duration::from_millis(TIMEOUT.as_millis() as u64 + 250);

async fn start(url: &str, call_max: Duration) -> SharedLedger {
    SharedLedger::start(RedisLedger::open(url, call_max).unwrap(), GRACE).await
}

/// A ledger whose Redis is there.
async fn connected(url: &str, call_max: Duration) -> SharedLedger {
    let ledger = start(url, call_max).await;
    becomes(&ledger, false).await;
    ledger
}

/// Asks, and sees that the answer comes within the bound.
async fn decide(ledger: &SharedLedger, asked: &Reserve) -> Decision {
    let began = clock::now();
    let decision = ledger.turn(&[], std::slice::from_ref(asked)).await.decisions.remove(0);
    let waited = clock::now().since(began);
    assert!(waited < BOUND, "{waited:?}");
    decision
}

async fn is_granted(ledger: &SharedLedger, quota: &str) -> bool {
    matches!(decide(ledger, &ask("tenant", quota, 10)).await, Decision::Granted(_))
}

async fn is_unseeded(ledger: &SharedLedger) -> bool {
    decide(ledger, &ask("tenant", BUDGET, 10)).await == Decision::Unseeded
}

async fn seed(ledger: &SharedLedger) -> Seeded {
    let now = u64::try_from(clock::unix().as_millis()).unwrap();
    let (totals, keys, counted) = (Totals::default(), vec![], vec![]);
    ledger.seed(&Seed { tenant: "tenant".into(), totals, keys, as_of: now, counted, counted_from: now - 100_000, force: false }).await
}

async fn becomes(ledger: &SharedLedger, is_away: bool) {
    let awaited = async {
        while ledger.is_away() != is_away {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENT, awaited).await.expect("it is found in time");
}

#[tokio::test]
async fn a_killed_redis_is_replaced_by_this_process_until_it_is_back() {
    let mut server = RedisServer::start().await;
    let ledger = connected(&server.url(), PATIENT).await;
    assert!(is_unseeded(&ledger).await);
    assert_eq!(seed(&ledger).await, Seeded::Done);
    assert!(is_granted(&ledger, BUDGET).await);

    server.kill().await;
    assert!(is_unseeded(&ledger).await, "what this process knows of budgets is nothing yet");
    assert!(ledger.is_away());
    assert_eq!(seed(&ledger).await, Seeded::Done);
    let here = ask("tenant", BUDGET, 10);
    assert!(matches!(decide(&ledger, &here).await, Decision::Granted(_)));
    for _ in 0..3 {
        assert!(matches!(decide(&ledger, &ask("other", RATE, 1)).await, Decision::Granted(_)));
    }
    assert!(matches!(decide(&ledger, &ask("other", RATE, 1)).await, Decision::Refused(_)), "rates are kept");

    server.restart().await;
    becomes(&ledger, false).await;
    assert!(is_unseeded(&ledger).await);
    assert_eq!(seed(&ledger).await, Seeded::Done);
    assert!(is_granted(&ledger, BUDGET).await);
    let settled = ledger.turn(&[settle(&here, Outcome::Used { tokens: 15, nano_usd: 0 })], &[]).await.settled;
    assert_eq!(settled, [Settled::Open { overrun: 5 }], "it was open in this process");
    let tenant = ledger.look("tenant", &[]).await.tenant;
    assert_eq!((tenant.open, tenant.settled.unwrap().day.tokens), (1, 15), "and Redis charges it once");
}

#[tokio::test]
async fn a_flushed_redis_asks_for_seeds_and_forgets_no_settlement() {
    let server = RedisServer::start().await;
    let ledger = connected(&server.url(), PATIENT).await;
    seed(&ledger).await;
    let open = ask("tenant", BUDGET, 10);
    assert!(matches!(decide(&ledger, &open).await, Decision::Granted(_)));
    server.command(&["FLUSHALL"]).await;
    server.command(&["SCRIPT", "FLUSH"]).await;
    assert!(is_unseeded(&ledger).await);
    assert_eq!(ledger.turn(&[settle(&open, Outcome::Used { tokens: 7, nano_usd: 0 })], &[]).await.settled, [Settled::Unknown]);
    assert_eq!(seed(&ledger).await, Seeded::Done);
    assert_eq!(ledger.look("tenant", &[]).await.tenant.settled.unwrap().day.tokens, 7);
    assert!(!ledger.is_away());
}

#[tokio::test]
async fn a_paused_redis_costs_one_timeout_and_then_nothing() {
    let server = RedisServer::start().await;
    let ledger = connected(&server.url(), TIMEOUT).await;
    seed(&ledger).await;
    assert!(is_granted(&ledger, BUDGET).await);
    server.signal("STOP").await;
    assert!(is_granted(&ledger, RATE).await);
    assert!(ledger.is_away());
    let began = clock::now();
    for _ in 0..100 {
        decide(&ledger, &ask("tenant", RATE, 1)).await;
    }
    assert!(clock::now().since(began) < TIMEOUT, "nobody waits for a Redis that is known to be away");
    assert!(is_unseeded(&ledger).await);
    server.signal("CONT").await;
    becomes(&ledger, false).await;
    assert!(is_unseeded(&ledger).await, "its counters are there, and may have missed something");
    assert_eq!(seed(&ledger).await, Seeded::Done, "by force");
    assert!(is_granted(&ledger, BUDGET).await);
}

#[tokio::test]
async fn where_only_a_key_has_a_budget_only_the_key_is_shut() {
    let mut server = RedisServer::start().await;
    let ledger = SharedLedger::start(RedisLedger::open(&server.url(), PATIENT).unwrap(), Duration::ZERO).await;
    becomes(&ledger, false).await;
    server.kill().await;
    assert!(is_granted(&ledger, RATE).await);
    let shut = async |asked: Reserve| match decide(&ledger, &asked).await {
        Decision::Refused(refusal) => (refusal.reason, refusal.whose),
        other => panic!("{other:?}"),
    };
    let mut of_key = ask("tenant", RATE, 10);
    of_key.key = Some("key".into());
    of_key.quotas.key = Some(ask("", BUDGET, 0).quotas.tenant);
    assert_eq!(shut(of_key).await, (Reason::Unavailable, Whose::Key));
    assert_eq!(shut(ask("tenant", BUDGET, 10)).await, (Reason::Unavailable, Whose::Tenant));
}

#[tokio::test]
async fn a_slow_redis_is_waited_for_within_the_timeout_and_not_beyond() {
    let server = RedisServer::start().await;
    let proxy = Proxy::start(server.port()).await;
    let ledger = connected(&proxy.url(), TIMEOUT).await;
    proxy.delay(Duration::from_millis(200));
    assert!(is_granted(&ledger, RATE).await);
    assert!(!ledger.is_away(), "200 ms are within the timeout");
    proxy.delay(Duration::from_millis(400));
    assert!(is_granted(&ledger, RATE).await);
    assert!(ledger.is_away());
    proxy.delay(Duration::ZERO);
    becomes(&ledger, false).await;
    assert_eq!(ledger.look("tenant", &[]).await.tenant.requests, 2, "the second request had reached it");
}

#[tokio::test]
async fn a_ledger_starts_without_its_redis() {
    let mut server = RedisServer::start().await;
    server.kill().await;
    let ledger = start(&server.url(), PATIENT).await;
    assert!(ledger.is_away() && is_granted(&ledger, RATE).await);
    server.restart().await;
    becomes(&ledger, false).await;
    assert!(is_granted(&ledger, RATE).await);
}

#[tokio::test]
async fn a_redis_that_may_not_be_written_is_away_until_it_may() {
    let server = RedisServer::start().await;
    let ledger = connected(&server.url(), TIMEOUT).await;
    server.command(&["REPLICAOF", "127.0.0.1", "1"]).await;
    assert!(is_granted(&ledger, RATE).await);
    for _ in 0..15 {
        sleep(Duration::from_millis(100)).await; // Longer than it takes to look for it again.
        assert!(ledger.is_away(), "it answers, and takes nothing");
    }
    server.command(&["REPLICAOF", "NO", "ONE"]).await;
    becomes(&ledger, false).await;
}
