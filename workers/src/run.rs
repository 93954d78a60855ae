//! loop: the execution of one accepted batch: claim large bodies, call the backend, answer each request, report.

mod array;
mod claim;
mod deferred;
mod log;
mod respond;
mod sequence;
mod split;

pub(crate) use array::run as array;
pub use deferred::{Begun, begin_one};
pub(crate) use sequence::run as sequence;
pub use split::{Groups, Over};

use crate::backend::{Backend, BackendError};
use crate::metrics::Metrics;
use crate::service::Executions;
use bytes::Bytes;
use shared::broker::Broker;
use shared::clock::Time;
use shared::domain::{ExecId, RequestId};
use shared::error::{Code, Failure};
use shared::quota::Standing;
use shared::wire::{Envelope, Fault, ItemDone, ItemEnd, Usage};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What every execution is given.
pub(crate) struct Bench {
    pub(crate) model: Box<str>,
    pub(crate) backend_name: Box<str>,
    pub(crate) backend: Backend,
    /// Inputs that one array call may carry.
    pub(crate) max_items: u32,
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) executions: Executions,
    pub(crate) metrics: Metrics,
}

/// One accepted request.
#[derive(Clone, Debug)]
pub struct Job {
    pub id: RequestId,
    pub exec: ExecId,
    pub envelope: Arc<Envelope>,
    pub body: Bytes,
    pub queue_ms: u32,
    /// It was returned before.
    pub again: bool,
    /// How the caller's limits stood, for the head of the answer.
    pub standing: Option<Box<Standing>>,
    pub deadline: Time,
    pub cancel: CancellationToken,
}

impl Job {
    /// Whether its outcome goes on record instead of to an inbox.
    pub fn is_deferred(&self) -> bool {
        self.envelope.job.is_some()
    }

    /// The model that serves it, if that is not the one that was asked for.
    pub(crate) fn fallback(&self) -> Option<Box<str>> {
        self.envelope.asked.is_some().then(|| self.envelope.model.clone())
    }

    /// Whether nobody waits for it any more.
    pub fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }
}

/// How a job ended, for the report.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    pub(crate) end: ItemEnd,
    pub(crate) usage: Usage,
    /// What went wrong at the backend, if that is why.
    pub(crate) fault: Option<Fault>,
}

impl Ended {
    pub(crate) const CANCELLED: Self = Self::cancelled(Usage { input: 0, output: 0 });

    const fn answered(usage: Usage) -> Self {
        Self { end: ItemEnd::Answered, usage, fault: None }
    }

    const fn cancelled(usage: Usage) -> Self {
        Self { end: ItemEnd::Cancelled, usage, fault: None }
    }

    const fn failed(fault: Option<Fault>, usage: Usage) -> Self {
        Self { end: ItemEnd::Failed, usage, fault }
    }

    pub(crate) const fn of(self, job: &Job) -> ItemDone {
        ItemDone { id: job.id, end: self.end, usage: self.usage, fault: self.fault }
    }
}

fn deadline_exceeded() -> Failure {
    Failure::new(Code::DeadlineExceeded, "The deadline passed before the backend answered; allow more time for this request.")
}

/// Logs a backend's failure once, where it is handled.
fn log(bench: &Bench, error: &BackendError) {
    tracing::warn!(model = %bench.model, backend = %bench.backend_name, code = %error.failure.code, detail = %error.detail, "a backend call failed");
}
