//! core: a batch on its way: who is in it, which slot it takes, and what its end says of the call.

use super::breaker::Verdict;
use super::concurrency::Load;
use super::item::{Entry, Item};
use super::retry::Retry;
use shared::clock::Time;
use shared::domain::{Lane, NodeId, RequestId};
use shared::wire::{BackendCredit, Fault, ItemDone, ItemEnd};
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
    /// Of an interactive one nobody else knows it while it runs.
    pub(super) retry: Option<Box<Retry>>,
    /// It was taken back and ran elsewhere before this worker was heard to have it, too: its return is of no use.
    pub(super) is_double: bool,
}

impl Member {
    pub(super) fn of(entry: &Entry) -> Self {
        let Item { id, tokens_in, tokens_out, .. } = entry.item;
        let cost = Item::cost(tokens_in, tokens_out);
        let (tenant, tokens) = (Arc::clone(&entry.item.tenant), u64::from(entry.item.tokens()));
        Self { id, lane: entry.lane, tenant, tokens, cost, retry: entry.retry.clone(), is_double: false }
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
    /// Tokens that it wrote.
    written: u64,
    has_answers: bool,
    has_failures: bool,
    /// What went wrong at the backend, if it was not one request's again that has spoilt a call elsewhere.
    fault: Option<Fault>,
}

impl Batch {
    pub(super) const fn new(slot: Slot, members: Vec<Member>, size: u64, sent: Time) -> Self {
        Self { slot, sent, accepted: None, members, size, written: 0, has_answers: false, has_failures: false, fault: None }
    }

    pub(super) fn note(&mut self, member: &Member, end: End) {
        let is_known = |fault: &Fault| fault.may_be_the_requests() && member.retry.as_ref().is_some_and(|retry| retry.has_spoilt());
        self.fault = end.fault.filter(|fault| !is_known(fault)).or(self.fault);
        self.written += u64::from(end.written);
        self.has_answers |= end.end == ItemEnd::Answered;
        self.has_failures |= end.end == ItemEnd::Failed && end.fault.is_none_or(may_be_the_size);
    }

    pub(super) fn ended(&self, now: Time) -> Ended {
        let result = match (self.has_answers, self.has_failures) {
            (true, false) => CallResult::Answered,
            (false, true) => CallResult::Failed,
            _ => CallResult::Unclear,
        };
        let (verdict, load) = (self.verdict(), self.load(result));
        let work = if self.written > 0 { self.size / READ_AS_FAST + self.written } else { self.size };
        Ended { backend: self.slot.backend.clone(), size: self.size, work, took: now.since(self.sent), result, verdict, load }
    }

    /// What it says of the backend. A rejection is an answer; one that is busy is not ill.
    fn verdict(&self) -> Option<Verdict> {
        match self.fault {
            _ if self.has_answers => Some(Verdict::Good),
            Some(Fault::Rejected) => Some(Verdict::Good),
            None | Some(Fault::RateLimited) => None,
            Some(Fault::Timeout) => Some(Verdict::Silent),
            Some(_) => Some(Verdict::Bad),
        }
    }

    fn load(&self, result: CallResult) -> Load {
        match self.fault {
            _ if result == CallResult::Answered => Load::Borne,
            Some(fault) if fault.is_overload() && !self.has_answers => Load::TooMuch,
            _ => Load::Unknown,
        }
    }

    pub(super) fn tokens(&self) -> u64 {
        self.members.iter().map(|m| m.tokens).sum()
    }
}

/// A token is read so many times as fast as one is written, about.
const READ_AS_FAST: u64 = 16;

/// Whether a smaller call may have had an answer.
const fn may_be_the_size(fault: Fault) -> bool {
    !matches!(fault, Fault::Connect | Fault::RateLimited | Fault::Missing | Fault::Denied)
}

/// How one item of a batch ended there.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub(super) id: RequestId,
    pub(super) end: ItemEnd,
    pub(super) fault: Option<Fault>,
    /// Tokens of its answer.
    pub(super) written: u32,
}

impl End {
    /// Nobody said how.
    pub(super) const fn untold(id: RequestId) -> Self {
        Self { id, end: ItemEnd::Cancelled, fault: None, written: 0 }
    }
}

impl From<&ItemDone> for End {
    fn from(done: &ItemDone) -> Self {
        Self { id: done.id, end: done.end, fault: done.fault, written: done.usage.output }
    }
}

/// A call that ended.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    pub(super) backend: Box<str>,
    /// Tokens that the backend computed.
    pub(super) size: u64,
    /// What took the time: the same, unless it wrote.
    pub(super) work: u64,
    pub(super) took: Duration,
    pub(super) result: CallResult,
    /// What it says of the backend, if anything.
    pub(super) verdict: Option<Verdict>,
    /// What it says of how much the backend was given.
    pub(super) load: Load,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallResult {
    Answered,
    /// Nobody in it had an answer.
    Failed,
    /// Its time says nothing: it was repeated in pieces, or nobody waited for its end.
    Unclear,
}
