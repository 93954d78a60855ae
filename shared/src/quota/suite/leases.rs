//! edge: what a ledger does about requests at once, and about those whose end nobody tells.

use super::{Desk, of_both, of_tenant};
use crate::quota::{LEASE_MS, Reason, Settled, Whose};

pub(super) async fn places_come_back_when_requests_end(desk: Desk) {
    let quotas = of_both(r#"{"concurrency":3}"#, r#"{"concurrency":2}"#);
    let (first, _) = desk.grant(&quotas, 1).await;
    desk.grant(&quotas, 1).await;
    let refusal = desk.refuse(&quotas, 1).await;
    assert_eq!((refusal.reason, refusal.whose), (Reason::Concurrency, Whose::Key));
    assert!(refusal.retry_after_ms.is_some());
    desk.used(first, 1).await;
    desk.grant(&quotas, 1).await;
    assert_eq!((desk.usage().await.open, desk.key_usage().await.open), (2, 2));
}

pub(super) async fn a_lease_that_is_not_renewed_runs_out(desk: Desk) {
    let quotas = of_tenant(r#"{"concurrency":1}"#);
    let (id, _) = desk.grant(&quotas, 1).await;
    desk.clock.advance(LEASE_MS - 1);
    desk.refuse(&quotas, 1).await;
    desk.clock.advance(1);
    desk.grant(&quotas, 1).await;
    assert_eq!(desk.used(id, 1).await, Settled::Unknown);
    assert_eq!(desk.usage().await.open, 1);
}

pub(super) async fn a_renewed_lease_lasts(desk: Desk) {
    let quotas = of_tenant(r#"{"concurrency":1}"#);
    let (id, _) = desk.grant(&quotas, 1).await;
    for _ in 0..3 {
        desk.clock.advance(LEASE_MS - 1);
        assert_eq!(desk.ledger.renew(&desk.tenant, &[id, crate::entropy::request_id()]).await, 1);
    }
    desk.refuse(&quotas, 1).await;
    assert_eq!(desk.used(id, 1).await, Settled::Open { overrun: 0 });
    assert_eq!(desk.ledger.renew(&desk.tenant, &[id]).await, 0);
}

pub(super) async fn an_expired_reservation_stays_charged_to_the_rates(desk: Desk) {
    let quotas = of_tenant(r#"{"requests_per_minute":1,"request_burst":5,"tokens_per_minute":1,"token_burst":100}"#);
    desk.grant(&quotas, 90).await;
    desk.clock.advance(LEASE_MS);
    let usage = desk.usage().await;
    assert_eq!((usage.open, usage.requests, usage.tokens), (0, 1, 90), "half a unit has been refilled");
}

pub(super) async fn many_leases_run_out_a_bounded_number_at_a_time(desk: Desk) {
    let quotas = of_tenant(r#"{"concurrency":1000}"#);
    for _ in 0..150 {
        desk.grant(&quotas, 1).await;
    }
    desk.clock.advance(LEASE_MS);
    let mut left = Vec::new();
    for _ in 0..4 {
        left.push(desk.usage().await.open);
    }
    assert_eq!(left, [86, 22, 0, 0]);
}
