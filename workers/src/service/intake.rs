//! edge: each dispatch is accepted or refused at once; what is accepted runs in a task of its own.

use super::Shop;
use crate::accept::accept;
use crate::backend::Backend;
use crate::run::{self, Bench, Job};
use bytes::Bytes;
use shared::broker::Address;
use shared::clock;
use shared::config::Price;
use shared::domain::{ExecId, ModelKind, NodeId, RequestId};
use shared::entropy;
use shared::hear::messages;
use shared::task;
use shared::wire::{BackendCredit, Dispatch, RefuseReason, Resend, ToIngress, ToScheduler, ToWorker};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A model as this worker serves it.
pub(super) struct Served {
    pub(super) name: Box<str>,
    pub(super) max_items: u32,
    pub(super) price: Price,
    pub(super) backends: Vec<(BackendCredit, Backend)>,
}

pub(super) struct Intake {
    shop: Arc<Shop>,
}

impl Intake {
    pub(super) const fn new(shop: Arc<Shop>) -> Self {
        Self { shop }
    }

    pub(super) fn hear(&self, frame: &Bytes) {
        for (message, body) in messages(frame) {
            match message {
                ToWorker::Dispatch(dispatch) => self.dispatched(dispatch, &body),
                ToWorker::Resend(resend) => self.resend(resend),
            }
        }
    }

    /// Whoever asks: the parts go where they went before.
    fn resend(&self, Resend { exec, from }: Resend) {
        let parts = self.shop.spoken().since(exec, from);
        for (ingress, reply, body) in parts {
            self.shop.outbox.post(Address::Ingress(ingress), &ToIngress::Reply(reply), body);
        }
    }

    fn dispatched(&self, dispatch: Dispatch, body: &Bytes) {
        match self.accept(&dispatch, body) {
            Ok((bench, jobs)) => {
                let (worker, model, batch) = (self.shop.id.clone(), dispatch.model, dispatch.batch);
                self.answer(dispatch.scheduler, &ToScheduler::Accept { worker, model, batch });
                if !jobs.is_empty() {
                    execute(Arc::clone(&self.shop), bench, jobs);
                }
            }
            Err(reason) => {
                let (worker, model, batch) = (self.shop.id.clone(), dispatch.model, dispatch.batch);
                self.answer(dispatch.scheduler, &ToScheduler::Refuse { worker, model, batch, reason });
            }
        }
    }

    fn answer(&self, scheduler: NodeId, message: &ToScheduler) {
        self.shop.outbox.post(Address::Scheduler(scheduler), message, Bytes::new());
    }

    /// Enters what is new into the table; what already runs here is joined.
    fn accept(&self, dispatch: &Dispatch, body: &Bytes) -> Result<(Bench, Vec<Job>), RefuseReason> {
        let served = self.shop.served.get(&dispatch.model).ok_or(RefuseReason::UnknownModel)?;
        let backend = served.backends.iter().find(|(credit, _)| credit.name == dispatch.backend);
        let (credit, backend) = backend.ok_or(RefuseReason::UnknownModel)?;
        let jobs = accept(&mut self.shop.table(), dispatch, body, credit.concurrency, clock::now(), entropy::exec_id)?;
        let bench = Bench {
            model: served.name.clone(),
            backend_name: dispatch.backend.clone(),
            backend: backend.clone(),
            max_items: served.max_items,
            broker: Arc::clone(&self.shop.broker),
            executions: super::Executions::new(Arc::clone(&self.shop), dispatch.backend.clone(), served.price),
            metrics: self.shop.metrics.clone(),
        };
        Ok((bench, jobs))
    }
}

fn execute(shop: Arc<Shop>, bench: Bench, jobs: Vec<Job>) {
    let leftovers = Leftovers::of(shop, &jobs);
    task::spawn("execution", async move {
        let _leftovers = leftovers;
        let Some(first) = jobs.first() else { return };
        if first.envelope.op.kind() == ModelKind::Array {
            run::array(&bench, jobs).await;
        } else {
            for job in jobs {
                run::sequence(&bench, job).await;
            }
        }
    });
}

/// The executions of a task. Whatever happens to it, nothing of them stays in the table.
struct Leftovers {
    shop: Arc<Shop>,
    jobs: Vec<(RequestId, ExecId)>,
}

impl Leftovers {
    fn of(shop: Arc<Shop>, jobs: &[Job]) -> Self {
        shop.executing.fetch_add(1, Ordering::Relaxed);
        Self { shop, jobs: jobs.iter().map(|job| (job.id, job.exec)).collect() }
    }
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        let mut table = self.shop.table();
        for (id, exec) in &self.jobs {
            table.end(*id, *exec);
        }
        drop(table);
        self.shop.executing.fetch_sub(1, Ordering::Release);
    }
}
