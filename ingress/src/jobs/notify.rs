//! edge: tells a tenant's webhooks what has ended, once for each end: the record says whether they have been told. What began while a
//! tenant wanted to hear of nothing counts as told: a webhook that comes later is not told what happened before it.

use crate::gate::Gate;
use crate::responses;
use crate::webhooks::Event;
use shared::config::EventKind;
use shared::jobs::{self, Batch, BatchState, Job, State, StoreError};

/// # Errors
/// Those of the broker: tell them again.
pub(crate) async fn of_job(gate: &Gate, job: &Job) -> Result<(), StoreError> {
    let Some(ended_ms) = job.ended_ms.filter(|_| !job.notified && gate.webhooks.concern(&job.tenant)) else { return Ok(()) };
    let kind = if job.is_response() { responses::event(gate, job).await? } else { event(job.state) };
    gate.webhooks.announce(&job.tenant, &Event::new(kind, job.id.as_str(), ended_ms / 1_000)).await?;
    jobs::change(gate.broker(), &job.tenant, &job.id, |job: &mut Job| !std::mem::replace(&mut job.notified, true)).await.map(drop)
}

const fn event(state: State) -> EventKind {
    match state {
        State::Succeeded => EventKind::JobSucceeded,
        State::Cancelled => EventKind::JobCancelled,
        State::Expired => EventKind::JobExpired,
        _ => EventKind::JobFailed,
    }
}

/// # Errors
/// Those of the broker: tell them again.
pub(crate) async fn of_batch(gate: &Gate, batch: &Batch) -> Result<(), StoreError> {
    let Some(ended_ms) = batch.ended_ms.filter(|_| !batch.notified && gate.webhooks.concern(&batch.tenant)) else { return Ok(()) };
    let kind = match batch.state {
        BatchState::Completed => EventKind::BatchCompleted,
        BatchState::Cancelled => EventKind::BatchCancelled,
        BatchState::Expired => EventKind::BatchExpired,
        _ => EventKind::BatchFailed,
    };
    gate.webhooks.announce(&batch.tenant, &Event::new(kind, batch.id.as_str(), ended_ms / 1_000)).await?;
    jobs::change(gate.broker(), &batch.tenant, &batch.id, |batch: &mut Batch| !std::mem::replace(&mut batch.notified, true)).await.map(drop)
}
