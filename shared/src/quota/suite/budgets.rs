//! edge: what a ledger does about budgets, of which the usage log knows the truth.

use super::{Desk, of_both, of_tenant};
use crate::domain::RequestId;
use crate::quota::{Amount, Decision, LEASE_MS, Outcome, Quotas, Reason, Seed, Seeded, Settled, Totals, Usage, Whose};

const DAY: &str = r#"{"tokens_per_day":1000}"#;
const HALF_A_DAY_MS: u64 = 43_200_000;

fn totals(day: u64, month: u64) -> Totals {
    let tokens = |tokens| Amount { tokens, nano_usd: 0 };
    Totals { day: tokens(day), month: tokens(month) }
}

fn settled(usage: Usage) -> (u64, u64) {
    let settled = usage.settled.expect("seeded");
    (settled.day.tokens, settled.month.tokens)
}

impl Desk {
    fn seed_of(&self, totals: Totals) -> Seed {
        let now = self.clock.now();
        Seed { tenant: self.tenant.clone(), totals, keys: vec![], as_of: now, counted: vec![], counted_from: now - 120_000, force: false }
    }

    async fn seed(&self, totals: Totals) -> Seeded {
        self.ledger.seed(&self.seed_of(totals)).await
    }

    async fn seed_counting(&self, totals: Totals, counted: Vec<RequestId>, force: bool) {
        let seed = Seed { counted, force, ..self.seed_of(totals) };
        assert_eq!(self.ledger.seed(&seed).await, Seeded::Done);
    }

    /// A tenant whose day is seeded with nothing.
    async fn open(&self) -> Quotas {
        assert_eq!(self.seed(Totals::default()).await, Seeded::Done);
        of_tenant(DAY)
    }
}

pub(super) async fn a_budget_is_not_kept_before_it_is_seeded(desk: Desk) {
    let quotas = of_tenant(DAY);
    assert_eq!(desk.decide(&quotas, 10).await, Decision::Unseeded);
    assert_eq!(desk.usage().await.open, 0);
    assert_eq!(desk.seed(totals(995, 5_000)).await, Seeded::Done);
    assert!(matches!(desk.decide(&quotas, 10).await, Decision::Refused(_)));
    desk.grant(&quotas, 5).await;
    assert_eq!(settled(desk.usage().await), (995, 5_000));
}

pub(super) async fn reserved_and_used_count_against_a_budget(desk: Desk) {
    let quotas = desk.open().await;
    let (first, _) = desk.grant(&quotas, 600).await;
    assert_eq!(desk.refuse(&quotas, 401).await.reason, Reason::TokensPerDay);
    let (second, _) = desk.grant(&quotas, 400).await;
    assert_eq!(desk.used(first, 100).await, Settled::Open { overrun: 0 });
    assert_eq!(desk.settle(second, Outcome::Refund).await, Settled::Open { overrun: 0 });
    let usage = desk.usage().await;
    assert_eq!((settled(usage), usage.held.tokens), ((100, 100), 0));
    desk.grant(&quotas, 900).await;
    desk.refuse(&quotas, 1).await;
}

pub(super) async fn an_exhausted_budget_says_when_its_period_ends(desk: Desk) {
    let money = of_tenant(r#"{"usd_per_month":0.5,"tokens_per_day":1000000}"#);
    desk.seed(Totals { month: Amount { tokens: 0, nano_usd: 400_000_000 }, ..Totals::default() }).await;
    desk.clock.advance(1_000);
    let Decision::Refused(refusal) = desk.ledger.reserve(&desk.ask(&money, 1, 200_000_000)).await else { panic!("granted") };
    let left = u32::try_from(HALF_A_DAY_MS - desk.clock.now() % HALF_A_DAY_MS).unwrap();
    assert_eq!((refusal.reason, refusal.whose, refusal.retry_after_ms), (Reason::UsdPerMonth, Whose::Tenant, Some(left)));
    assert!(refusal.is_exhausted());
    let Decision::Refused(refusal) = desk.ledger.reserve(&desk.ask(&money, 1, 500_000_001)).await else { panic!("granted") };
    assert_eq!(refusal.retry_after_ms, None, "it is more than the whole budget");
    assert!(matches!(desk.ledger.reserve(&desk.ask(&money, 1, 100_000_000)).await, Decision::Granted(_)));
}

pub(super) async fn a_new_day_begins_with_what_is_held(desk: Desk) {
    let quotas = desk.open().await;
    let (done, _) = desk.grant(&quotas, 300).await;
    desk.used(done, 300).await;
    desk.clock.to_the_last_second_of_the_day();
    let (held, _) = desk.grant(&quotas, 200).await;
    desk.clock.advance(1_000);
    let usage = desk.usage().await;
    assert_eq!((settled(usage).0, usage.held.tokens), (0, 200));
    desk.refuse(&quotas, 801).await;
    desk.used(held, 150).await;
    assert_eq!(settled(desk.usage().await).0, 150);
}

pub(super) async fn a_new_month_needs_no_seed(desk: Desk) {
    let quotas = of_tenant(r#"{"tokens_per_month":100}"#);
    desk.seed(totals(0, 100)).await;
    assert_eq!(desk.refuse(&quotas, 1).await.reason, Reason::TokensPerMonth);
    desk.clock.advance(31 * 24 * 3_600_000);
    desk.grant(&quotas, 100).await;
}

pub(super) async fn an_expired_lease_unseeds(desk: Desk) {
    let quotas = desk.open().await;
    desk.grant(&quotas, 300).await;
    desk.clock.advance(LEASE_MS);
    assert_eq!(desk.decide(&quotas, 1).await, Decision::Unseeded);
    let usage = desk.usage().await;
    assert_eq!((usage.held.tokens, usage.settled), (0, None));
}

pub(super) async fn what_a_seed_counted_is_not_charged_again(desk: Desk) {
    let quotas = of_tenant(DAY);
    let unknown = crate::entropy::request_id();
    desk.seed_counting(totals(40, 40), vec![unknown], false).await;
    desk.grant(&quotas, 1).await;
    assert_eq!(desk.used(unknown, 40).await, Settled::Again);
    assert_eq!(settled(desk.usage().await), (40, 40));
}

pub(super) async fn what_a_seed_missed_is_added(desk: Desk) {
    let quotas = desk.open().await;
    let (logged, _) = desk.grant(&quotas, 10).await;
    let (unlogged, _) = desk.grant(&quotas, 20).await;
    desk.used(logged, 10).await;
    desk.used(unlogged, 20).await;
    desk.seed_counting(totals(110, 510), vec![logged], true).await;
    assert_eq!(settled(desk.usage().await), (130, 530));
    let old = Seed { counted_from: desk.clock.now() + 1, force: true, ..desk.seed_of(totals(130, 530)) };
    desk.ledger.seed(&old).await;
    assert_eq!(settled(desk.usage().await), (130, 530), "what is older than the list is in the log");
}

pub(super) async fn what_is_open_and_counted_is_no_longer_held(desk: Desk) {
    let quotas = desk.open().await;
    let (counted, _) = desk.grant(&quotas, 100).await;
    let (open, _) = desk.grant(&quotas, 50).await;
    desk.seed_counting(totals(70, 70), vec![counted], true).await;
    let usage = desk.usage().await;
    assert_eq!((settled(usage), usage.held.tokens), ((70, 70), 50));
    assert_eq!(desk.used(counted, 70).await, Settled::Open { overrun: 0 });
    desk.used(open, 50).await;
    assert_eq!(settled(desk.usage().await), (120, 120));
    desk.seed_counting(totals(70, 70), vec![], true).await;
    assert_eq!(settled(desk.usage().await), (120, 120));
}

pub(super) async fn an_unknown_settlement_is_charged_once(desk: Desk) {
    let quotas = desk.open().await;
    desk.grant(&quotas, 1).await;
    let unknown = crate::entropy::request_id();
    assert_eq!(desk.used(unknown, 60).await, Settled::Unknown);
    assert_eq!(desk.used(unknown, 60).await, Settled::Again);
    assert_eq!(desk.settle(crate::entropy::request_id(), Outcome::Refund).await, Settled::Again);
    assert_eq!(settled(desk.usage().await), (60, 60));
}

pub(super) async fn a_seed_of_another_day_is_not_taken(desk: Desk) {
    let seed = desk.seed_of(totals(1, 1));
    desk.clock.to_the_last_second_of_the_day();
    desk.clock.advance(1_000);
    assert_eq!(desk.ledger.seed(&seed).await, Seeded::OfAnotherDay);
    assert_eq!(desk.decide(&of_tenant(DAY), 1).await, Decision::Unseeded);
}

pub(super) async fn a_second_seed_changes_nothing_unless_forced(desk: Desk) {
    desk.open().await;
    assert_eq!(desk.seed(totals(9, 9)).await, Seeded::Already);
    assert_eq!(settled(desk.usage().await), (0, 0));
    desk.seed_counting(totals(9, 9), vec![], true).await;
    assert_eq!(settled(desk.usage().await), (9, 9));
}

pub(super) async fn a_keys_budget_is_its_own(desk: Desk) {
    let quotas = of_both(r#"{"tokens_per_day":1000}"#, r#"{"tokens_per_day":100}"#);
    desk.seed(totals(500, 500)).await;
    assert_eq!(desk.decide(&quotas, 1).await, Decision::Unseeded, "the key's counters are not known");
    let seed = Seed { keys: vec![("key".into(), totals(90, 90))], ..desk.seed_of(totals(0, 0)) };
    assert_eq!(desk.ledger.seed(&seed).await, Seeded::Done);
    assert_eq!(settled(desk.usage().await), (500, 500), "the tenant's were");
    let refusal = desk.refuse(&quotas, 11).await;
    assert_eq!((refusal.reason, refusal.whose), (Reason::TokensPerDay, Whose::Key));
    let (id, _) = desk.grant(&quotas, 10).await;
    desk.used(id, 7).await;
    assert_eq!((settled(desk.usage().await), settled(desk.key_usage().await)), ((507, 507), (97, 97)));
    assert_eq!(desk.used(crate::entropy::request_id(), 2).await, Settled::Unknown);
    assert_eq!((settled(desk.usage().await), settled(desk.key_usage().await)), ((509, 509), (99, 99)));
}

pub(super) async fn an_id_that_ran_twice_is_charged_once(desk: Desk) {
    let quotas = desk.open().await;
    let asked = desk.ask(&quotas, 80, 0);
    for _ in 0..2 {
        assert!(matches!(desk.ledger.reserve(&asked).await, Decision::Granted(_)));
        assert_eq!(desk.used(asked.id, 80).await, Settled::Open { overrun: 0 });
    }
    let usage = desk.usage().await;
    assert_eq!((settled(usage), usage.held.tokens), ((80, 80), 0));
    desk.seed_counting(totals(0, 0), vec![], true).await;
    assert_eq!(settled(desk.usage().await), (80, 80), "the log did not hold it yet");
}
