//! edge: what is different for deferred requests: nobody waits at an inbox. A single job's record says that it runs before it runs,
//! so that one which kills its worker is noticed; and each outcome is on record before anybody hears that its request has ended.

use super::{Bench, Ended, Job};
use bytes::Bytes;
use futures::future::join_all;
use shared::broker::Broker;
use shared::clock;
use shared::error::{Code, Failure};
use shared::jobs::{self, Commit, Outcome, State, StoreError};
use shared::wire::{JobRef, Usage};

/// Executions of one job. A request that needs more takes its workers with it.
const ATTEMPTS_MAX: u32 = 5;

/// How a deferred request ended.
pub(super) struct Concluded<'a> {
    pub(super) job: &'a Job,
    pub(super) ended: Ended,
    pub(super) answer: Result<Bytes, Failure>,
}

/// Whether a request may be run.
pub enum Begun {
    Yes,
    /// It has ended, or is cancelled.
    Over,
    Failed(Failure),
}

/// Those of the batch that are to be run. Each of the others is at its end.
pub(super) async fn begin(bench: &Bench, batch: Vec<Job>) -> Vec<Job> {
    let single = |job: &Job| job.envelope.job.as_ref().is_some_and(|of| !of.line);
    if !batch.iter().any(single) {
        return batch;
    }
    let begun =
        join_all(batch.iter().map(|job| async move { if single(job) { begin_one(bench.broker.as_ref(), job).await } else { Begun::Yes } }))
            .await;
    let mut to_run = Vec::with_capacity(batch.len());
    for (job, begun) in batch.into_iter().zip(begun) {
        match begun {
            Begun::Yes => to_run.push(job),
            Begun::Over => bench.executions.ended(&job, Ended::CANCELLED),
            Begun::Failed(failure) => {
                let ended = Ended::failed(None, Usage::default());
                conclude(bench, vec![Concluded { job: &job, ended, answer: Err(failure) }]).await;
            }
        }
    }
    to_run
}

/// Puts on record that a single job runs.
pub async fn begin_one(broker: &dyn Broker, job: &Job) -> Begun {
    let Some(of) = &job.envelope.job else { return Begun::Yes };
    let (exec, again, now_ms) = (job.exec, job.again, clock::unix_ms());
    let begin = |job: &mut jobs::Job| if again { job.begun_again(exec, now_ms) } else { job.begun(exec, now_ms) };
    match jobs::change(broker, &job.envelope.tenant, &of.job, begin).await {
        Ok(stored) if stored.value.state != State::Running => Begun::Over,
        Ok(stored) if stored.value.attempts > ATTEMPTS_MAX => Begun::Failed(poison()),
        Ok(_) => Begun::Yes,
        Err(StoreError::NotFound) => Begun::Over,
        Err(error) => {
            tracing::warn!(%error, job = %of.job, "a job's beginning is not on record; it is run all the same");
            Begun::Yes
        }
    }
}

fn poison() -> Failure {
    let message = format!("The request was begun {ATTEMPTS_MAX} times and its worker did not live to answer: it is not tried again");
    Failure::new(Code::Poison, message)
}

/// Puts outcomes on record, then reports their ends.
pub(super) async fn conclude(bench: &Bench, concluded: Vec<Concluded<'_>>) {
    let commits = concluded.iter().filter(|one| !one.job.is_cancelled()).filter_map(|one| {
        let of: JobRef = one.job.envelope.job.as_deref()?.clone();
        let (failure, body) = match &one.answer {
            Ok(body) => (None, body.clone()),
            Err(failure) => (Some(Box::new(failure.clone())), Bytes::new()),
        };
        let outcome = Outcome { row: of.row, id: one.job.id, exec: Some(one.job.exec), failure, usage: one.ended.usage, blob: None };
        Some(Commit { tenant: one.job.envelope.tenant.clone(), of, outcome, body })
    });
    let commits: Vec<Commit> = commits.collect();
    let ended = |one: &Concluded<'_>| if one.job.is_cancelled() { Ended::CANCELLED } else { one.ended };
    bench.executions.free(concluded.iter().map(|one| (one.job, ended(one))));
    jobs::commit(bench.broker.as_ref(), commits).await;
    bench.executions.report(concluded.iter().map(|one| (one.job, ended(one))));
}
