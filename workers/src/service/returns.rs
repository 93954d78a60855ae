//! edge: gives requests whose call failed back to the owner that dispatched them, with what it takes to dispatch them again.

use super::Executions;
use crate::run::{Ended, Job};
use crate::table::{Entry, Report};
use bytes::{Bytes, BytesMut};
use shared::broker::Address;
use shared::clock::{self, Time, millis};
use shared::domain::Token;
use shared::error::Failure;
use shared::wire::{Fault, Part, Returned, ReturnedItem, ToScheduler};

/// What is on its way back to one owner, of one batch.
struct Parcel {
    report: Report,
    model: Token,
    items: Vec<ReturnedItem>,
    bodies: BytesMut,
}

impl Executions {
    /// Ends executions of which nobody has had a byte without an outcome: it is the owner's to decide. What is not tried again
    /// ends there. No use is recorded: an attempt that failed costs nothing, and the last one's record must be the only one.
    pub(crate) fn give_back<'a>(&self, jobs: impl IntoIterator<Item = &'a Job>, fault: Fault, failure: &Failure) {
        let (now, mut parcels) = (clock::now(), Vec::with_capacity(1));
        for job in jobs {
            if job.is_cancelled() {
                self.ended(job, Ended::CANCELLED);
                continue;
            }
            let Some(entry) = self.shop.table().end(job.id, job.exec) else { continue };
            entry.reports.iter().for_each(|report| pack(&mut parcels, report, job, &entry, now));
        }
        for Parcel { report: Report { scheduler, batch }, model, items, bodies } in parcels {
            let failure = Box::new(failure.clone());
            let returned = ToScheduler::Returned(Returned { worker: self.shop.id.clone(), model, batch, fault, failure, items });
            self.shop.outbox.post(Address::Scheduler(scheduler), &returned, bodies.freeze());
        }
    }
}

fn pack(parcels: &mut Vec<Parcel>, report: &Report, job: &Job, entry: &Entry, now: Time) {
    let (item, body) = returned(job, entry, now);
    let at = parcels.iter().position(|parcel| parcel.report == *report).unwrap_or_else(|| {
        parcels.push(Parcel { report: report.clone(), model: entry.model.clone(), items: Vec::new(), bodies: BytesMut::new() });
        parcels.len() - 1
    });
    parcels[at].bodies.extend_from_slice(&body);
    parcels[at].items.push(item);
}

/// An item as it came, older by the time it was here. A body that was fetched by its claim check stays where it was.
fn returned(job: &Job, entry: &Entry, now: Time) -> (ReturnedItem, Bytes) {
    let (envelope, body) = match () {
        () if job.is_deferred() => Default::default(),
        () if job.envelope.claim.is_some() => (Part::encode(job.envelope.as_ref(), Bytes::new()).head, Bytes::new()),
        () => (Part::encode(job.envelope.as_ref(), Bytes::new()).head, job.body.clone()),
    };
    let item = ReturnedItem {
        id: job.id,
        remaining_ms: millis(job.deadline.since(now)),
        age_ms: job.queue_ms.saturating_add(millis(now.since(entry.since))),
        body_len: u32::try_from(body.len()).unwrap_or(u32::MAX),
        envelope,
    };
    (item, body)
}
