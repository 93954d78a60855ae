//! core: which frames still matter here. A frame is renewed while anything in it is in custody, and acked after that.

use super::Action;
use super::acked::Acked;
use shared::broker::ack_wait;
use shared::clock::Time;
use shared::domain::Lane;
use std::collections::BTreeMap;

/// A stored frame, the same at every redelivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrameKey {
    pub lane: Lane,
    pub epoch: u64,
    pub sequence: u64,
}

impl FrameKey {
    /// Of an interactive item that came back from a worker: its frame was acked when the worker took it.
    pub const NONE: Self = Self { lane: Lane::Interactive, epoch: 0, sequence: 0 };
}

#[derive(Debug)]
struct Frame {
    /// Items in custody.
    held: usize,
    renewed: Time,
}

#[derive(Debug, Default)]
pub(super) struct Frames {
    /// In order, so that the same events give the same actions.
    open: BTreeMap<FrameKey, Frame>,
    /// In case the ack was lost.
    acked: Acked,
}

impl Frames {
    pub(super) fn is_acked(&self, key: FrameKey) -> bool {
        self.acked.contains(key)
    }

    /// Whether the frame is one that is open here; its ack wait begins anew.
    pub(super) fn redelivered(&mut self, key: FrameKey, now: Time) -> bool {
        let Some(frame) = self.open.get_mut(&key) else { return false };
        frame.renewed = now;
        true
    }

    pub(super) fn open(&mut self, key: FrameKey, held: usize, now: Time) {
        self.open.insert(key, Frame { held, renewed: now });
    }

    /// One item of the frame is in custody no longer. True when the frame is to be acked.
    pub(super) fn left(&mut self, key: FrameKey) -> bool {
        let Some(frame) = self.open.get_mut(&key) else { return false };
        debug_assert!(frame.held > 0, "an item leaves its frame once");
        frame.held = frame.held.saturating_sub(1);
        let ended = frame.held == 0;
        if ended {
            self.ack(key);
        }
        ended
    }

    /// The frame is somebody else's.
    pub(super) fn give_back(&mut self, key: FrameKey) {
        self.open.remove(&key);
    }

    pub(super) fn ack(&mut self, key: FrameKey) {
        self.open.remove(&key);
        self.acked.insert(key);
    }

    /// Renews what is open here and was not renewed within a quarter of its ack wait.
    pub(super) fn renew(&mut self, now: Time, actions: &mut Vec<Action>) {
        for (key, frame) in &mut self.open {
            if now.since(frame.renewed) >= ack_wait(key.lane) / 4 {
                frame.renewed = now;
                actions.push(Action::Renew(*key));
            }
        }
    }

    /// Empties the table; what was open is to be given back.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = FrameKey> {
        std::mem::take(&mut self.open).into_keys()
    }
}
