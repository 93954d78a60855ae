//! loop: one generation: the backend's answer passed on whole, or its events as they come.

use super::deferred::{self, Concluded};
use super::log::Log;
use super::{Bench, Ended, Job, claim, deadline_exceeded, log};
use crate::backend::{Answer, BackendError, Event, EventStream, GenerateCall};
use bytes::{Bytes, BytesMut};
use shared::clock::{self, Time, millis};
use shared::error::{Code, Failure};
use shared::wire::{Fault, ReplyHead, Usage};
use std::time::Duration;

/// Why a generation did not reach its end.
pub(super) enum Stop {
    /// Nobody waits for it.
    Cancelled,
    /// Here, with the deadline or the body.
    Failed(Failure),
    /// At the backend.
    Spoilt(Fault, Failure),
}

impl Stop {
    const fn code(&self) -> Option<Code> {
        match self {
            Self::Cancelled => None,
            Self::Failed(failure) | Self::Spoilt(_, failure) => Some(failure.code),
        }
    }
}

/// Events that came together are sent together up to this size.
const BURST_BYTES_MAX: usize = 32 * 1024;

/// A stream is passed on at no more than this in a millisecond. No model writes so fast; a server that has the whole answer
/// does, and would overflow the buffer of a caller who reads as fast as anybody can.
const PACE_BYTES: usize = 32 * 1024;
const PACE: Duration = Duration::from_millis(1);

/// What of a stream has been sent.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    parts: u32,
    events: u32,
}

/// Runs one request until it has its end, or gives it back: as long as nobody has had a byte of it, another try may do better.
pub(crate) async fn run(bench: &Bench, job: Job) {
    let Some(job) = deferred::begin(bench, vec![job]).await.pop() else { return };
    let started = clock::now();
    let mut progress = Progress::default();
    let outcome = tokio::select! {
        biased;
        () = job.cancel.cancelled() => Err(Stop::Cancelled),
        outcome = generate(bench, &job, started, &mut progress) => outcome,
        () = tokio::time::sleep_until(clock::instant(job.deadline)) => Err(Stop::Failed(deadline_exceeded())),
    };
    let failed = outcome.as_ref().err().and_then(Stop::code);
    bench.metrics.called(&bench.model, &bench.backend_name, clock::now().since(started), failed);
    if let Err(Stop::Spoilt(fault, failure)) = &outcome
        && progress.events == 0
        && fault.is_curable()
    {
        return bench.executions.give_back([&job], *fault, failure);
    }
    if job.is_deferred() {
        return conclude(bench, &job, outcome, progress).await;
    }
    match outcome {
        Ok(End::Whole { body, usage, head }) => {
            bench.executions.report([(&job, Ended::answered(usage))]); // First: its place is free by now.
            bench.executions.answer(&job, head, &body, usage);
        }
        Ok(End::Streamed(usage)) => bench.executions.ended(&job, Ended::answered(usage)),
        Err(stop) => end_badly(bench, &job, stop, progress),
    }
}

fn end_badly(bench: &Bench, job: &Job, stop: Stop, progress: Progress) {
    let served = served(job, progress);
    let (fault, failure) = match stop {
        Stop::Cancelled => return bench.executions.ended(job, Ended::cancelled(served)),
        Stop::Failed(failure) => (None, failure),
        Stop::Spoilt(fault, failure) => (Some(fault), failure),
    };
    bench.executions.fail(job, progress.parts, failure);
    bench.executions.ended(job, Ended::failed(fault, served));
}

/// Puts a deferred generation's outcome on record.
async fn conclude(bench: &Bench, job: &Job, outcome: Result<End, Stop>, progress: Progress) {
    let served = served(job, progress);
    let (ended, answer) = match outcome {
        Ok(End::Whole { body, usage, .. }) => (Ended::answered(usage), Ok(body)),
        Ok(End::Streamed(usage)) => (Ended::answered(usage), Ok(Bytes::new())),
        Err(Stop::Cancelled) => return bench.executions.ended(job, Ended::cancelled(served)),
        Err(Stop::Failed(failure)) => (Ended::failed(None, served), Err(failure)),
        Err(Stop::Spoilt(fault, failure)) => (Ended::failed(Some(fault), served), Err(failure)),
    };
    deferred::conclude(bench, vec![Concluded { job, ended, answer }]).await;
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

async fn generate(bench: &Bench, job: &Job, started: Time, progress: &mut Progress) -> Result<End, Stop> {
    let envelope = &job.envelope;
    let until = if job.is_deferred() { job.deadline } else { started };
    let body = claim::body(bench.broker.as_ref(), job, until).await.map_err(Stop::Failed)?;
    let call = GenerateCall {
        op: envelope.op,
        body,
        model_at: envelope.model_at,
        stream: envelope.stream,
        traceparent: envelope.traceparent.clone(),
    };
    let answer = bench.backend.generate(call).await.map_err(|error| stop(bench, error))?;
    match (answer, &envelope.job) {
        (Answer::Whole { body, usage }, _) => {
            let usage = usage.unwrap_or(Usage { input: envelope.tokens_in, output: envelope.tokens_out });
            Ok(End::Whole { head: head(bench, job, started), body, usage })
        }
        (Answer::Stream(events), Some(of)) => {
            let (body, usage) = keep(bench, job, Log::begin(bench, job, of), events, progress).await?;
            Ok(End::Whole { head: head(bench, job, started), body, usage })
        }
        (Answer::Stream(events), None) => pass_on(bench, job, started, events, progress).await.map(End::Streamed),
    }
}

/// Sends events on as they come. Those that came together go together: one part instead of one for each token.
async fn pass_on(bench: &Bench, job: &Job, started: Time, mut events: EventStream, progress: &mut Progress) -> Result<Usage, Stop> {
    let (mut usage, mut pace) = (None, Pace::default());
    while let Some(event) = events.next().await {
        let (burst, broken) = match event {
            Ok(first) => burst(first, &mut events),
            Err(error) => return Err(stop(bench, error)),
        };
        usage = burst.usage.or(usage);
        if progress.parts == 0 {
            bench.executions.begun(job);
        }
        let head = (progress.parts == 0).then(|| ReplyHead { keeper: bench.executions.keeper(), ..head(bench, job, started) });
        let bytes = burst.bytes.len();
        progress.parts += bench.executions.parts(job, progress.parts, head, burst.bytes);
        progress.events += burst.events;
        if let Some(error) = broken {
            return Err(stop(bench, error));
        }
        pace.keep(bytes).await;
    }
    bench.executions.last_part(job, progress.parts, usage);
    Ok(usage.unwrap_or_else(|| served(job, *progress)))
}

/// Puts events on record as they come. What is left for the outcome is the response that the last one carries, if it does.
async fn keep(
    bench: &Bench,
    job: &Job,
    mut log: Log<'_>,
    mut events: EventStream,
    progress: &mut Progress,
) -> Result<(Bytes, Usage), Stop> {
    let (mut usage, mut response) = (None, None);
    loop {
        let event = tokio::select! {
            biased;
            event = events.next() => event,
            () = log.due() => {
                log.flush(false).await?;
                continue;
            }
        };
        let Some(event) = event else { break };
        let event = event.map_err(|error| stop(bench, error))?;
        if progress.events == 0 {
            bench.executions.begun(job);
        }
        progress.events += 1;
        log.add(&event, events.is_complete()).await?;
        (usage, response) = (event.usage.or(usage), event.response);
    }
    Ok((response.unwrap_or_default(), usage.unwrap_or_else(|| served(job, *progress))))
}

/// How much has been sent since when.
#[derive(Default)]
struct Pace {
    since: Time,
    bytes: usize,
}

impl Pace {
    async fn keep(&mut self, bytes: usize) {
        self.bytes += bytes;
        if self.bytes < PACE_BYTES {
            return;
        }
        if clock::now().since(self.since) < PACE {
            tokio::time::sleep(PACE).await;
        }
        *self = Self { since: clock::now(), bytes: 0 };
    }
}

/// Events that came together.
struct Burst {
    bytes: Bytes,
    events: u32,
    usage: Option<Usage>,
}

/// `first` and what has come behind it; and the error that ends the stream after them.
fn burst(first: Event, events: &mut EventStream) -> (Burst, Option<BackendError>) {
    let (mut bytes, mut count, mut usage, mut broken) = (BytesMut::from(first.bytes), 1, first.usage, None);
    while bytes.len() < BURST_BYTES_MAX
        && let Some(next) = events.ready()
    {
        match next {
            Ok(event) => {
                bytes.extend_from_slice(&event.bytes);
                count += 1;
                usage = event.usage.or(usage);
            }
            Err(error) => {
                broken = Some(error);
                break;
            }
        }
    }
    (Burst { bytes: bytes.freeze(), events: count, usage }, broken)
}

fn stop(bench: &Bench, error: BackendError) -> Stop {
    log(bench, &error);
    Stop::Spoilt(error.fault, error.failure)
}

/// What a backend that does not say has done so far: an event carries about a token. Nothing sent, nothing served.
fn served(job: &Job, progress: Progress) -> Usage {
    Usage { input: if progress.events == 0 { 0 } else { job.envelope.tokens_in }, output: progress.events }
}

fn head(bench: &Bench, job: &Job, started: Time) -> ReplyHead {
    let backend_ms = millis(clock::now().since(started));
    ReplyHead {
        backend: bench.backend_name.clone(),
        model: job.fallback(),
        batch_size: 1,
        queue_ms: job.queue_ms,
        backend_ms,
        standing: job.standing.clone(),
        keeper: None,
    }
}
