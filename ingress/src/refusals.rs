//! core: what limits have refused, remembered until it may be otherwise: a flood is answered here and does not travel
//! through the queue. And what a refused request does: wait for its limit, or tell its caller.

use foldhash::HashMap;
use shared::clock::{Time, millis};
use shared::error::{Code, Failure};
use shared::quota::{Reason, Refusal, Whose};
use std::sync::Arc;
use std::time::Duration;

/// Refusals remembered at once, of tenants and keys. Past it new ones are not: their requests travel and are refused there.
const REMEMBERED_MAX: usize = 65_536;

/// How long a refusal is believed at most: limits may be raised, and budgets seeded, meanwhile.
const BELIEVED: Duration = Duration::from_secs(5);

/// Whose limits a request is counted against.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(crate) tenant: Arc<str>,
    pub(crate) key: Option<Arc<str>>,
    /// Requests of the tenant, and of the key, that may wait here for a limit.
    pub(crate) queued: (u32, u32),
}

/// The tenant's own, or one of its keys'.
type Name = (Arc<str>, Option<Arc<str>>);

#[derive(Debug, Default)]
pub(crate) struct Refusals {
    remembered: HashMap<Name, Remembered>,
    waiting: HashMap<Name, u32>,
}

#[derive(Clone, Copy, Debug)]
struct Remembered {
    refusal: Refusal,
    /// Tokens of the request that was refused: a smaller one may pass.
    tokens: u32,
    at: Time,
}

impl Remembered {
    fn ends(&self) -> Time {
        self.at + retry_after(&self.refusal).unwrap_or(BELIEVED).min(BELIEVED)
    }

    /// What a request costs is not known here: its model's price counts.
    fn refuses(&self, tokens: u32, now: Time) -> bool {
        now < self.ends()
            && match self.refusal.reason {
                Reason::Requests | Reason::Concurrency | Reason::Unavailable => true,
                Reason::UsdPerDay | Reason::UsdPerMonth => false,
                _ => tokens >= self.tokens,
            }
    }
}

impl Refusals {
    /// A request of `tokens` was refused.
    pub(crate) fn note(&mut self, account: &Account, tokens: u32, refusal: Refusal, now: Time) {
        if self.remembered.len() >= REMEMBERED_MAX {
            self.remembered.retain(|_, known| now < known.ends());
        }
        if self.remembered.len() < REMEMBERED_MAX {
            self.remembered.insert(account.name(refusal.whose), Remembered { refusal, tokens, at: now });
        }
    }

    /// Whether a request need not try: what it would be told.
    pub(crate) fn find(&self, account: &Account, tokens: u32, now: Time) -> Option<Refusal> {
        if self.remembered.is_empty() {
            return None;
        }
        let of = |whose| self.remembered.get(&account.name(whose)).filter(|known| known.refuses(tokens, now));
        let known = of(Whose::Key).or_else(|| of(Whose::Tenant))?;
        let left = retry_after(&known.refusal).map(|wait| millis((known.at + wait).since(now)).max(1));
        Some(Refusal { retry_after_ms: left, ..known.refusal })
    }

    /// Takes a place among the account's requests that wait here. False when all are taken.
    pub(crate) fn wait(&mut self, account: &Account) -> bool {
        let (tenant, key) = account.names();
        let count = |waiting: &HashMap<Name, u32>, name: &Name| waiting.get(name).copied().unwrap_or(0);
        let has_room = count(&self.waiting, &tenant) < account.queued.0;
        if !has_room || key.as_ref().is_some_and(|key| count(&self.waiting, key) >= account.queued.1) {
            return false;
        }
        for name in std::iter::once(tenant).chain(key) {
            *self.waiting.entry(name).or_insert(0) += 1;
        }
        true
    }

    /// Gives the place back.
    pub(crate) fn waited(&mut self, account: &Account) {
        let (tenant, key) = account.names();
        for name in std::iter::once(tenant).chain(key) {
            if let Some(count) = self.waiting.get_mut(&name) {
                *count -= 1;
                if *count == 0 {
                    self.waiting.remove(&name);
                }
            }
        }
    }
}

impl Account {
    fn name(&self, whose: Whose) -> Name {
        let key = if whose == Whose::Key { self.key.clone() } else { None };
        (Arc::clone(&self.tenant), key)
    }

    fn names(&self) -> (Name, Option<Name>) {
        (self.name(Whose::Tenant), self.key.is_some().then(|| self.name(Whose::Key)))
    }
}

/// `None`: trying again will not help.
pub(crate) fn retry_after(refusal: &Refusal) -> Option<Duration> {
    refusal.retry_after_ms.map(|ms| Duration::from_millis(ms.into()))
}

/// What the caller is told.
pub(crate) fn failure(refusal: &Refusal) -> Failure {
    let whose = if refusal.whose == Whose::Key { "your key's" } else { "your" };
    let reason = refusal.reason.as_str();
    let failure = match (refusal.reason, refusal.retry_after_ms) {
        (Reason::Unavailable, _) => Failure::new(Code::LimitsUnavailable, "Limits cannot be counted at the moment: try again"),
        (_, None) => {
            let message = format!("The request alone is larger than {whose} limit {reason}: ask for less in one call");
            Failure::new(Code::OverLimit, message)
        }
        _ if refusal.is_exhausted() => Failure::new(
            Code::BudgetExhausted,
            format!("What is left of {whose} budget {reason} does not cover this: it is renewed when its period ends"),
        ),
        _ => Failure::new(Code::RateLimited, format!("This is over {whose} limit of {reason}: wait and try again")),
    };
    Failure { retry_after_ms: refusal.retry_after_ms, standing: Some(Box::new(refusal.standing)), ..failure }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::quota::Standing;

    fn account(key: Option<&str>) -> Account {
        Account { tenant: "t".into(), key: key.map(Into::into), queued: (3, 2) }
    }

    fn refusal(reason: Reason, whose: Whose, ms: u32) -> Refusal {
        Refusal { reason, whose, retry_after_ms: Some(ms), standing: Standing::default() }
    }

    #[test]
    fn a_refusal_is_remembered_until_its_time() {
        let mut refusals = Refusals::default();
        refusals.note(&account(None), 5, refusal(Reason::Requests, Whose::Tenant, 600), Time::ZERO);
        let found = refusals.find(&account(Some("k")), 1, Time::from_millis(200)).unwrap();
        assert_eq!(found.retry_after_ms, Some(400), "of the tenant: for all its keys, and what is left of the wait");
        assert!(refusals.find(&account(None), 1, Time::from_millis(600)).is_none());
    }

    #[test]
    fn a_key_s_refusal_is_the_key_s_alone() {
        let mut refusals = Refusals::default();
        refusals.note(&account(Some("k")), 5, refusal(Reason::Requests, Whose::Key, 600), Time::ZERO);
        assert!(refusals.find(&account(Some("k")), 1, Time::ZERO).is_some());
        assert!(refusals.find(&account(Some("other")), 1, Time::ZERO).is_none());
        assert!(refusals.find(&account(None), 1, Time::ZERO).is_none());
    }

    #[test]
    fn a_smaller_request_may_pass_where_tokens_were_short() {
        let mut refusals = Refusals::default();
        refusals.note(&account(None), 50, refusal(Reason::Tokens, Whose::Tenant, 600), Time::ZERO);
        assert!(refusals.find(&account(None), 49, Time::ZERO).is_none());
        assert!(refusals.find(&account(None), 50, Time::ZERO).is_some());
    }

    #[test]
    fn another_model_may_be_cheaper() {
        let mut refusals = Refusals::default();
        refusals.note(&account(None), 50, refusal(Reason::UsdPerMonth, Whose::Tenant, 600), Time::ZERO);
        assert!(refusals.find(&account(None), 50, Time::ZERO).is_none());
    }

    #[test]
    fn what_lasts_is_asked_about_again_all_the_same() {
        let mut refusals = Refusals::default();
        refusals.note(&account(None), 1, refusal(Reason::TokensPerMonth, Whose::Tenant, 1_000_000_000), Time::ZERO);
        let found = refusals.find(&account(None), 1, Time::from_millis(1_000)).unwrap();
        assert_eq!(found.retry_after_ms, Some(999_999_000), "the caller is told the whole wait");
        assert!(refusals.find(&account(None), 1, Time::ZERO + BELIEVED).is_none());
    }

    #[test]
    fn as_many_wait_as_may_be_queued_of_the_tenant_and_of_the_key() {
        let mut refusals = Refusals::default();
        let (keyed, other) = (account(Some("k")), account(Some("other")));
        assert!(refusals.wait(&keyed) && refusals.wait(&keyed));
        assert!(!refusals.wait(&keyed), "the key's");
        assert!(refusals.wait(&other));
        assert!(!refusals.wait(&other), "the tenant's");
        refusals.waited(&keyed);
        assert!(refusals.wait(&other));
        [&keyed, &other, &other].into_iter().for_each(|account| refusals.waited(account));
        assert!(refusals.waiting.is_empty());
    }

    #[test]
    fn the_caller_is_told_what_to_do() {
        let told = |reason, ms| failure(&Refusal { retry_after_ms: ms, ..refusal(reason, Whose::Tenant, 0) });
        assert_eq!(told(Reason::Requests, Some(5)).code, Code::RateLimited);
        assert_eq!(told(Reason::Requests, Some(5)).retry_after_ms, Some(5));
        assert_eq!(told(Reason::UsdPerDay, Some(5)).code, Code::BudgetExhausted);
        assert_eq!(told(Reason::Tokens, None).code, Code::OverLimit);
        assert_eq!(told(Reason::Unavailable, Some(5)).code, Code::LimitsUnavailable);
    }
}
