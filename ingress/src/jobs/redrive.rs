//! edge: the request of a job that failed for good, submitted again as a job of its own.

use super::submit;
use crate::gate::{Gate, model_not_found};
use crate::native;
use bytes::Bytes;
use shared::broker::Store;
use shared::error::{Code, Failure};
use shared::jobs::{self, DeadLetter, Job};
use shared::wire::Envelope;

/// Runs a dead job's request again. However often it is asked for, it is the same new job.
///
/// # Errors
/// `not_found` when job or request are not kept any more, `model_not_found`, `queue_full`, `broker_unavailable`.
pub(crate) async fn redrive(gate: &Gate, letter: &DeadLetter) -> Result<Job, Failure> {
    let stored = jobs::get::<Job>(gate.broker(), &letter.tenant, &letter.job).await.map_err(|error| native::of_store(&error))?;
    let dead = stored.ok_or_else(not_kept)?.value;
    let (envelope, body) = request(gate, &dead).await?;
    if !gate.models.contains_key(&*envelope.model) {
        return Err(model_not_found());
    }
    submit::again(gate, &dead, envelope, body).await
}

/// What a job asked, with its whole body.
async fn request(gate: &Gate, job: &Job) -> Result<(Envelope, Bytes), Failure> {
    let broken = |error| native::of_broker(&error);
    let (mut envelope, body) = submit::input(gate.broker(), &job.id).await.map_err(broken)?.ok_or_else(not_kept)?;
    let Some(claim) = envelope.claim.take() else { return Ok((envelope, body)) };
    let body = gate.broker().blob_get(Store::Files, &claim.key).await.map_err(broken)?.ok_or_else(not_kept)?;
    Ok((envelope, body))
}

fn not_kept() -> Failure {
    Failure::new(Code::NotFound, "The request is not kept any more: its owner has to submit it again")
}
