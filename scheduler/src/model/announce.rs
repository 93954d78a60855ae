//! edge: what is held here, announced to the ingresses that wait for it.

use super::{HELD_EVERY, Owner};
use bytes::Bytes;
use foldhash::HashMap;
use shared::broker::Address;
use shared::clock::Time;
use shared::domain::{Lane, NodeId, RequestId};
use shared::wire::{Held, Passed, ToIngress};
use std::sync::PoisonError;

impl Owner {
    /// Tells each ingress what of its work is held here, and how far its lane has been read.
    pub(super) fn announce(&self, now: Time) {
        let mut held: HashMap<&NodeId, Vec<RequestId>> = self.engine.ingresses().map(|ingress| (ingress, Vec::new())).collect();
        for (ingress, id) in self.engine.held(now.saturating_sub(HELD_EVERY)) {
            held.entry(ingress).or_default().push(id);
        }
        for (ingress, ids) in held {
            let message = ToIngress::Held(Held { from: self.office.id.clone(), ids, passed: self.passed(now).into_iter().collect() });
            self.office.outbox.post(Address::Ingress(ingress.clone()), &message, Bytes::new());
        }
    }

    /// Notes for the scheduler's heartbeat what waits in each lane, here and at the broker.
    pub(super) fn forecast(&mut self, now: Time) {
        let waits = Lane::ALL.map(|lane| {
            let frames = self.tokens.keys().filter(|frame| frame.lane == lane).count().max(1);
            let requests_of_frame = self.engine.load(lane).0.div_ceil(frames).max(1) as u64;
            self.engine.wait(now, lane, self.windows[lane.index()].left() * requests_of_frame)
        });
        *self.waits.lock().unwrap_or_else(PoisonError::into_inner) = waits;
    }

    fn passed(&self, now: Time) -> Option<Passed> {
        let (epoch, sequence) = self.reading.passed(now)?;
        Some(Passed { model: self.model.token.clone(), epoch, sequence })
    }
}
