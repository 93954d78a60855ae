//! Many at once: over connections of their own, and on threads of their own.

use super::server::RedisServer;
use super::{PATIENT, connected};
use shared::clock;
use shared::entropy::{draw, request_id};
use shared::quota::redis::RedisLedger;
use shared::quota::{Decision, Outcome, Quotas, Reserve, Settle, Settled};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

const PARALLEL: usize = 20;

pub(crate) fn ask(tenant: &str, quota: &str, tokens: u64) -> Reserve {
    let quotas = Quotas { tenant: Arc::new(serde_json::from_str(quota).unwrap()), key: None };
    Reserve { id: request_id(), tenant: tenant.into(), key: None, quotas, tokens, nano_usd: 0 }
}

pub(crate) fn settle(asked: &Reserve, outcome: Outcome) -> Settle {
    Settle { id: asked.id, tenant: asked.tenant.clone(), key: None, outcome }
}

async fn ledgers(server: &RedisServer) -> Vec<Arc<RedisLedger>> {
    let mut ledgers = Vec::new();
    for _ in 0..PARALLEL {
        ledgers.push(Arc::new(connected(server, None).await));
    }
    ledgers
}

/// All ask at once for the same; returns those who were granted it.
async fn rush(ledgers: &[Arc<RedisLedger>], tenant: &str, quota: &'static str, tokens: u64) -> Vec<Reserve> {
    let mut rush = JoinSet::new();
    for ledger in ledgers {
        let (ledger, asked) = (ledger.clone(), ask(tenant, quota, tokens));
        rush.spawn(async move {
            let decisions = ledger.reserve(std::slice::from_ref(&asked)).await.unwrap();
            matches!(decisions[0], Decision::Granted(_)).then_some(asked)
        });
    }
    rush.join_all().await.into_iter().flatten().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_twenty_parallel_requests_for_the_last_of_anything_one_is_admitted() {
    let server = RedisServer::start().await;
    let ledgers = ledgers(&server).await;
    let quotas = [
        r#"{"requests_per_minute":1}"#,
        r#"{"tokens_per_minute":199}"#,
        r#"{"concurrency":1}"#,
        r#"{"tokens_per_minute":100,"requests_per_minute":50,"concurrency":9}"#,
    ];
    for quota in quotas {
        for _ in 0..25 {
            let tenant = draw().to_string();
            assert_eq!(rush(&ledgers, &tenant, quota, 100).await.len(), 1, "{quota}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_place_that_was_given_back_goes_to_one() {
    let server = RedisServer::start().await;
    let ledgers = ledgers(&server).await;
    for _ in 0..20 {
        let granted = rush(&ledgers, "tenant", r#"{"concurrency":1}"#, 1).await;
        assert_eq!(granted.len(), 1);
        let mut all = JoinSet::new();
        for ledger in &ledgers {
            let (ledger, ended) = (ledger.clone(), settle(&granted[0], Outcome::Refund));
            all.spawn(async move { ledger.settle(&[ended]).await.unwrap()[0] });
        }
        let settled = all.join_all().await;
        assert_eq!(settled.iter().filter(|one| matches!(one, Settled::Open { .. })).count(), 1, "it ends once");
    }
    assert_eq!(ledgers[0].look("tenant", &[]).await.unwrap().tenant.open, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_flood_admits_no_more_than_the_bucket_and_its_refill() {
    const QUOTA: &str = r#"{"requests_per_minute":6000,"request_burst":50}"#;
    let server = RedisServer::start().await;
    let ledgers = ledgers(&server).await;
    let began = clock::now();
    let mut flood = JoinSet::new();
    for ledger in ledgers {
        flood.spawn(async move {
            let mut granted = 0;
            while clock::now().since(began) < Duration::from_secs(1) {
                let asked: Vec<_> = (0..8).map(|_| ask("tenant", QUOTA, 1)).collect();
                let decisions = ledger.reserve(&asked).await.unwrap();
                granted += decisions.iter().filter(|one| matches!(one, Decision::Granted(_))).count();
            }
            granted
        });
    }
    let granted: usize = flood.join_all().await.into_iter().sum();
    let elapsed_ms = usize::try_from(clock::now().since(began).as_millis()).unwrap() + 1;
    assert!(granted <= 50 + elapsed_ms / 10, "{granted} in {elapsed_ms} ms");
    assert!(granted >= 50 + 900 / 10, "{granted} in {elapsed_ms} ms");
}

#[tokio::test]
async fn a_batch_is_answered_in_order_in_one_round_trip() {
    let server = RedisServer::start().await;
    let ledger = RedisLedger::open(&server.url(), PATIENT).unwrap();
    assert!(ledger.reserve(&[ask("tenant", "{}", 1)]).await.is_err(), "it is not connected");
    ledger.connect().await.unwrap();
    let asked: Vec<_> = [60, 50, 40].map(|tokens| ask("tenant", r#"{"tokens_per_minute":100}"#, tokens)).into();
    let decisions = ledger.reserve(&asked).await.unwrap();
    let granted: Vec<_> = decisions.iter().map(|one| matches!(one, Decision::Granted(_))).collect();
    assert_eq!(granted, [true, false, true]);
    assert_eq!(ledger.reserve(&[]).await.unwrap(), []);
}
