//! core: requests whose call failed, packed for the way back: for each owner and batch that waits for them, what it takes to dispatch
//! them again.

use crate::run::Job;
use crate::table::{Entry, Report};
use bytes::{Bytes, BytesMut};
use shared::clock::{Time, millis};
use shared::domain::{NodeId, Token};
use shared::error::Failure;
use shared::wire::{Fault, Part, Returned, ReturnedItem};

/// What is on its way back to one owner, of one batch.
#[derive(Debug)]
struct Parcel {
    report: Report,
    model: Token,
    items: Vec<ReturnedItem>,
    bodies: BytesMut,
}

/// All that comes back of one call.
#[derive(Debug, Default)]
pub struct Parcels(Vec<Parcel>);

impl Parcels {
    /// An execution that has just ended here: `entry` is what the table knew of it.
    pub fn add(&mut self, job: &Job, entry: &Entry, now: Time) {
        let (item, body) = returned(job, entry, now);
        for report in &entry.reports {
            let parcel = self.of(report, &entry.model);
            parcel.bodies.extend_from_slice(&body);
            parcel.items.push(item.clone());
        }
    }

    /// Whom to send what, with the bodies end to end.
    pub fn sealed(self, worker: &NodeId, fault: Fault, failure: &Failure) -> impl Iterator<Item = (NodeId, Returned, Bytes)> {
        self.0.into_iter().map(move |Parcel { report: Report { scheduler, batch }, model, items, bodies }| {
            let returned = Returned { worker: worker.clone(), model, batch, fault, failure: Box::new(failure.clone()), items };
            (scheduler, returned, bodies.freeze())
        })
    }

    fn of(&mut self, report: &Report, model: &Token) -> &mut Parcel {
        let at = self.0.iter().position(|parcel| parcel.report == *report).unwrap_or_else(|| {
            self.0.push(Parcel { report: report.clone(), model: model.clone(), items: Vec::new(), bodies: BytesMut::new() });
            self.0.len() - 1
        });
        &mut self.0[at]
    }
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
