//! core: what the lane hands out, taken apart and put together again: measures for the engine, bytes and ack tokens for the loop.

use crate::owner::Owner;
use bytes::{Bytes, BytesMut};
use scheduler::engine::{Event, FrameKey};
use scheduler::simulated::item;
use shared::broker::Delivery;
use shared::clock::{Time, millis};
use shared::domain::{Lane, RequestId};
use shared::wire::{DispatchItem, Envelope, decode};
use std::time::Duration;

pub(crate) struct Waiting {
    pub(crate) envelope: Bytes,
    pub(crate) body: Bytes,
    pub(crate) lane: Lane,
    pub(crate) published: Time,
    pub(crate) deadline: Time,
    /// A call of it has failed.
    pub(crate) again: bool,
}

impl Owner {
    pub(crate) fn take_delivery(&mut self, lane: Lane, delivery: &Delivery, published: Time) -> Event {
        let frame = FrameKey { lane, epoch: delivery.epoch, sequence: delivery.sequence };
        if lane == Lane::Interactive {
            self.reading.delivered(delivery.epoch, delivery.sequence);
        }
        self.tokens.insert(frame, delivery.token.clone());
        let mut items = Vec::new();
        for part in decode(&delivery.frame).expect("a frame that was published") {
            let envelope: Envelope = part.decode().expect("an envelope that was published");
            if !self.engine.holds(envelope.id) && !self.engine.runs(envelope.id) {
                self.reservations.forget(envelope.id);
            }
            let deadline = published + Duration::from_millis(u64::from(envelope.remaining_ms));
            let bytes = part.frame_bytes();
            let new = Waiting { envelope: part.head, body: part.body, lane, published, deadline, again: false };
            self.waiting.entry(envelope.id).or_insert(new);
            let weight = weight(&envelope.tenant);
            items.push(item(envelope, weight, lane, bytes, deadline));
        }
        self.carried.insert(frame, items.iter().map(|item| item.id).collect());
        Event::Delivered { frame, items }
    }

    /// `lying`: the order in which the bodies lie.
    pub(crate) fn load(&self, now: Time, ids: &[RequestId], lying: impl Iterator<Item = RequestId>) -> (Vec<DispatchItem>, Bytes) {
        let of = |id: &RequestId| self.waiting.get(id).expect("the loop has the bytes of what is dispatched");
        let mut body = BytesMut::new();
        lying.for_each(|id| body.extend_from_slice(&of(&id).body));
        let items = ids.iter().map(|id| {
            let waiting = of(id);
            DispatchItem {
                id: *id,
                remaining_ms: millis(waiting.deadline.since(now)),
                queue_ms: millis(now.since(waiting.published)),
                standing: None,
                again: waiting.again,
                body_len: u32::try_from(waiting.body.len()).expect("short"),
                envelope: waiting.envelope.clone(),
            }
        });
        let items = items.collect();
        (items, body.freeze())
    }
}

pub(crate) fn weight(tenant: &str) -> u32 {
    tenant.rsplit('-').next().and_then(|n| n.parse::<u32>().ok()).map_or(1, |n| n + 1)
}
