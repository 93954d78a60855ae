//! core: the ids of a tenant that were settled or counted within two minutes, so that nothing is charged twice.

use crate::domain::RequestId;
use crate::quota::{Amount, RECENT_MS};
use foldhash::HashMap;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Ids remembered of one tenant, about 1 MB. Past it the oldest is forgotten early, and its settlement, should it come again,
/// would be charged again until the next seed.
pub(super) const IDS_MAX: usize = 8_192;

/// Old ids forgotten in one call: more than one call adds, so that they do not pile up.
const FORGOTTEN_MAX: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Recent {
    entries: HashMap<RequestId, Entry>,
    by_age: BTreeSet<(u64, RequestId)>,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) at: u64,
    /// What was charged and the usage log may not hold yet. Nothing, once the log is known to hold it.
    pub(super) unlogged: Amount,
    pub(super) key: Option<Arc<str>>,
}

impl Recent {
    pub(super) fn contains(&self, now: u64, id: RequestId) -> bool {
        self.entries.get(&id).is_some_and(|entry| entry.at + RECENT_MS > now)
    }

    /// Remembers an id from now on, whatever was known of it.
    pub(super) fn insert(&mut self, now: u64, id: RequestId, unlogged: Amount, key: Option<Arc<str>>) {
        if let Some(before) = self.entries.insert(id, Entry { at: now, unlogged, key }) {
            self.by_age.remove(&(before.at, id));
        }
        self.by_age.insert((now, id));
        while self.by_age.len() > IDS_MAX {
            self.forget_oldest();
        }
    }

    pub(super) fn trim(&mut self, now: u64) {
        for _ in 0..FORGOTTEN_MAX {
            match self.by_age.first() {
                Some((at, _)) if at + RECENT_MS <= now => self.forget_oldest(),
                _ => return,
            }
        }
    }

    /// Those remembered at `since` or later.
    pub(super) fn since(&self, now: u64, since: u64) -> impl Iterator<Item = &Entry> {
        self.entries.values().filter(move |entry| entry.at >= since && entry.at + RECENT_MS > now)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn forget_oldest(&mut self) {
        if let Some((_, id)) = self.by_age.pop_first() {
            self.entries.remove(&id);
        }
    }
}
