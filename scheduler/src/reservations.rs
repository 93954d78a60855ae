//! core: the reservations behind one owner's requests: what is open in the quota ledger, and for whom.
//!
//! A reservation lives as long as the engine holds or runs its request. It ends in one of three ways: with what the call
//! used, with nothing when no worker had it, or unspoken, when nobody will say how the call ended: then it is left to
//! run out in the ledger, which asks the usage journal about the money.

use foldhash::{HashMap, HashMapExt};
use shared::domain::RequestId;
use shared::quota::{Outcome, Settle, Standing};
use shared::wire::{ItemDone, ItemEnd, Usage};
use std::sync::Arc;

/// Whose limits a request is counted against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub tenant: Arc<str>,
    /// The id of the caller's key.
    pub key: Option<Arc<str>>,
}

#[derive(Debug)]
struct Open {
    account: Account,
    standing: Standing,
}

#[derive(Debug)]
pub struct Reservations {
    open: HashMap<RequestId, Open>,
}

impl Default for Reservations {
    fn default() -> Self {
        Self { open: HashMap::new() }
    }
}

impl Reservations {
    pub fn granted(&mut self, id: RequestId, account: Account, standing: Standing) {
        self.open.insert(id, Open { account, standing });
    }

    /// How the limits stood when the request was admitted, where it has any.
    pub fn standing(&self, id: RequestId) -> Option<Standing> {
        self.open.get(&id).map(|open| open.standing)
    }

    /// The engine has let the request go, and no worker has it.
    pub fn unused(&mut self, id: RequestId) -> Option<Settle> {
        self.end(id, Outcome::Refund)
    }

    /// A worker has ended it. `cost` is what the usage costs, in nano-dollars. What failed or was cancelled and used
    /// nothing is given back. Where another worker runs it still, only an answer is its end.
    pub fn done(&mut self, done: &ItemDone, runs_besides: bool, cost: impl FnOnce(Usage) -> u64) -> Option<Settle> {
        if runs_besides && done.end != ItemEnd::Answered {
            return None;
        }
        let Usage { input, output } = done.usage;
        let tokens = u64::from(input) + u64::from(output);
        let nothing = tokens == 0 && done.end != ItemEnd::Answered;
        self.end(done.id, if nothing { Outcome::Refund } else { Outcome::Used { tokens, nano_usd: cost(done.usage) } })
    }

    /// Lets one run out of which nobody will say how it ended. Kept, it would be renewed for as long as its request waits for the place
    /// that it takes itself.
    pub fn forget(&mut self, id: RequestId) {
        self.open.remove(&id);
    }

    /// Lets those run out that are neither held nor run here any more.
    pub fn forget_all_but(&mut self, alive: impl Fn(RequestId) -> bool) {
        self.open.retain(|id, _| alive(*id));
    }

    /// What is to be renewed, by tenant.
    pub fn by_tenant(&self) -> HashMap<Arc<str>, Vec<RequestId>> {
        let mut all: HashMap<Arc<str>, Vec<RequestId>> = HashMap::new();
        for (id, open) in &self.open {
            all.entry(Arc::clone(&open.account.tenant)).or_default().push(*id);
        }
        all
    }

    pub fn len(&self) -> usize {
        self.open.len()
    }

    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    fn end(&mut self, id: RequestId, outcome: Outcome) -> Option<Settle> {
        let Open { account: Account { tenant, key }, .. } = self.open.remove(&id)?;
        Some(Settle { id, tenant, key, outcome })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    const ID: RequestId = RequestId(Uuid::from_u128(1));

    fn one() -> Reservations {
        let mut reservations = Reservations::default();
        reservations.granted(ID, Account { tenant: "t".into(), key: None }, Standing::default());
        reservations
    }

    fn done(end: ItemEnd, input: u32) -> ItemDone {
        ItemDone { id: ID, end, usage: Usage { input, output: 0 }, fault: None }
    }

    #[test]
    fn a_reservation_ends_once() {
        let mut reservations = one();
        let settled = reservations.done(&done(ItemEnd::Answered, 5), false, |usage| u64::from(usage.input) * 2).unwrap();
        assert_eq!(settled.outcome, Outcome::Used { tokens: 5, nano_usd: 10 });
        assert_eq!(reservations.done(&done(ItemEnd::Answered, 5), false, |_| 0), None);
        assert_eq!(reservations.unused(ID), None);
    }

    #[test]
    fn what_failed_without_using_anything_is_given_back() {
        for end in [ItemEnd::Failed, ItemEnd::Cancelled] {
            assert_eq!(one().done(&done(end, 0), false, |_| 0).unwrap().outcome, Outcome::Refund, "{end:?}");
            assert!(matches!(one().done(&done(end, 3), false, |_| 0).unwrap().outcome, Outcome::Used { tokens: 3, .. }), "{end:?}");
        }
        assert!(matches!(one().done(&done(ItemEnd::Answered, 0), false, |_| 0).unwrap().outcome, Outcome::Used { tokens: 0, .. }));
        assert_eq!(one().unused(ID).unwrap().outcome, Outcome::Refund);
    }

    #[test]
    fn of_two_executions_the_one_that_is_called_off_ends_nothing() {
        let mut reservations = one();
        assert_eq!(reservations.done(&done(ItemEnd::Cancelled, 3), true, |_| 0), None);
        assert_eq!(reservations.done(&done(ItemEnd::Answered, 9), false, |_| 0).unwrap().outcome, Outcome::Used { tokens: 9, nano_usd: 0 });
        assert!(one().done(&done(ItemEnd::Answered, 9), true, |_| 0).is_some(), "the first answer counts");
    }

    #[test]
    fn what_nobody_speaks_of_is_left_to_run_out() {
        let mut reservations = one();
        reservations.forget_all_but(|id| id == ID);
        assert_eq!(reservations.by_tenant().values().flatten().count(), 1);
        reservations.forget_all_but(|_| false);
        assert!(reservations.is_empty());
    }

    #[test]
    fn what_comes_again_and_nobody_runs_is_neither_settled_nor_renewed() {
        let mut reservations = one();
        reservations.forget(ID);
        assert!(reservations.is_empty() && reservations.by_tenant().is_empty());
        assert_eq!(reservations.done(&done(ItemEnd::Answered, 5), false, |_| 0), None);
    }
}
