//! edge: a request that this model's backends cannot serve, made one of its next fallback's.

use super::Owner;
use crate::fallback::{self, Onward};
use bytes::Bytes;
use shared::clock::{Time, millis};
use shared::domain::{Lane, RequestId};
use shared::error::Failure;
use shared::wire::{Envelope, Part};

impl Owner {
    /// Whether an interactive request was sent on. What it has reserved here is given back when it leaves the engine.
    pub(super) fn send_on(&self, now: Time, id: RequestId, failure: &Failure) -> bool {
        let Some(waiting) = self.waiting.get(&id).filter(|waiting| waiting.frame.lane == Lane::Interactive) else { return false };
        let part = Part { head: waiting.envelope.clone(), body: Bytes::new() };
        let Ok(envelope) = part.decode::<Envelope>() else { return false };
        let remaining_ms = millis(waiting.deadline.since(now));
        let Some(next) = fallback::next(&self.office.models, &envelope).filter(|_| remaining_ms > 0) else { return false };
        let (model, asked) = (next.name.as_str().into(), envelope.asked.or(Some(envelope.model)));
        let envelope = Envelope { model, asked, remaining_ms, ..envelope };
        let is_sent = self.office.forwarder.send(Onward { envelope, body: waiting.body.clone(), failure: failure.clone() });
        if is_sent {
            self.metrics.fell_back(&next.name);
        }
        is_sent
    }
}
