//! Promise: a tenant with fifty times another's load does not take the other's turn. Figures are reported; only sanity is asserted,
//! since a shared machine's times mean little: the exact bounds are asserted in the simulation.

use crate::harness::{KEY, KEY_SMALL, Mill, report};
use loadtest::load::{self, Plan, Until};
use loadtest::work::{Check, Mode, Work};
use std::time::Duration;

/// Requests of the small tenant's one caller in each part.
const SMALL_REQUESTS: u64 = 150;
/// Callers of the big tenant: fifty times the small one's.
const BIG_CALLERS: usize = 50;
/// One array batch of 64 at the accelerator below.
const FULL_BATCH_MS: f64 = 5.0 + 64.0 * 0.15;
/// Far above what fair turns cost on a noisy machine, far below what waiting for fifty others costs.
const SLACK_MS: f64 = 500.0;

/// The small tenant's 95th percentile in milliseconds: alone, and beside the big one.
async fn small_p95_ms(mill: &Mill, work: &Work) -> (f64, f64) {
    let (small, big) = (mill.client_of(0, KEY_SMALL), mill.client_of(0, KEY));
    let small_plan = Plan::closed(1, Until::Requests(SMALL_REQUESTS));
    let alone = load::run(&small, work, small_plan).await;
    let flood = load::run(&big, work, Plan::closed(BIG_CALLERS, Until::Elapsed(Duration::from_secs(600))));
    let beside = tokio::select! {
        _ = flood => panic!("the big tenant ended first"),
        outcome = load::run(&small, work, small_plan) => outcome,
    };
    for outcome in [&alone, &beside] {
        assert!(outcome.failures.is_empty(), "{:?}", outcome.failures);
    }
    (alone.p95_ms(), beside.p95_ms())
}

fn work(mode: Mode, model: &str) -> Work {
    let texts = (0..100).map(|i| format!("xylocanary fairness {i}")).collect();
    let check = if mode == Mode::Chat { Check::Tag("tidemill".into()) } else { Check::Status };
    Work { mode, model: model.into(), inputs: 1, texts, check }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_tenant_waits_little_beside_a_big_one_on_an_array_backend() {
    let mill = Mill::up().sandbox(&["--a-ms", "5", "--b-ms", "0.15", "--concurrency", "1"]).start().await;
    let (alone, beside) = small_p95_ms(&mill, &work(Mode::Embed, "embed")).await;
    let target = 2.0f64.mul_add(FULL_BATCH_MS, alone);
    report("fairness-array", &format!("small tenant's p95: alone {alone:.1} ms, beside 50 callers {beside:.1} ms; target {target:.1} ms"));
    assert!(beside < target + SLACK_MS, "{beside:.1} ms beside the big tenant, {alone:.1} ms alone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_tenant_waits_little_beside_a_big_one_on_a_sequence_backend() {
    let mill = Mill::up().sandbox(&["--first-token-ms", "40", "--token-ms", "2"]).start().await;
    let (alone, beside) = small_p95_ms(&mill, &work(Mode::Chat, "chat")).await;
    let ratio = beside / alone;
    report(
        "fairness-sequence",
        &format!("small tenant's p95: alone {alone:.1} ms, beside 50 callers {beside:.1} ms; ratio {ratio:.2}, target 1.3"),
    );
    assert!(beside < alone + SLACK_MS, "{beside:.1} ms beside the big tenant, {alone:.1} ms alone");
}
