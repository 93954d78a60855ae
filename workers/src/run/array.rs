//! loop: one array batch: one backend call for many requests, halved when one of them may have spoilt it.

use super::deferred::{self, Concluded};
use super::split::{Groups, Over, apportion};
use super::{Bench, Ended, Job, claim, deadline_exceeded, log, respond};
use crate::backend::{BackendError, EmbedCall, Embedded};
use bytes::Bytes;
use futures::StreamExt;
use futures::channel::mpsc::{self, UnboundedReceiver, UnboundedSender};
use futures::stream::FuturesUnordered;
use serde_json::value::RawValue;
use shared::clock::{self, Time, millis};
use shared::error::Failure;
use shared::wire::{Fault, ReplyHead, Usage};
use std::future::pending;

/// Runs a batch until every job is answered, given back, or was cancelled.
pub(crate) async fn run(bench: &Bench, jobs: Vec<Job>) {
    let (jobs, lost) = claimed(bench, deferred::begin(bench, jobs).await).await;
    let (concluded, conclusions) = mpsc::unbounded();
    let calls = async {
        lost.iter().for_each(|(job, failure)| fail(bench, [job], None, failure, &concluded));
        call_all(bench, &jobs, &concluded).await;
        drop(concluded);
    };
    // Beside the calls: a store that is full or away holds up nobody who waits on the line.
    tokio::join!(calls, conclude(bench, conclusions));
}

/// Where the ends of deferred requests are left that are to go on record: at most one for each request.
type Conclusions<'a> = UnboundedSender<Vec<Concluded<'a>>>;

async fn conclude(bench: &Bench, mut conclusions: UnboundedReceiver<Vec<Concluded<'_>>>) {
    let mut under_way = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some(concluded) = conclusions.next() => under_way.push(deferred::conclude(bench, concluded)),
            Some(()) = under_way.next() => {}
            else => return,
        }
    }
}

async fn call_all<'a>(bench: &Bench, jobs: &'a [Job], concluded: &Conclusions<'a>) {
    let mut groups = Groups::whole(jobs.len());
    while let Some(range) = groups.take() {
        let group = &jobs[range];
        let failed = tokio::select! {
            biased;
            () = abandoned(group) => {
                group.iter().for_each(|job| bench.executions.ended(job, Ended::CANCELLED));
                None
            }
            result = call(bench, group) => match result {
                Ok(answer) => {
                    answer.send(bench, group, concluded);
                    None
                }
                Err(error) => Some(error),
            },
            () = expired(group) => {
                fail(bench, group, None, &deadline_exceeded(), concluded);
                None
            }
        };
        let over = match failed {
            Some(error) => groups.failed(error),
            None => groups.settled().into_iter().collect(),
        };
        for Over { ranges, error } in over {
            give_up(bench, ranges.into_iter().flat_map(|range| &jobs[range]), &error, concluded);
        }
    }
}

/// Of these no further call is made here.
fn give_up<'a>(bench: &Bench, group: impl Iterator<Item = &'a Job>, error: &BackendError, concluded: &Conclusions<'a>) {
    log(bench, error);
    if error.fault.is_curable() {
        bench.executions.give_back(group, error.fault, &error.failure);
    } else {
        fail(bench, group, Some(error.fault), &error.failure, concluded);
    }
}

/// The jobs with their bodies at hand, and those whose body is lost.
async fn claimed(bench: &Bench, jobs: Vec<Job>) -> (Vec<Job>, Vec<(Job, Failure)>) {
    let (mut ready, mut lost) = (Vec::with_capacity(jobs.len()), Vec::new());
    let can_wait = jobs.iter().all(Job::is_deferred);
    for mut job in jobs {
        let until = if can_wait { job.deadline } else { Time::ZERO };
        match claim::body(bench.broker.as_ref(), &job, until).await {
            Ok(body) => {
                job.body = body;
                ready.push(job);
            }
            Err(failure) => lost.push((job, failure)),
        }
    }
    (ready, lost)
}

/// Resolves when nobody waits for any of the group.
async fn abandoned(group: &[Job]) {
    for job in group {
        job.cancel.cancelled().await;
    }
}

/// Resolves when the last deadline of the group has passed.
async fn expired(group: &[Job]) {
    match group.iter().map(|job| job.deadline).max() {
        Some(deadline) => tokio::time::sleep_until(clock::instant(deadline)).await,
        None => pending().await,
    }
}

struct Answer {
    embedded: Embedded,
    batch_size: u32,
    backend_ms: u32,
}

async fn call(bench: &Bench, group: &[Job]) -> Result<Answer, BackendError> {
    let started = clock::now();
    let batch_size = group.iter().map(|job| job.envelope.items).sum();
    bench.metrics.inputs(&bench.model, &bench.backend_name, batch_size);
    let embedded = match group {
        [only] if only.envelope.items > bench.max_items => embed_in_pieces(bench, only).await,
        _ => embed(bench, group, batch_size).await,
    };
    let took = clock::now().since(started);
    let failed = embedded.as_ref().err().map(|error| error.failure.code);
    bench.metrics.called(&bench.model, &bench.backend_name, took, failed);
    Ok(Answer { embedded: embedded?, batch_size, backend_ms: millis(took) })
}

async fn embed(bench: &Bench, group: &[Job], count: u32) -> Result<Embedded, BackendError> {
    let inputs: Vec<Bytes> = group.iter().map(|job| job.body.clone()).collect();
    let first = &group[0].envelope;
    let traceparent = if group.len() == 1 { first.traceparent.as_deref() } else { None };
    bench.backend.embed(EmbedCall { inputs: &inputs, count, params: &first.params, traceparent }).await
}

/// A single request with more inputs than one call may carry: several calls, one answer.
async fn embed_in_pieces(bench: &Bench, job: &Job) -> Result<Embedded, BackendError> {
    let list = [b"[", job.body.as_ref(), b"]"].concat();
    let inputs: Vec<&RawValue> = serde_json::from_slice(&list).map_err(|_| BackendError::inputs_unreadable())?;
    let mut whole = Embedded { vectors: Vec::with_capacity(inputs.len()), prompt_tokens: Some(0) };
    for piece in inputs.chunks(bench.max_items as usize) {
        let body = piece.iter().map(|input| input.get()).collect::<Vec<_>>().join(",");
        let count = u32::try_from(piece.len()).unwrap_or(u32::MAX);
        let call =
            EmbedCall { inputs: &[body.into()], count, params: &job.envelope.params, traceparent: job.envelope.traceparent.as_deref() };
        let part = bench.backend.embed(call).await?;
        whole.vectors.extend(part.vectors);
        whole.prompt_tokens = whole.prompt_tokens.zip(part.prompt_tokens).map(|(sum, tokens): (u32, u32)| sum.saturating_add(tokens));
    }
    Ok(whole)
}

impl Answer {
    /// Each caller gets its own vectors and its share of the tokens. The call's end is reported first: the accelerator is
    /// free, and the next batch need not wait for these answers to be written.
    fn send<'a>(&self, bench: &Bench, group: &'a [Job], conclusions: &Conclusions<'a>) {
        let estimates: Vec<u32> = group.iter().map(|job| job.envelope.tokens_in).collect();
        let tokens = self.embedded.prompt_tokens.map_or_else(|| estimates.clone(), |total| apportion(total, &estimates));
        let answered = |input| Ended::answered(Usage { input, output: 0 });
        let ended = |(job, tokens): (_, &u32)| if Job::is_cancelled(job) { (job, Ended::CANCELLED) } else { (job, answered(*tokens)) };
        bench.executions.report(group.iter().zip(&tokens).filter(|(job, _)| !job.is_deferred()).map(ended));
        bench.executions.free(group.iter().zip(&tokens).filter(|(job, _)| job.is_deferred()).map(ended));

        let mut concluded = Vec::new();
        let mut vectors = self.embedded.vectors.as_slice();
        for (job, tokens) in group.iter().zip(tokens) {
            let (own, rest) = vectors.split_at((job.envelope.items as usize).min(vectors.len()));
            vectors = rest;
            if job.is_deferred() {
                let answer = respond::embeddings(own, job.envelope.encoding, &job.envelope.model, tokens);
                concluded.push(Concluded { job, ended: answered(tokens), answer: Ok(answer) });
            } else if !job.is_cancelled() {
                self.send_one(bench, job, own, tokens);
            }
        }
        leave(concluded, conclusions);
    }

    fn send_one(&self, bench: &Bench, job: &Job, vectors: &[Vec<f32>], tokens: u32) {
        let body = respond::embeddings(vectors, job.envelope.encoding, &job.envelope.model, tokens);
        let head = ReplyHead {
            backend: bench.backend_name.clone(),
            model: job.fallback(),
            batch_size: self.batch_size,
            queue_ms: job.queue_ms,
            standing: job.standing.clone(),
            backend_ms: self.backend_ms,
            keeper: None,
        };
        bench.executions.answer(job, head, &body, Usage { input: tokens, output: 0 });
    }
}

fn fail<'a>(
    bench: &Bench,
    group: impl IntoIterator<Item = &'a Job>,
    fault: Option<Fault>,
    failure: &Failure,
    conclusions: &Conclusions<'a>,
) {
    let (ended, mut concluded) = (Ended::failed(fault, Usage::default()), Vec::new());
    for job in group {
        if job.is_deferred() {
            concluded.push(Concluded { job, ended, answer: Err(failure.clone()) });
        } else if job.is_cancelled() {
            bench.executions.ended(job, Ended::CANCELLED);
        } else {
            bench.executions.fail(job, 0, failure.clone());
            bench.executions.ended(job, ended);
        }
    }
    leave(concluded, conclusions);
}

fn leave<'a>(concluded: Vec<Concluded<'a>>, conclusions: &Conclusions<'a>) {
    if !concluded.is_empty() {
        let _ = conclusions.unbounded_send(concluded); // It is heard for as long as there are calls.
    }
}
