//! core: what the engine knows of one request.

use super::frames::FrameKey;
use shared::clock::Time;
use shared::domain::{BatchId, Lane, NodeId, RequestId};
use std::sync::Arc;

/// A request by its measures.
#[derive(Clone, Debug)]
pub struct Item {
    pub id: RequestId,
    pub tenant: Arc<str>,
    pub lane: Lane,
    /// Estimated input tokens.
    pub tokens_in: u32,
    /// Expected output tokens.
    pub tokens_out: u32,
    /// Inputs of an array call.
    pub items: u32,
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

    /// Service in the currency of fair share: an output token costs about two of input (VTC, OSDI'24).
    pub const fn cost(tokens_in: u32, tokens_out: u32) -> u64 {
        let cost = tokens_in as u64 + 2 * tokens_out as u64;
        if cost == 0 { 1 } else { cost }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The quota has been asked for.
    Reserving,
    Waiting,
    /// Sent to a worker that has not yet accepted.
    Dispatched(BatchId),
}

/// An item in the engine's custody.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) item: Item,
    pub(super) frame: FrameKey,
    pub(super) state: State,
    pub(super) arrived: Time,
    /// Rank among items of equal deadline; kept when an item is taken back, so that it returns to its place.
    pub(super) order: u64,
}
