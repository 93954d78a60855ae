//! edge: what a ledger does about requests and tokens per minute.

use super::{Desk, of_both, of_tenant};
use crate::quota::{Decision, Outcome, Reason, Settled, Whose, Window};

pub(super) async fn a_bucket_admits_its_burst_and_then_its_refill(desk: Desk) {
    let quotas = of_tenant(r#"{"requests_per_minute":60,"request_burst":3}"#);
    for left in [2, 1, 0] {
        let (_, standing) = desk.grant(&quotas, 1).await;
        assert_eq!(standing.requests, Some(Window { limit: 3, remaining: left, reset_ms: 1_000 * (3 - left as u32) }));
        assert_eq!(standing.tokens, None);
    }
    let refusal = desk.refuse(&quotas, 1).await;
    assert_eq!((refusal.reason, refusal.whose, refusal.retry_after_ms), (Reason::Requests, Whose::Tenant, Some(1_000)));
    assert!(!refusal.is_exhausted());
    desk.clock.advance(999);
    assert_eq!(desk.refuse(&quotas, 1).await.retry_after_ms, Some(1));
    desk.clock.advance(1);
    desk.grant(&quotas, 1).await;
    desk.refuse(&quotas, 1).await;
}

pub(super) async fn tokens_are_taken_by_estimate(desk: Desk) {
    let quotas = of_tenant(r#"{"tokens_per_minute":6000}"#);
    let (_, standing) = desk.grant(&quotas, 5_900).await;
    assert_eq!(standing.tokens, Some(Window { limit: 6_000, remaining: 100, reset_ms: 59_000 }));
    let refusal = desk.refuse(&quotas, 101).await;
    assert_eq!((refusal.reason, refusal.retry_after_ms), (Reason::Tokens, Some(10)));
    desk.grant(&quotas, 100).await;
}

pub(super) async fn what_is_larger_than_the_bucket_is_refused_for_good(desk: Desk) {
    let quotas = of_tenant(r#"{"tokens_per_minute":6000,"token_burst":100}"#);
    assert_eq!(desk.refuse(&quotas, 101).await.retry_after_ms, None);
    assert_eq!(desk.refuse(&quotas, u64::MAX).await.retry_after_ms, None);
    desk.grant(&quotas, 100).await;
}

pub(super) async fn a_refusal_charges_nothing(desk: Desk) {
    let quotas = of_tenant(r#"{"requests_per_minute":600,"tokens_per_minute":100,"concurrency":5}"#);
    desk.grant(&quotas, 60).await;
    let before = desk.usage().await;
    desk.refuse(&quotas, 41).await;
    assert_eq!(desk.usage().await, before);
}

pub(super) async fn an_open_id_is_granted_again_for_nothing(desk: Desk) {
    let asked = desk.ask(&of_tenant(r#"{"requests_per_minute":1,"tokens_per_minute":10,"concurrency":1}"#), 10, 0);
    let first = desk.ledger.reserve(&asked).await;
    let before = desk.usage().await;
    assert!(matches!(first, Decision::Granted(_)));
    assert_eq!(desk.ledger.reserve(&asked).await, first);
    assert_eq!(desk.usage().await, before);
}

pub(super) async fn tenant_and_key_are_charged_together_or_not_at_all(desk: Desk) {
    let quotas = of_both(r#"{"requests_per_minute":10}"#, r#"{"requests_per_minute":1}"#);
    desk.grant(&quotas, 1).await;
    let refusal = desk.refuse(&quotas, 1).await;
    assert_eq!((refusal.reason, refusal.whose), (Reason::Requests, Whose::Key));
    assert_eq!((desk.usage().await.requests, desk.key_usage().await.requests), (1, 1));
    assert_eq!((desk.usage().await.open, desk.key_usage().await.open), (1, 1));
}

pub(super) async fn the_standing_is_the_tighter_one(desk: Desk) {
    let quotas = of_both(r#"{"requests_per_minute":5,"tokens_per_minute":100}"#, r#"{"requests_per_minute":9,"tokens_per_minute":50}"#);
    let (_, standing) = desk.grant(&quotas, 10).await;
    assert_eq!(standing.requests, Some(Window { limit: 5, remaining: 4, reset_ms: 12_000 }));
    assert_eq!(standing.tokens, Some(Window { limit: 50, remaining: 40, reset_ms: 12_000 }));
}

pub(super) async fn the_refusal_that_lasts_longest_is_told(desk: Desk) {
    let quotas = of_both(r#"{"requests_per_minute":60,"request_burst":1}"#, r#"{"tokens_per_minute":60}"#);
    desk.grant(&quotas, 60).await;
    let refusal = desk.refuse(&quotas, 30).await;
    assert_eq!((refusal.reason, refusal.whose, refusal.retry_after_ms), (Reason::Tokens, Whose::Key, Some(30_000)));
    assert_eq!(refusal.standing.requests.unwrap().remaining, 0);
}

pub(super) async fn what_was_not_used_is_given_back(desk: Desk) {
    let quotas = of_both(r#"{"tokens_per_minute":1000}"#, r#"{"tokens_per_minute":900}"#);
    let (id, _) = desk.grant(&quotas, 900).await;
    assert_eq!(desk.used(id, 150).await, Settled::Open { overrun: 0 });
    assert_eq!((desk.usage().await.tokens, desk.key_usage().await.tokens), (150, 150));
}

pub(super) async fn an_overrun_is_reported_and_repaid_before_anybody_is_admitted(desk: Desk) {
    let quotas = of_tenant(r#"{"tokens_per_minute":6000}"#);
    let (id, _) = desk.grant(&quotas, 6_000).await;
    assert_eq!(desk.used(id, 9_000).await, Settled::Open { overrun: 3_000 });
    let refusal = desk.refuse(&quotas, 1).await;
    assert_eq!(refusal.standing.tokens, Some(Window { limit: 6_000, remaining: 0, reset_ms: 90_000 }));
    assert_eq!(refusal.retry_after_ms, Some(30_010));
    desk.clock.advance(30_010);
    desk.grant(&quotas, 1).await;
}

pub(super) async fn a_refund_gives_everything_back(desk: Desk) {
    let quotas = of_both(r#"{"requests_per_minute":2,"tokens_per_minute":100,"concurrency":1}"#, r#"{"requests_per_minute":1}"#);
    let (id, _) = desk.grant(&quotas, 80).await;
    assert_eq!(desk.settle(id, Outcome::Refund).await, Settled::Open { overrun: 0 });
    let usage = desk.usage().await;
    assert_eq!((usage.requests, usage.tokens, usage.open), (0, 0, 0));
    assert_eq!(desk.key_usage().await.requests, 0);
}

pub(super) async fn a_settlement_counts_once(desk: Desk) {
    let quotas = of_tenant(r#"{"requests_per_minute":10,"tokens_per_minute":1000,"concurrency":3}"#);
    let (id, _) = desk.grant(&quotas, 500).await;
    desk.grant(&quotas, 100).await;
    desk.used(id, 200).await;
    let before = desk.usage().await;
    desk.used(id, 200).await;
    assert_eq!(desk.settle(id, Outcome::Refund).await, Settled::Again);
    assert_eq!(desk.usage().await, before);
    assert_eq!((before.requests, before.tokens, before.open), (2, 300, 1));
}

pub(super) async fn a_new_quota_applies_at_once(desk: Desk) {
    let small = of_tenant(r#"{"requests_per_minute":2}"#);
    desk.grant(&small, 1).await;
    desk.grant(&small, 1).await;
    desk.refuse(&small, 1).await;
    let large = of_tenant(r#"{"requests_per_minute":10}"#);
    assert_eq!(desk.grant(&large, 1).await.1.requests.unwrap().remaining, 7);
    desk.refuse(&small, 1).await;
    let (id, _) = desk.grant(&of_tenant(r#"{"concurrency":9}"#), 1).await;
    desk.settle(id, Outcome::Refund).await;
    assert_eq!(desk.usage().await.requests, 0, "without a limit nothing is counted, and nothing given back");
}

pub(super) async fn a_clock_that_goes_back_refills_nothing_twice(desk: Desk) {
    let quotas = of_tenant(r#"{"requests_per_minute":60,"request_burst":2}"#);
    desk.grant(&quotas, 1).await;
    desk.grant(&quotas, 1).await;
    desk.clock.advance(1_000);
    desk.grant(&quotas, 1).await;
    desk.clock.set_back(1_000);
    desk.refuse(&quotas, 1).await;
    desk.clock.advance(1_000);
    desk.refuse(&quotas, 1).await;
}

pub(super) async fn a_clock_that_was_an_hour_ahead_does_not_stop_refills_for_an_hour(desk: Desk) {
    let quotas = of_tenant(r#"{"requests_per_minute":60,"request_burst":1}"#);
    desk.clock.advance(3_600_000);
    desk.grant(&quotas, 1).await;
    desk.clock.set_back(3_600_000);
    desk.refuse(&quotas, 1).await;
    desk.clock.advance(1_000);
    desk.grant(&quotas, 1).await;
    desk.refuse(&quotas, 1).await;
}

pub(super) async fn tenants_are_apart_whatever_they_are_called(desk: Desk) {
    let quotas = of_tenant(r#"{"requests_per_minute":1}"#);
    for name in ["", "{a}", "{a}b", "a:b", "*", "key:a"] {
        let desk = Desk { tenant: format!("{}{name}", desk.tenant).into(), ..desk.clone() };
        desk.grant(&quotas, 1).await;
        desk.refuse(&quotas, 1).await;
    }
}
