//! loop: one generation: the backend's answer passed on whole, or event by event as it comes.

use super::{Bench, Ended, Job, claim, deadline_exceeded, log};
use crate::backend::{Answer, EventStream, GenerateCall};
use bytes::Bytes;
use shared::clock::{self, Time, millis};
use shared::error::Failure;
use shared::wire::{ItemEnd, ReplyHead, Usage};

/// Why a generation did not reach its end.
enum Stop {
    /// Nobody waits for it.
    Cancelled,
    Failed(Failure),
}

/// Runs one request to its end.
pub(crate) async fn run(bench: &Bench, job: Job) {
    let started = clock::now();
    let mut sent = 0;
    let outcome = tokio::select! {
        biased;
        () = job.cancel.cancelled() => Err(Stop::Cancelled),
        outcome = generate(bench, &job, started, &mut sent) => outcome,
        () = tokio::time::sleep_until(clock::instant(job.deadline)) => Err(Stop::Failed(deadline_exceeded())),
    };
    let failed = match &outcome {
        Err(Stop::Failed(failure)) => Some(failure.code),
        Ok(_) | Err(Stop::Cancelled) => None,
    };
    bench.metrics.called(&bench.model, &bench.backend_name, clock::now().since(started), failed);
    match outcome {
        Ok(End::Whole { body, usage, head }) => {
            let acks = bench.executions.report([(&job, Ended::answered(usage))]); // First: its place is free by now.
            bench.executions.answer(&job, head, &body, usage);
            bench.executions.ack(acks);
        }
        Ok(End::Streamed(usage)) => bench.executions.ended(&job, Ended::answered(usage)),
        Err(Stop::Cancelled) => bench.executions.ended(&job, Ended { end: ItemEnd::Cancelled, usage: served(&job, sent) }),
        Err(Stop::Failed(failure)) => {
            bench.executions.fail(&job, sent, failure);
            bench.executions.ended(&job, Ended { end: ItemEnd::Failed, usage: served(&job, sent) });
        }
    }
}

/// How a generation reached its end.
enum End {
    /// With the answer yet to be sent.
    Whole {
        head: ReplyHead,
        body: Bytes,
        usage: Usage,
    },
    Streamed(Usage),
}

async fn generate(bench: &Bench, job: &Job, started: Time, sent: &mut u32) -> Result<End, Stop> {
    let envelope = &job.envelope;
    let body = claim::body(bench.broker.as_ref(), envelope, &job.body).await.map_err(Stop::Failed)?;
    let call = GenerateCall {
        op: envelope.op,
        body,
        model_at: envelope.model_at,
        stream: envelope.stream,
        traceparent: envelope.traceparent.clone(),
    };
    let answer = bench.backend.generate(call).await.map_err(|error| {
        log(bench, &error);
        Stop::Failed(error.failure)
    })?;
    match answer {
        Answer::Whole { body, usage } => {
            let usage = usage.unwrap_or(Usage { input: envelope.tokens_in, output: envelope.tokens_out });
            Ok(End::Whole { head: head(bench, job, started), body, usage })
        }
        Answer::Stream(events) => pass_on(bench, job, started, events, sent).await.map(End::Streamed),
    }
}

/// Sends each event as one part; what is sent close together shares a frame on the way.
async fn pass_on(bench: &Bench, job: &Job, started: Time, mut events: EventStream, sent: &mut u32) -> Result<Usage, Stop> {
    let mut usage = None;
    while let Some(event) = events.next().await {
        let event = event.map_err(|error| {
            log(bench, &error);
            Stop::Failed(error.failure)
        })?;
        usage = event.usage.or(usage);
        let head = (*sent == 0).then(|| head(bench, job, started));
        *sent += bench.executions.parts(job, *sent, head, event.bytes);
    }
    bench.executions.last_part(job, *sent, usage);
    Ok(usage.unwrap_or_else(|| served(job, *sent)))
}

/// What a backend that does not say has done so far: an event carries about a token. Nothing sent, nothing served.
fn served(job: &Job, sent: u32) -> Usage {
    Usage { input: if sent == 0 { 0 } else { job.envelope.tokens_in }, output: sent }
}

fn head(bench: &Bench, job: &Job, started: Time) -> ReplyHead {
    let backend_ms = millis(clock::now().since(started));
    ReplyHead { backend: bench.backend_name.clone(), batch_size: 1, queue_ms: job.queue_ms, backend_ms }
}
