//! core: taking over what the usage log says, without counting anything twice or not at all.
//!
//! A sum of the log is a moment old, and the log itself runs a moment behind. So the sum comes with the ids it has
//! counted lately: what is settled here and not among them is added, what is open here and among them is no longer held.

use super::account::Account;
use super::leases::Leases;
use super::recent::Entry;
use super::tenant::Tenant;
use crate::calendar::day_end;
use crate::domain::RequestId;
use crate::quota::{Amount, COUNTED_MAX, Seed, Seeded, Totals};
use foldhash::HashMap;
use std::sync::Arc;

pub(super) fn apply(tenant: &mut Tenant, now: u64, seed: &Seed) -> Seeded {
    if day_end(seed.as_of) != day_end(now) {
        return Seeded::OfAnotherDay;
    }
    let Tenant { account, keys, leases, recent } = tenant;
    for (key, _) in &seed.keys {
        keys.entry(key.clone()).or_default();
    }
    let is_due = |account: &Account| seed.force || !account.budget.is_seeded();
    let of_tenant = is_due(account).then_some(seed.totals);
    let of_keys: HashMap<&str, Totals> =
        seed.keys.iter().filter(|(key, _)| keys.get(key).is_some_and(is_due)).map(|(key, totals)| (&**key, *totals)).collect();
    if of_tenant.is_none() && of_keys.is_empty() {
        return Seeded::Already;
    }
    for &id in seed.counted.iter().take(COUNTED_MAX) {
        count(id, account, of_tenant.is_some(), keys, &of_keys, leases);
        recent.insert(now, id, Amount::default(), None);
    }
    if let Some(totals) = of_tenant {
        take_over(account, now, totals, recent.since(now, seed.counted_from));
    }
    for (key, totals) in of_keys {
        let account = keys.get_mut(key).expect("it was put there");
        take_over(account, now, totals, recent.since(now, seed.counted_from).filter(|entry| entry.key.as_deref() == Some(key)));
    }
    Seeded::Done
}

/// An id whose usage is in the totals: the accounts that take them over hold nothing for it any more.
fn count(
    id: RequestId,
    tenant: &mut Account,
    is_tenant_due: bool,
    keys: &mut HashMap<Arc<str>, Account>,
    due_keys: &HashMap<&str, Totals>,
    leases: &mut Leases,
) {
    let Some(open) = leases.get_mut(id) else { return };
    open.counted = true;
    if is_tenant_due {
        tenant.count(&mut open.of_tenant, open.reserved);
    }
    if let Some(key) = open.key.as_ref().filter(|key| due_keys.contains_key(&***key))
        && let Some(account) = keys.get_mut(key)
    {
        account.count(&mut open.of_key, open.reserved);
    }
}

fn take_over<'a>(account: &mut Account, now: u64, mut totals: Totals, unlogged: impl Iterator<Item = &'a Entry>) {
    account.advance(now);
    for entry in unlogged {
        let (in_day, in_month) = account.budget.covers(entry.at);
        if in_day {
            totals.day.add(entry.unlogged);
        }
        if in_month {
            totals.month.add(entry.unlogged);
        }
    }
    account.budget.seed(totals);
}
