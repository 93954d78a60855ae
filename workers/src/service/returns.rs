//! edge: gives requests whose call failed back to the owner that dispatched them.

use super::Executions;
use crate::parcels::Parcels;
use crate::run::{Ended, Job};
use shared::broker::Address;
use shared::clock;
use shared::error::Failure;
use shared::wire::{Fault, ToScheduler};

impl Executions {
    /// Ends executions of which nobody has had a byte without an outcome: it is the owner's to decide. What is not tried again
    /// ends there. No use is recorded: an attempt that failed costs nothing, and the last one's record must be the only one.
    pub(crate) fn give_back<'a>(&self, jobs: impl IntoIterator<Item = &'a Job>, fault: Fault, failure: &Failure) {
        let (now, mut parcels) = (clock::now(), Parcels::default());
        for job in jobs {
            if job.is_cancelled() {
                self.ended(job, Ended::CANCELLED);
                continue;
            }
            let Some(entry) = self.shop.table().end(job.id, job.exec) else { continue };
            parcels.add(job, &entry, now);
        }
        for (scheduler, returned, bodies) in parcels.sealed(&self.shop.id, fault, failure) {
            self.shop.outbox.post(Address::Scheduler(scheduler), &ToScheduler::Returned(returned), bodies);
        }
    }
}
