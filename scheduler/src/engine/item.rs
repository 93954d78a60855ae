//! core: what the engine knows of one request.

use super::frames::FrameKey;
use super::retry::Retry;
use super::turnstile::Account;
use shared::clock::Time;
use shared::domain::{BatchId, Lane, NodeId, RequestId};
use std::sync::Arc;

/// A request by its measures.
#[derive(Clone, Debug)]
pub struct Item {
    pub id: RequestId,
    pub tenant: Arc<str>,
    /// The tenant's share, relative to the others'.
    pub weight: u32,
    /// The id of the caller's key, which may have limits of its own.
    pub key: Option<Arc<str>>,
    pub lane: Lane,
    /// Estimated input tokens.
    pub tokens_in: u32,
    /// Expected output tokens.
    pub tokens_out: u32,
    /// Inputs of an array call.
    pub items: u32,
    /// Estimated tokens of the longest input: what each of them costs where the backend pads.
    pub longest: u32,
    /// Bytes on the wire, head and body.
    pub bytes: usize,
    /// Only equals may share a call.
    pub compat: u64,
    pub deadline: Time,
    pub ingress: NodeId,
}

impl Item {
    pub const fn tokens(&self) -> u32 {
        self.tokens_in.saturating_add(self.tokens_out)
    }

    /// Whose limits it is counted against.
    pub(super) fn account(&self) -> Account {
        (Arc::clone(&self.tenant), self.key.clone())
    }

    fn shape(&self) -> Shape {
        let cost = Self::cost(self.tokens_in, self.tokens_out);
        let (inputs, tokens, longest) = (self.items.max(1), self.tokens(), self.longest.max(1));
        Shape { id: self.id, compat: self.compat, cost, inputs, tokens, longest, bytes: self.bytes, is_alone: false, is_retry: false }
    }

    /// Service in the currency of fair share: an output token costs about two of input (VTC, OSDI'24).
    pub const fn cost(tokens_in: u32, tokens_out: u32) -> u64 {
        let cost = tokens_in as u64 + 2 * tokens_out as u64;
        if cost == 0 { 1 } else { cost }
    }
}

/// What decides who shares a call. The queue keeps it beside each waiting item, so that looking ahead costs no look-ups.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) id: RequestId,
    pub(super) compat: u64,
    /// Service in the currency of fair share.
    pub(super) cost: u64,
    pub(super) inputs: u32,
    pub(super) tokens: u32,
    /// Tokens of its longest input.
    pub(super) longest: u32,
    pub(super) bytes: usize,
    /// It shares a call with nobody.
    pub(super) is_alone: bool,
    /// A call of it has failed. It goes with its like alone: there are backends that it keeps away from, and it may be why.
    pub(super) is_retry: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The quota has been asked for, or, if deferred, will be.
    Reserving,
    Waiting,
    /// A call of it has failed, and it is queued again then.
    Resting(Time),
    /// Sent to a worker that has not yet accepted.
    Dispatched(BatchId),
    /// A worker has it; deferred items only.
    Running,
    /// Failed here, and that is being put on record; deferred items only.
    Failing,
}

impl State {
    /// Whether a worker has it, or may have.
    pub(super) const fn is_sent(self) -> bool {
        matches!(self, Self::Dispatched(_) | Self::Running)
    }
}

/// An item in the engine's custody.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) item: Item,
    pub(super) frame: FrameKey,
    /// The lane it is ordered in: its own, or the one above when it has waited for too long.
    pub(super) lane: Lane,
    pub(super) state: State,
    /// Workers that did not live to end it.
    pub(super) crashes: u8,
    pub(super) arrived: Time,
    /// Rank among items of equal deadline; kept when an item is taken back, so that it returns to its place.
    pub(super) order: u64,
    /// What is known of its calls, if one has failed.
    pub(super) retry: Option<Box<Retry>>,
}

impl Entry {
    pub(super) const fn new(item: Item, frame: FrameKey, now: Time, order: u64) -> Self {
        let lane = item.lane;
        Self { item, frame, lane, state: State::Reserving, crashes: 0, arrived: now, order, retry: None }
    }

    /// What the forming of batches asks of it. One that may have killed a worker, or spoilt a call, takes no others along.
    pub(super) fn shape(&self) -> Shape {
        let is_alone = self.crashes > 0 || self.retry.as_ref().is_some_and(|retry| retry.is_alone());
        Shape { is_alone, is_retry: self.retry.is_some(), ..self.item.shape() }
    }

    /// Backends at which its calls have failed.
    pub(super) fn tried(&self) -> &[Box<str>] {
        self.retry.as_ref().map_or(&[], |retry| retry.tried())
    }
}
