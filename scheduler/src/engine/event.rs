//! core: what the engine is told, and what it wants done.

use super::frames::FrameKey;
use super::item::Item;
use shared::clock::Time;
use shared::domain::{BatchId, NodeId, RequestId};
use shared::error::{Code, Failure};
use shared::quota::Refusal;
use shared::wire::{BackendCredit, Fault, ItemDone, Running};
use std::time::Duration;

/// What the engine is told.
#[derive(Clone, Debug)]
pub enum Event {
    /// A frame was handed out by the lane: for the first time, or again.
    Delivered {
        frame: FrameKey,
        items: Vec<Item>,
    },
    /// The quota was reserved.
    Reserved(RequestId),
    /// The quota was refused.
    QuotaRefused {
        id: RequestId,
        refusal: Refusal,
    },
    Accepted {
        worker: NodeId,
        batch: BatchId,
    },
    Refused {
        worker: NodeId,
        batch: BatchId,
    },
    /// The calls of deferred items have ended; [`Event::Done`] follows when their outcomes are on record.
    Freed {
        worker: NodeId,
        batch: BatchId,
        items: Vec<ItemDone>,
    },
    Done {
        worker: NodeId,
        batch: BatchId,
        items: Vec<ItemDone>,
    },
    /// A call failed for a cause that another try may cure.
    Returned(Box<Returned>),
    Heartbeat {
        worker: NodeId,
        backends: Vec<BackendCredit>,
        running: Vec<Running>,
    },
    /// A worker said that it has ended.
    WorkerLeft(NodeId),
    /// The outcome of a deferred item that failed here is on record.
    Committed(RequestId),
    IngressSeen(NodeId),
    /// Nobody waits for these any more.
    Cancelled(Vec<RequestId>),
}

/// What shared a call that failed.
#[derive(Clone, Debug)]
pub struct Returned {
    pub worker: NodeId,
    pub batch: BatchId,
    pub fault: Fault,
    /// What is said of a request that is not tried again.
    pub failure: Box<Failure>,
    pub items: Vec<GivenBack>,
}

#[derive(Clone, Debug)]
pub struct GivenBack {
    pub id: RequestId,
    /// An interactive request, which is not in custody.
    pub item: Option<Item>,
    pub published: Time,
}

/// Why a request ends here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    Here(Code),
    /// No backend is called for so long, because all fail.
    Down(Duration),
    /// The last of its calls failed so.
    Backend(Box<Failure>),
}

/// What the engine wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Reserve(RequestId),
    Dispatch {
        batch: BatchId,
        worker: NodeId,
        backend: Box<str>,
        items: Vec<RequestId>,
    },
    /// Nothing here depends on the frame any more.
    Ack(FrameKey),
    Renew(FrameKey),
    /// Hand the frame out again after so long.
    Nak(FrameKey, Duration),
    /// The request failed here: tell its ingress, or, if it is deferred, commit that and say so ([`Event::Committed`]).
    Fail {
        id: RequestId,
        ingress: NodeId,
        cause: Cause,
    },
    /// Give an interactive request back to its ingress, which may try again.
    Refuse {
        id: RequestId,
        ingress: NodeId,
        refusal: Refusal,
    },
    /// The item has left the engine: its bytes may be dropped.
    Release(RequestId),
}
