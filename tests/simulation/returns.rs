//! core: requests whose call failed, on their way back: packed by a worker, and taken in by the owner of the model.

use crate::faults::Row;
use crate::frames::{Waiting, weight};
use crate::happening::Happening;
use crate::mutations::Mutation;
use crate::owner::Owner;
use crate::world::World;
use bytes::Bytes;
use scheduler::engine::{Event, GivenBack, Item, Returned};
use scheduler::simulated::{Back, item, unpack};
use shared::clock::Time;
use shared::domain::Lane;
use shared::wire::{self, ItemDone, ItemEnd, ToScheduler, Usage};
use std::collections::BTreeSet;
use workers::simulated::{BackendError, Job, Parcels};

impl World {
    /// Of these nobody has had a byte: their owner decides what becomes of them.
    pub(crate) fn return_jobs(&mut self, n: usize, jobs: &[Job], error: &BackendError) {
        let (cancelled, back): (Vec<&Job>, Vec<&Job>) = jobs.iter().partition(|job| job.is_cancelled());
        self.done(n, cancelled.into_iter().map(|job| (job, ItemEnd::Cancelled, None)));
        let mut parcels = Parcels::default();
        for job in back {
            if let Some(entry) = self.workers[n].table.end(job.id, job.exec) {
                parcels.add(job, &entry, self.now);
            }
        }
        let worker = self.workers[n].id.clone();
        let mut told = BTreeSet::new();
        for (scheduler, returned, body) in parcels.sealed(&worker, error.fault, &error.failure) {
            // One call for which a request was sent twice is a try of each.
            let again = returned.items.iter().filter(|item| !told.insert(item.id));
            again.for_each(|item| self.audit.tries.failed(item.id, error.fault));
            let message = ToScheduler::Returned(returned);
            let to = || Happening::ToScheduler { scheduler: scheduler.clone(), message: message.clone(), body: body.clone() };
            self.send(Row::Returned, to);
        }
    }

    pub(crate) fn take_returned(&mut self, n: usize, returned: wire::Returned, bodies: &Bytes) {
        if self.has(Mutation::ReturnedDropped) {
            return self.take_mail(n, as_ended(returned));
        }
        let now = self.now;
        if let Some(owner) = &mut self.schedulers[n].owner {
            let event = owner.take_returned(now, returned, bodies);
            self.take_mail(n, event);
        }
    }
}

/// As if it were no more than an end.
fn as_ended(returned: wire::Returned) -> Event {
    let wire::Returned { worker, batch, fault, items, .. } = returned;
    let done = |id| ItemDone { id, end: ItemEnd::Failed, usage: Usage::default(), fault: Some(fault) };
    Event::Done { worker, batch, items: items.into_iter().map(|item| done(item.id)).collect() }
}

impl Owner {
    fn take_returned(&mut self, now: Time, returned: wire::Returned, bodies: &Bytes) -> Event {
        let wire::Returned { worker, batch, fault, failure, items, .. } = returned;
        let given_back = |back: Back| GivenBack { id: back.id, published: back.published, item: self.take_back(back) };
        let items = unpack(now, items, bodies).map(given_back).collect();
        Event::Returned(Box::new(Returned { worker, batch, fault, failure, items }))
    }

    fn take_back(&mut self, Back { id, published, deadline, request }: Back) -> Option<Item> {
        if let Some(waiting) = self.waiting.get_mut(&id) {
            waiting.again = true;
        }
        let (envelope, part) = request?;
        let bytes = part.frame_bytes();
        let new = Waiting { envelope: part.head, body: part.body, lane: Lane::Interactive, published, deadline, again: true };
        let waiting = self.waiting.entry(id).or_insert(new);
        let weight = weight(&envelope.tenant);
        Some(item(envelope, weight, waiting.lane, bytes, waiting.deadline))
    }
}
