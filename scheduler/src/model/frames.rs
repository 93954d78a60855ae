//! edge: what the lane hands out, taken apart: measures for the engine, bytes and ack tokens for the loop.

use super::Owner;
use crate::acks::Ack;
use crate::engine::{Event, FrameKey, Item};
use bytes::Bytes;
use shared::broker::Delivery;
use shared::clock::Time;
use shared::domain::Lane;
use shared::wire::{Envelope, Part, decode};
use std::time::Duration;

/// The bytes of a request in custody, as they came from the lane.
pub(super) struct Waiting {
    pub(super) envelope: Bytes,
    pub(super) body: Bytes,
    pub(super) frame: FrameKey,
    pub(super) published: Time,
    pub(super) deadline: Time,
    /// A call of it has failed.
    pub(super) again: bool,
}

impl Owner {
    pub(super) fn take_delivery(&mut self, lane: Lane, delivery: &Delivery) -> Option<Event> {
        let frame = FrameKey { lane, epoch: delivery.epoch, sequence: delivery.sequence };
        if lane == Lane::Interactive {
            self.reading.delivered(delivery.epoch, delivery.sequence);
        }
        let parts = match decode(&delivery.frame) {
            Ok(parts) => parts,
            Err(error) => {
                tracing::error!(%error, model = %self.model.name, "a frame in the queue cannot be read and is dropped");
                self.office.acks.send(Ack::Done(delivery.token.clone()));
                return None;
            }
        };
        self.tokens.insert(frame, delivery.token.clone());
        let mut items = Vec::with_capacity(parts.len());
        for part in parts {
            let envelope = match part.decode::<Envelope>() {
                Ok(envelope) => envelope,
                Err(error) => {
                    tracing::error!(%error, model = %self.model.name, "a request in the queue cannot be read and is dropped");
                    continue;
                }
            };
            if !self.engine.holds(envelope.id) && !self.engine.runs(envelope.id) {
                self.quota.forget(envelope.id);
            }
            let published = delivery.stored;
            let deadline = published + Duration::from_millis(u64::from(envelope.remaining_ms));
            let waiting = |part: Part| Waiting { envelope: part.head, body: part.body, frame, published, deadline, again: false };
            items.push(self.take_request(envelope, part, waiting));
        }
        Some(Event::Delivered { frame, items })
    }

    /// Keeps what is to be dispatched of a request, unless it is here, and measures it.
    pub(super) fn take_request(&mut self, envelope: Envelope, part: Part, waiting: impl FnOnce(Part) -> Waiting) -> Item {
        let bytes = part.frame_bytes();
        let waiting = self.waiting.entry(envelope.id).or_insert_with(|| waiting(part));
        let weight = self.office.treasury.weight(&envelope.tenant);
        item(envelope, weight, waiting.frame.lane, bytes, waiting.deadline)
    }
}

/// A request as the engine knows it. `bytes`: what it takes in a frame.
pub fn item(envelope: Envelope, weight: u32, lane: Lane, bytes: usize, deadline: Time) -> Item {
    Item {
        id: envelope.id,
        longest: envelope.longest_tokens(),
        tenant: envelope.tenant.into(),
        weight,
        key: envelope.key.map(Into::into),
        lane,
        tokens_in: envelope.tokens_in,
        tokens_out: envelope.tokens_out,
        items: envelope.items,
        bytes,
        compat: envelope.compat,
        deadline,
        ingress: envelope.ingress,
    }
}
