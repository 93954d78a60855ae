//! edge: what a worker gives back, taken apart: measures for the engine, bytes for the loop. Of a deferred request the loop has
//! kept the bytes.

use super::Owner;
use super::frames::Waiting;
use crate::engine::{Event, FrameKey, GivenBack, Item, Returned};
use bytes::Bytes;
use shared::clock::Time;
use shared::wire::{self, Envelope, Part, ReturnedItem};
use std::time::Duration;

impl Owner {
    pub(super) fn take_returned(&mut self, now: Time, returned: wire::Returned, bodies: &Bytes) -> Event {
        let wire::Returned { worker, batch, fault, failure, items, .. } = returned;
        self.metrics.returned(fault, items.len());
        let (mut given_back, mut at) = (Vec::with_capacity(items.len()), 0);
        for item in items {
            let end = (at + item.body_len as usize).min(bodies.len());
            let published = now.saturating_sub(Duration::from_millis(item.age_ms.into()));
            let (id, body) = (item.id, bodies.slice(at..end));
            given_back.push(GivenBack { id, item: self.take_back(now, published, item, body), published });
            at = end;
        }
        Event::Returned(Box::new(Returned { worker, batch, fault, failure, items: given_back }))
    }

    fn take_back(&mut self, now: Time, published: Time, item: ReturnedItem, body: Bytes) -> Option<Item> {
        if let Some(waiting) = self.waiting.get_mut(&item.id) {
            waiting.again = true;
        }
        let part = Part { head: item.envelope, body };
        let envelope: Envelope = part.decode().ok()?; // A deferred request comes without.
        let deadline = now + Duration::from_millis(item.remaining_ms.into());
        let waiting =
            |part: Part| Waiting { envelope: part.head, body: part.body, frame: FrameKey::NONE, published, deadline, again: true };
        Some(self.take_request(envelope, part, waiting))
    }
}
