//! core: deferred requests before the quota. What a limit refuses waits here and asks again when the limit may allow it.
//!
//! A tenant's rows come by the thousand and are refused by the same limit, so those of one tenant and key wait together:
//! the first refusal shuts their turnstile, one asks when the time has come, and each that is granted lets two more ask
//! (slow start, as in TCP). However many wait, the ledger hears of a few at a time.

use shared::clock::Time;
use shared::domain::RequestId;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// Whose limits count: the tenant, and the key.
pub(super) type Account = (Arc<str>, Option<Arc<str>>);

/// Requests of one account that the ledger is asked about at once: a chunk of a batch.
const ASKED_MAX: usize = 256;

/// Nobody waits longer before it asks again, whatever it was told: limits are raised, and periods end.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Nobody asks again sooner.
const RETRY_MIN: Duration = Duration::from_millis(10);

/// Accounts that have something here; as many as the deferred windows hold requests at most.
#[derive(Debug, Default)]
pub(super) struct Turnstiles {
    accounts: HashMap<Account, Turnstile>,
    /// When those that are shut open again.
    due: BTreeSet<(Time, Account)>,
}

#[derive(Debug)]
struct Turnstile {
    /// In order of arrival.
    waiting: BTreeMap<u64, RequestId>,
    asked: usize,
    /// How many may be asked about at once.
    allowed: usize,
    shut_until: Option<Time>,
    /// A request of the account that ends makes room for another.
    opens_with_an_end: bool,
}

impl Default for Turnstile {
    fn default() -> Self {
        Self { waiting: BTreeMap::new(), asked: 0, allowed: ASKED_MAX, shut_until: None, opens_with_an_end: false }
    }
}

impl Turnstile {
    fn next(&mut self) -> Option<RequestId> {
        let may = self.shut_until.is_none() && self.asked < self.allowed;
        let (_, id) = may.then(|| self.waiting.pop_first())??;
        self.asked += 1;
        Some(id)
    }
}

impl Turnstiles {
    pub(super) fn arrive(&mut self, account: &Account, order: u64, id: RequestId) {
        self.accounts.entry(account.clone()).or_default().waiting.insert(order, id);
    }

    /// The next of the account to ask the ledger about.
    pub(super) fn next(&mut self, account: &Account) -> Option<RequestId> {
        self.accounts.get_mut(account)?.next()
    }

    /// One that was asked about is through.
    pub(super) fn granted(&mut self, account: &Account, order: u64) {
        if let Some(turnstile) = self.accounts.get_mut(account) {
            turnstile.allowed = (turnstile.allowed + 1).min(ASKED_MAX);
        }
        self.left(account, order);
    }

    /// One that was asked about was refused: it and the others wait for so long.
    pub(super) fn refused(&mut self, account: &Account, order: u64, id: RequestId, now: Time, refusal: Refused) {
        let Some(turnstile) = self.accounts.get_mut(account) else { return };
        turnstile.asked = turnstile.asked.saturating_sub(1);
        turnstile.waiting.insert(order, id);
        turnstile.allowed = 1;
        turnstile.opens_with_an_end = refusal.opens_with_an_end;
        let until = now + refusal.wait.clamp(RETRY_MIN, RETRY_MAX);
        if let Some(before) = turnstile.shut_until.replace(until) {
            self.due.remove(&(before, account.clone()));
        }
        self.due.insert((until, account.clone()));
    }

    /// One is here no longer, whatever became of it.
    pub(super) fn left(&mut self, account: &Account, order: u64) {
        let Some(turnstile) = self.accounts.get_mut(account) else { return };
        if turnstile.waiting.remove(&order).is_none() {
            turnstile.asked = turnstile.asked.saturating_sub(1);
        }
        if turnstile.waiting.is_empty() && turnstile.asked == 0 {
            self.open(account);
            self.accounts.remove(account);
        }
    }

    /// A request of the account has ended, which may have made room for another.
    pub(super) fn ended(&mut self, account: &Account) {
        if self.accounts.get(account).is_some_and(|turnstile| turnstile.opens_with_an_end) {
            self.open(account);
        }
    }

    fn open(&mut self, account: &Account) {
        if let Some(turnstile) = self.accounts.get_mut(account)
            && let Some(until) = turnstile.shut_until.take()
        {
            turnstile.opens_with_an_end = false;
            self.due.remove(&(until, account.clone()));
        }
    }

    /// An account whose time has come.
    pub(super) fn due(&mut self, now: Time) -> Option<Account> {
        let (_, account) = self.due.first().filter(|(until, _)| *until <= now)?.clone();
        self.open(&account);
        Some(account)
    }

    pub(super) fn first_due(&self) -> Option<Time> {
        self.due.first().map(|(until, _)| *until)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// What a refusal means for those who wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refused {
    /// `None`: the limit does not know.
    pub(super) wait: Duration,
    pub(super) opens_with_an_end: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_millis(1_000);
    const RATE: Refused = Refused { wait: Duration::from_millis(100), opens_with_an_end: false };

    fn account() -> Account {
        ("t".into(), None)
    }

    fn id(order: u64) -> RequestId {
        RequestId(uuid::Uuid::from_u128(u128::from(order)))
    }

    fn asked(turnstiles: &mut Turnstiles) -> Vec<RequestId> {
        std::iter::from_fn(|| turnstiles.next(&account())).collect()
    }

    fn full(count: u64) -> Turnstiles {
        let mut turnstiles = Turnstiles::default();
        (0..count).for_each(|n| turnstiles.arrive(&account(), n, id(n)));
        turnstiles
    }

    #[test]
    fn no_more_than_a_chunk_is_asked_about_at_once() {
        let mut turnstiles = full(1_000);
        assert_eq!(asked(&mut turnstiles).len(), ASKED_MAX);
        turnstiles.granted(&account(), 0);
        assert_eq!(asked(&mut turnstiles), [id(256)]);
    }

    #[test]
    fn one_refusal_holds_all_back_until_its_time_and_then_one_asks_for_all() {
        let mut turnstiles = full(1_000);
        (0..256).zip(asked(&mut turnstiles)).for_each(|(order, id)| turnstiles.refused(&account(), order, id, NOW, RATE));
        assert_eq!(asked(&mut turnstiles), []);
        assert_eq!(turnstiles.due(NOW + Duration::from_millis(99)), None);
        assert_eq!(turnstiles.first_due(), Some(NOW + Duration::from_millis(100)));
        assert_eq!(turnstiles.due(NOW + Duration::from_millis(100)), Some(account()));
        assert_eq!(asked(&mut turnstiles), [id(0)], "in order");
        turnstiles.granted(&account(), 0);
        assert_eq!(asked(&mut turnstiles), [id(1), id(2)], "each that is granted lets two more ask");
    }

    #[test]
    fn what_opens_in_weeks_is_tried_each_minute() {
        let mut turnstiles = full(1);
        let first = turnstiles.next(&account()).unwrap();
        turnstiles.refused(&account(), 0, first, NOW, Refused { wait: RETRY_MAX * 60 * 24 * 20, ..RATE });
        assert_eq!(turnstiles.first_due(), Some(NOW + RETRY_MAX));
        turnstiles.left(&account(), 0);
        assert_eq!(turnstiles.first_due(), None, "until its deadline, say");
    }

    #[test]
    fn an_end_opens_what_waits_for_concurrency_and_nothing_else() {
        for (opens, next) in [(true, Some(id(0))), (false, None)] {
            let mut turnstiles = full(2);
            let first = turnstiles.next(&account()).unwrap();
            turnstiles.refused(&account(), 0, first, NOW, Refused { opens_with_an_end: opens, ..RATE });
            turnstiles.ended(&account());
            assert_eq!(turnstiles.next(&account()), next);
        }
    }

    #[test]
    fn nothing_is_kept_of_an_account_that_has_nothing_here() {
        let mut turnstiles = full(3);
        asked(&mut turnstiles);
        (0..3).for_each(|order| turnstiles.granted(&account(), order));
        assert!(turnstiles.accounts.is_empty() && turnstiles.due.is_empty());
    }
}
