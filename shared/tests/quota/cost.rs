//! What a limited request costs in Redis's one thread: every window there is, of a tenant and of its key.

use super::connected;
use super::races::settle;
use super::server::RedisServer;
use shared::entropy::request_id;
use shared::quota::redis::RedisLedger;
use shared::quota::{Decision, Outcome, Quota, Quotas, Reserve, Seed, Settle, Totals};
use std::sync::Arc;

const ALL: &str = r#"{"requests_per_minute":1000000000,"tokens_per_minute":10000000000,"concurrency":1000000,"tokens_per_day":1000000000000,"usd_per_month":1000000}"#;

const REQUESTS: usize = 20_000;

fn asked(quota: &Arc<Quota>) -> Reserve {
    let quotas = Quotas { tenant: quota.clone(), key: Some(quota.clone()) };
    Reserve { id: request_id(), tenant: "tenant".into(), key: Some("key".into()), quotas, tokens: 300, nano_usd: 4_000 }
}

async fn seed(ledger: &RedisLedger) {
    let as_of = u64::try_from(shared::clock::unix().as_millis()).unwrap();
    let (totals, keys) = (Totals::default(), vec![("key".into(), Totals::default())]);
    let seed = Seed { tenant: "tenant".into(), totals, keys, as_of, counted: vec![], counted_from: as_of - 100_000, force: false };
    ledger.seed(&seed).await.unwrap();
}

fn ended(asked: &Reserve) -> Settle {
    Settle { key: asked.key.clone(), ..settle(asked, Outcome::Used { tokens: 280, nano_usd: 3_900 }) }
}

/// Microseconds of the server's in scripts, and how often it ran one.
async fn in_scripts(server: &RedisServer) -> (f64, f64) {
    let stats = server.answer(&["INFO", "commandstats"]).await;
    let line = stats.lines().find(|line| line.starts_with("cmdstat_evalsha:")).unwrap();
    let number = |name: &str| line.split([':', ',']).find_map(|part| part.strip_prefix(name)).unwrap().parse().unwrap();
    (number("usec="), number("calls="))
}

/// Each turn ends what the one before began, as under load.
async fn run(ledger: &RedisLedger, together: usize) {
    let quota = Arc::new(serde_json::from_str(ALL).unwrap());
    let mut open: Vec<Settle> = Vec::new();
    for _ in 0..REQUESTS / together {
        let asked: Vec<_> = (0..together).map(|_| asked(&quota)).collect();
        let turn = ledger.turn(&open, &asked).await.unwrap();
        assert!(turn.decisions.iter().all(|one| matches!(one, Decision::Granted(_))), "{turn:?}");
        open = asked.iter().map(ended).collect();
    }
}

#[tokio::test]
#[ignore = "a measurement"]
async fn what_a_request_costs_in_redis() {
    for together in [1, 4, 16, 64] {
        let server = RedisServer::start().await;
        let ledger = connected(&server, None).await;
        seed(&ledger).await;
        server.command(&["CONFIG", "RESETSTAT"]).await;
        run(&ledger, together).await;
        let (us, calls) = in_scripts(&server).await;
        eprintln!("{together} together: {:.1} µs a request, {:.1} µs a call", us / REQUESTS as f64, us / calls);
    }
}
