//! core: one lane as a work queue with the broker's semantics: in order, at least once, a message id stored once.

use crate::plan::Request;
use scheduler::engine::FrameKey;
use shared::broker::ack_wait;
use shared::clock::Time;
use shared::domain::Lane;
use std::collections::BTreeMap;

#[derive(Debug)]
struct Held {
    requests: Vec<Request>,
    /// When it comes back, while it is out.
    due: Option<Time>,
    attempts: u32,
}

/// A frame handed out.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub(crate) key: FrameKey,
    pub(crate) requests: Vec<Request>,
    /// 1 at the first time.
    pub(crate) attempt: u32,
}

#[derive(Debug)]
pub(crate) struct WorkQueue {
    lane: Lane,
    epoch: u64,
    last: u64,
    delivered: u64,
    frames: BTreeMap<u64, Held>,
    /// Sequences by message id.
    ids: BTreeMap<u64, u64>,
}

impl WorkQueue {
    pub(crate) const fn new(lane: Lane) -> Self {
        Self { lane, epoch: 1, last: 0, delivered: 0, frames: BTreeMap::new(), ids: BTreeMap::new() }
    }

    /// Stores a frame, once for each message id: its epoch and sequence.
    pub(crate) fn publish(&mut self, message: u64, requests: Vec<Request>) -> (u64, u64) {
        if let Some(sequence) = self.ids.get(&message) {
            return (self.epoch, *sequence);
        }
        self.last += 1;
        self.ids.insert(message, self.last);
        self.frames.insert(self.last, Held { requests, due: None, attempts: 0 });
        (self.epoch, self.last)
    }

    /// Hands out up to `max` frames, each for one ack wait.
    pub(crate) fn take(&mut self, now: Time, max: usize) -> Vec<Delivery> {
        let due = now + ack_wait(self.lane);
        let waiting = self.frames.iter_mut().filter(|(_, held)| held.due.is_none_or(|due| due <= now)).take(max);
        let taken: Vec<Delivery> = waiting
            .map(|(sequence, held)| {
                held.due = Some(due);
                held.attempts += 1;
                let key = FrameKey { lane: self.lane, epoch: self.epoch, sequence: *sequence };
                Delivery { key, requests: held.requests.clone(), attempt: held.attempts }
            })
            .collect();
        self.delivered = taken.iter().map(|delivery| delivery.key.sequence).fold(self.delivered, u64::max);
        taken
    }

    pub(crate) fn has_waiting(&self, now: Time) -> bool {
        self.frames.values().any(|held| held.due.is_none_or(|due| due <= now))
    }

    /// Epoch, and the last sequence ever handed out.
    pub(crate) const fn position(&self) -> (u64, u64) {
        (self.epoch, self.delivered)
    }

    pub(crate) fn ack(&mut self, key: FrameKey) {
        if key.epoch == self.epoch {
            self.frames.remove(&key.sequence);
        }
    }

    /// Has a frame that is out come back at `due`.
    pub(crate) fn reschedule(&mut self, key: FrameKey, due: Time) {
        if key.epoch == self.epoch
            && let Some(held) = self.frames.get_mut(&key.sequence)
            && held.due.is_some()
        {
            held.due = Some(due);
        }
    }

    /// The stream is made anew: what it held is gone, sequences begin again.
    pub(crate) fn wipe(&mut self) {
        *self = Self { epoch: self.epoch + 1, ..Self::new(self.lane) };
    }

    pub(crate) fn len(&self) -> usize {
        self.frames.len()
    }
}
