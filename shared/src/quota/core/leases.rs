//! core: the open reservations of a tenant, and when each runs out unless it is renewed.

use super::account::Charged;
use crate::domain::RequestId;
use crate::quota::{Amount, LEASE_MS};
use foldhash::HashMap;
use std::collections::BTreeSet;
use std::sync::Arc;

#[derive(Debug, Default)]
pub(super) struct Leases {
    open: HashMap<RequestId, Open>,
    by_end: BTreeSet<(u64, RequestId)>,
}

#[derive(Debug)]
pub(super) struct Open {
    ends: u64,
    /// The account beside the tenant's that was charged.
    pub(super) key: Option<Arc<str>>,
    pub(super) reserved: Amount,
    pub(super) of_tenant: Charged,
    pub(super) of_key: Charged,
    /// A budget watches it, so its id is remembered when it has ended.
    pub(super) budgeted: bool,
    /// The usage log holds its usage already.
    pub(super) counted: bool,
}

impl Open {
    pub(super) fn new(key: Option<Arc<str>>, reserved: Amount) -> Self {
        let charged = Charged::default();
        Self { ends: 0, key, reserved, of_tenant: charged, of_key: charged, budgeted: false, counted: false }
    }
}

impl Leases {
    pub(super) fn contains(&self, id: RequestId) -> bool {
        self.open.contains_key(&id)
    }

    pub(super) fn insert(&mut self, now: u64, id: RequestId, mut open: Open) {
        open.ends = now + LEASE_MS;
        self.by_end.insert((open.ends, id));
        self.open.insert(id, open);
    }

    pub(super) fn get_mut(&mut self, id: RequestId) -> Option<&mut Open> {
        self.open.get_mut(&id)
    }

    pub(super) fn remove(&mut self, id: RequestId) -> Option<Open> {
        let open = self.open.remove(&id)?;
        self.by_end.remove(&(open.ends, id));
        Some(open)
    }

    /// Whether there was something to renew.
    pub(super) fn renew(&mut self, now: u64, id: RequestId) -> bool {
        let Some(open) = self.open.get_mut(&id) else { return false };
        self.by_end.remove(&(open.ends, id));
        open.ends = now + LEASE_MS;
        self.by_end.insert((open.ends, id));
        true
    }

    /// One that has run out.
    pub(super) fn pop_expired(&mut self, now: u64) -> Option<Open> {
        let &(ends, id) = self.by_end.first()?;
        if ends > now {
            return None;
        }
        self.remove(id)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}
