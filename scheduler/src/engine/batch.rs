//! core: a batch on its way: who is in it, which slot it takes, and what its end says of the call.

use super::item::{Entry, Item};
use shared::clock::Time;
use shared::domain::{Lane, NodeId, RequestId};
use shared::wire::{BackendCredit, ItemEnd};
use std::sync::Arc;
use std::time::Duration;

/// One item of a dispatched batch.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) id: RequestId,
    /// Where it was ordered.
    pub(super) lane: Lane,
    pub(super) tenant: Arc<str>,
    pub(super) tokens: u64,
    /// What the tenant was charged.
    pub(super) cost: u64,
}

impl Member {
    pub(super) fn of(entry: &Entry) -> Self {
        let Item { id, tokens_in, tokens_out, .. } = entry.item;
        let cost = Item::cost(tokens_in, tokens_out);
        Self { id, lane: entry.lane, tenant: Arc::clone(&entry.item.tenant), tokens: u64::from(entry.item.tokens()), cost }
    }
}

/// Where slots are counted: one place for all workers of a shared backend, else one for each worker.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct SlotKey {
    pub(super) backend: Box<str>,
    pub(super) worker: Option<NodeId>,
}

impl SlotKey {
    pub(super) fn of(worker: &NodeId, credit: &BackendCredit) -> Self {
        Self { backend: credit.name.clone(), worker: (!credit.shared).then(|| worker.clone()) }
    }
}

/// A place for one call.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) worker: NodeId,
    pub(super) backend: Box<str>,
    pub(super) key: SlotKey,
}

#[derive(Debug)]
pub(super) struct Batch {
    pub(super) slot: Slot,
    pub(super) sent: Time,
    pub(super) accepted: Option<Time>,
    pub(super) members: Vec<Member>,
    /// Tokens that the backend computes.
    size: u64,
    has_answers: bool,
    has_failures: bool,
}

impl Batch {
    pub(super) const fn new(slot: Slot, members: Vec<Member>, size: u64, sent: Time) -> Self {
        Self { slot, sent, accepted: None, members, size, has_answers: false, has_failures: false }
    }

    pub(super) fn note(&mut self, end: ItemEnd) {
        self.has_answers |= end == ItemEnd::Answered;
        self.has_failures |= end == ItemEnd::Failed;
    }

    pub(super) fn ended(&self, now: Time) -> Ended {
        let result = match (self.has_answers, self.has_failures) {
            (true, false) => CallResult::Answered,
            (false, true) => CallResult::Failed,
            _ => CallResult::Unclear,
        };
        Ended { backend: self.slot.backend.clone(), size: self.size, took: now.since(self.sent), result }
    }

    pub(super) fn tokens(&self) -> u64 {
        self.members.iter().map(|m| m.tokens).sum()
    }
}

/// A call that ended.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    pub(super) backend: Box<str>,
    /// Tokens that the backend computed.
    pub(super) size: u64,
    pub(super) took: Duration,
    pub(super) result: CallResult,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallResult {
    Answered,
    /// Nobody in it had an answer.
    Failed,
    /// Its time says nothing: it was repeated in pieces, or nobody waited for its end.
    Unclear,
}
