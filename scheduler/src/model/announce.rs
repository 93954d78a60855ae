//! edge: what is held here, announced to the ingresses that wait for it.

use super::{HELD_EVERY, Owner};
use bytes::Bytes;
use foldhash::HashMap;
use shared::broker::{ACK_WAIT_INTERACTIVE, Address};
use shared::clock::Time;
use shared::domain::{NodeId, RequestId};
use shared::wire::{Held, Passed, ToIngress};

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

    /// What was handed out to an earlier owner counts as passed only when its redelivery has had time to arrive here.
    fn passed(&self, now: Time) -> Option<Passed> {
        let settled = now.since(self.since) > ACK_WAIT_INTERACTIVE + HELD_EVERY;
        let (epoch, sequence) = match (self.delivered, self.position) {
            (delivered, position) if settled && position > delivered => position,
            ((0, _), _) => return None,
            (delivered, _) => delivered,
        };
        Some(Passed { model: self.model.token.clone(), epoch, sequence })
    }
}
