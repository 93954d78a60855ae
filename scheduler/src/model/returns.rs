//! edge: what a worker gives back, taken apart: measures for the engine, bytes for the loop. Of a deferred request the loop has
//! kept the bytes.

use super::Owner;
use super::frames::Waiting;
use crate::engine::{Event, FrameKey, GivenBack, Item, Returned};
use bytes::Bytes;
use shared::clock::Time;
use shared::domain::RequestId;
use shared::wire::{self, Envelope, Part, ReturnedItem};
use std::time::Duration;

/// One request that came back.
pub struct Back {
    pub id: RequestId,
    pub published: Time,
    pub deadline: Time,
    /// What is dispatched again; a deferred request comes without.
    pub request: Option<(Envelope, Part)>,
}

/// The requests whose bodies lie end to end in `bodies`.
pub fn unpack(now: Time, items: Vec<ReturnedItem>, bodies: &Bytes) -> impl Iterator<Item = Back> {
    let mut at = 0;
    items.into_iter().map(move |item| {
        let end = (at + item.body_len as usize).min(bodies.len());
        let part = Part { head: item.envelope, body: bodies.slice(at..end) };
        at = end;
        Back {
            id: item.id,
            published: now.saturating_sub(Duration::from_millis(item.age_ms.into())),
            deadline: now + Duration::from_millis(item.remaining_ms.into()),
            request: part.decode().ok().map(|envelope| (envelope, part)),
        }
    })
}

impl Owner {
    pub(super) fn take_returned(&mut self, now: Time, returned: wire::Returned, bodies: &Bytes) -> Event {
        let wire::Returned { worker, batch, fault, failure, items, .. } = returned;
        self.metrics.returned(fault, items.len());
        let given_back = |back: Back| GivenBack { id: back.id, published: back.published, item: self.take_back(back) };
        let items = unpack(now, items, bodies).map(given_back).collect();
        Event::Returned(Box::new(Returned { worker, batch, fault, failure, items }))
    }

    fn take_back(&mut self, Back { id, published, deadline, request }: Back) -> Option<Item> {
        if let Some(waiting) = self.waiting.get_mut(&id) {
            waiting.again = true;
        }
        let (envelope, part) = request?;
        let waiting =
            |part: Part| Waiting { envelope: part.head, body: part.body, frame: FrameKey::NONE, published, deadline, again: true };
        Some(self.take_request(envelope, part, waiting))
    }
}
