//! loop: one generation: the backend's answer passed on whole, or event by event as it comes.

use super::{Bench, Ended, Job, claim, deadline_exceeded, log};
use crate::backend::{Answer, EventStream, GenerateCall};
use shared::clock::{self, Time, millis};
use shared::error::Failure;
use shared::wire::{ReplyHead, Usage};

/// Why a generation did not reach its end: nobody waits for it, or it failed after `parts` parts were sent.
enum Stop {
    Cancelled,
    Failed { failure: Failure, parts: u32 },
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed { failure, parts: 0 }
    }
}

/// Runs one request to its end.
pub(crate) async fn run(bench: &Bench, job: Job) {
    let started = clock::now();
    let mut sent = 0;
    let outcome = tokio::select! {
        biased;
        () = job.cancel.cancelled() => Err(Stop::Cancelled),
        outcome = generate(bench, &job, started, &mut sent) => outcome,
        () = tokio::time::sleep_until(clock::instant(job.deadline)) => Err(Stop::from(deadline_exceeded())),
    };
    let failed = match &outcome {
        Err(Stop::Failed { failure, .. }) => Some(failure.code),
        Ok(_) | Err(Stop::Cancelled) => None,
    };
    bench.metrics.called(&bench.model, &bench.backend_name, clock::now().since(started), failed);
    match outcome {
        Ok(usage) => bench.executions.ended(&job, Ended::answered(usage)),
        Err(Stop::Cancelled) => bench.executions.ended(&job, Ended::CANCELLED),
        Err(Stop::Failed { failure, parts }) => {
            bench.executions.fail(&job, parts.max(sent), failure);
            bench.executions.ended(&job, Ended::FAILED);
        }
    }
}

async fn generate(bench: &Bench, job: &Job, started: Time, sent: &mut u32) -> Result<Usage, Stop> {
    let envelope = &job.envelope;
    let body = claim::body(bench.broker.as_ref(), envelope, &job.body).await?;
    let call = GenerateCall {
        op: envelope.op,
        body,
        model_at: envelope.model_at,
        stream: envelope.stream,
        traceparent: envelope.traceparent.clone(),
    };
    let answer = bench.backend.generate(call).await.map_err(|error| {
        log(bench, &error);
        error.failure
    })?;
    let estimate = Usage { input: envelope.tokens_in, output: 0 };
    match answer {
        Answer::Whole { body, usage } => {
            let usage = usage.unwrap_or(estimate);
            bench.executions.answer(job, head(bench, job, started), &body, usage);
            Ok(usage)
        }
        Answer::Stream(events) => pass_on(bench, job, started, events, sent).await.map(|usage| usage.unwrap_or(estimate)),
    }
}

/// Sends each event as one part; what is sent close together shares a frame on the way.
async fn pass_on(bench: &Bench, job: &Job, started: Time, mut events: EventStream, sent: &mut u32) -> Result<Option<Usage>, Stop> {
    let mut usage = None;
    while let Some(event) = events.next().await {
        let event = event.map_err(|error| {
            log(bench, &error);
            Stop::Failed { failure: error.failure, parts: *sent }
        })?;
        usage = event.usage.or(usage);
        let head = (*sent == 0).then(|| head(bench, job, started));
        bench.executions.part(job, *sent, head, event.bytes);
        *sent += 1;
    }
    bench.executions.last_part(job, *sent, usage);
    Ok(usage)
}

fn head(bench: &Bench, job: &Job, started: Time) -> ReplyHead {
    let backend_ms = millis(clock::now().since(started));
    ReplyHead { backend: bench.backend_name.clone(), batch_size: 1, queue_ms: job.queue_ms, backend_ms }
}
