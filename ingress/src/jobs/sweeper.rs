//! loop: what the queue may have forgotten, and what has been kept long enough: one ingress at a time goes through the records.
//!
//! A record is the truth: a job that its lane no longer holds and that has no outcome is put into the lane again, one whose
//! outcome did not reach the record is ended, one whose deadline has passed is expired.

use super::notify;
use super::submit::{input, request_id, subject};
use crate::files;
use crate::gate::Gate;
use crate::lease::Lease;
use bytes::Bytes;
use shared::broker::{Broker, BrokerError, Feed, Follower, Journal, Since, Store, Topic};
use shared::clock;
use shared::domain::Token;
use shared::entropy;
use shared::error::{Code, Failure};
use shared::jobs::{self, Batch, Commit, File, Job, Kept, Outcome, Place, StoreError};
use shared::wire::{JobRef, Usage, encode_one};
use std::collections::HashSet;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// Between two rounds; a round that took long is followed by a pause in proportion.
const ROUND: Duration = Duration::from_secs(5);
const PAUSE_PER_ROUND: u32 = 10;

/// A job younger than this is still on its way into its lane.
const SETTLED_MS: u64 = 10_000;

/// How long after its deadline a job whose worker has said nothing is expired.
const GRACE_MS: u64 = 5_000;

/// Whoever has the lease goes round, until it is dropped.
pub(crate) async fn run(gate: Arc<Gate>) {
    let key = Token::parse("jobs_sweeper").expect("a token");
    loop {
        match Lease::take(&gate.road.broker, &key, &gate.road.id).await {
            Ok(Some(lease)) => drop(lease.during(rounds(&gate)).await),
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, "the sweeper's lease cannot be taken now"),
        }
        tokio::time::sleep(ROUND).await;
    }
}

async fn rounds(gate: &Gate) {
    loop {
        let began = clock::now();
        for round in [jobs_round(gate).await, batches_round(gate).await, files_round(gate.broker()).await] {
            if let Err(error) = round {
                tracing::warn!(%error, "the records of jobs cannot be gone through; trying again");
            }
        }
        tokio::time::sleep(ROUND.max(clock::now().since(began) * PAUSE_PER_ROUND)).await;
    }
}

/// All records of a bucket, one after the other.
struct Walk<T> {
    follower: Box<dyn Follower>,
    more: bool,
    of: PhantomData<fn() -> T>,
}

impl<T: Kept> Walk<T> {
    async fn begin(broker: &dyn Broker) -> Result<Self, StoreError> {
        let follower = broker.follow(&Feed::Records(T::BUCKET, None), Since::Start).await?;
        Ok(Self { follower, more: true, of: PhantomData })
    }

    async fn next(&mut self) -> Result<Option<T>, StoreError> {
        while self.more {
            let Some(entry) = self.follower.next(Duration::ZERO).await? else { return Ok(None) };
            self.more = entry.more;
            match jobs::of_entry::<T>(&entry) {
                Ok(Some(stored)) => return Ok(Some(stored.value)),
                Ok(None) => {}
                Err(error) => tracing::error!(%error, "a record is passed over"),
            }
        }
        Ok(None)
    }
}

/// What a job's record asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// It was kept long enough.
    Forget,
    /// It has ended, and its tenant may have to hear so.
    Tell,
    Expire,
    /// Its lane may have forgotten it.
    LookAfter,
    Nothing,
}

pub const fn duty(job: &Job, now_ms: u64, keep_ms: u64) -> Duty {
    match job.ended_ms {
        Some(ended_ms) if ended_ms.saturating_add(keep_ms) <= now_ms => Duty::Forget,
        Some(_) => Duty::Tell,
        None if job.deadline_ms.saturating_add(GRACE_MS) <= now_ms => Duty::Expire,
        None if job.created_ms.saturating_add(SETTLED_MS) <= now_ms => Duty::LookAfter,
        None => Duty::Nothing,
    }
}

async fn jobs_round(gate: &Gate) -> Result<(), StoreError> {
    let keep_ms = gate.config.jobs.keep_s.saturating_mul(1_000);
    let mut walk = Walk::<Job>::begin(gate.broker()).await?;
    while let Some(job) = walk.next().await? {
        let now_ms = clock::unix_ms();
        match duty(&job, now_ms, keep_ms) {
            Duty::Forget => forget(gate.broker(), &job).await?,
            Duty::Tell => notify::of_job(gate, &job).await?,
            Duty::Expire => {
                expire(gate.broker(), &job).await?;
                gate.road.call_off(vec![request_id(&job.id)]);
            }
            Duty::LookAfter => look_after(gate.broker(), &job, now_ms).await?,
            Duty::Nothing => {}
        }
    }
    Ok(())
}

async fn batches_round(gate: &Gate) -> Result<(), StoreError> {
    let keep_ms = gate.config.jobs.keep_batches_s.saturating_mul(1_000);
    let mut walk = Walk::<Batch>::begin(gate.broker()).await?;
    while let Some(batch) = walk.next().await? {
        notify::of_batch(gate, &batch).await?;
        if batch.ended_ms.is_none_or(|at| at.saturating_add(keep_ms) > clock::unix_ms()) {
            continue;
        }
        for written in batch.output.iter().chain(&batch.errors) {
            if let Some(file) = jobs::get::<File>(gate.broker(), &batch.tenant, &written.file).await? {
                files::delete_whole(gate.broker(), &file.value).await?;
            }
        }
        jobs::delete::<Batch>(gate.broker(), &batch.tenant, &batch.id).await?;
    }
    Ok(())
}

/// Removes the files that have expired. One that a batch still reads stays until that has ended.
async fn files_round(broker: &dyn Broker) -> Result<(), StoreError> {
    let expired = expired(broker).await?;
    if expired.is_empty() {
        return Ok(());
    }
    let read = inputs(broker).await?; // Behind the look for files: none that has expired is taken for a new batch.
    for file in expired.iter().filter(|file| !read.contains(&(file.tenant.clone(), file.id.clone()))) {
        files::delete_whole(broker, file).await?;
    }
    Ok(())
}

async fn expired(broker: &dyn Broker) -> Result<Vec<File>, StoreError> {
    let (mut walk, mut expired) = (Walk::<File>::begin(broker).await?, Vec::new());
    while let Some(file) = walk.next().await? {
        if file.expires_ms.is_some_and(|at| at <= clock::unix_ms()) {
            expired.push(file);
        }
    }
    Ok(expired)
}

/// The files that batches which have not ended read, with their tenants.
async fn inputs(broker: &dyn Broker) -> Result<HashSet<(Box<str>, Token)>, StoreError> {
    let (mut walk, mut inputs) = (Walk::<Batch>::begin(broker).await?, HashSet::new());
    while let Some(batch) = walk.next().await? {
        if !batch.state.is_terminal() {
            inputs.insert((batch.tenant, batch.input));
        }
    }
    Ok(inputs)
}

/// Removes a job and all that is kept of it, the record last.
///
/// # Errors
/// Those of the broker: try again.
pub(crate) async fn forget(broker: &dyn Broker, job: &Job) -> Result<(), StoreError> {
    for (outcome, _) in jobs::all_outcomes(broker, &jobs::topic(&job.id, 0)).await? {
        if let Some(key) = outcome.blob {
            broker.blob_delete(Store::Files, &key).await?;
        }
    }
    broker.blob_delete(Store::Files, &jobs::body_key(&job.id)).await?;
    broker.erase(Journal::Results, &Topic::from(job.id.clone()), None).await?;
    jobs::delete::<Job>(broker, &job.tenant, &job.id).await
}

/// Ends a job whose deadline has passed.
///
/// # Errors
/// Those of the store.
pub async fn expire(broker: &dyn Broker, job: &Job) -> Result<(), StoreError> {
    let failure = Failure::new(Code::DeadlineExceeded, "The deadline passed before the job had run: allow more time");
    end(broker, job, failure).await
}

async fn end(broker: &dyn Broker, job: &Job, failure: Failure) -> Result<(), StoreError> {
    let of = JobRef { job: job.id.clone(), part: 0, row: 0, line: false, again: false };
    let outcome =
        Outcome { row: 0, id: request_id(&job.id), exec: None, failure: Some(Box::new(failure)), usage: Usage::default(), blob: None };
    jobs::commit_if_room(broker, &Commit { tenant: job.tenant.clone(), of, outcome, body: Bytes::new() }).await
}

/// Asks the lane whether it holds the job; if not, looks what came of it, and else puts it there again.
///
/// # Errors
/// Those of the store.
pub async fn look_after(broker: &dyn Broker, job: &Job, now_ms: u64) -> Result<(), StoreError> {
    if let Some(place) = job.place
        && broker.holds(place.lane, place.epoch, place.sequence).await?
    {
        return Ok(());
    }
    if let Some((outcome, _)) = jobs::outcomes(broker, &jobs::topic(&job.id, 0)).await?.into_iter().next() {
        return jobs::conclude(broker, &job.tenant, &job.id, &jobs::end(&outcome)).await;
    }
    let published = match publish_again(broker, job, now_ms).await {
        Err(BrokerError::Full) => return Ok(()), // Its turn comes; the others do not wait for it.
        published => published?,
    };
    let Some(place) = published else {
        return end(broker, job, Failure::new(Code::Lost, "The request is not kept any more: submit it again")).await;
    };
    tracing::warn!(job = %job.id, "a job that the queue had forgotten is in its lane again");
    jobs::change(broker, &job.tenant, &job.id, |job: &mut Job| job.queued(place)).await.map(drop)
}

async fn publish_again(broker: &dyn Broker, job: &Job, now_ms: u64) -> Result<Option<Place>, BrokerError> {
    let Some((mut envelope, body)) = input(broker, &job.id).await? else { return Ok(None) };
    if let Some(of) = &mut envelope.job {
        of.again = true;
    }
    let left_ms = job.deadline_ms.saturating_sub(now_ms);
    envelope.remaining_ms = u32::try_from(left_ms).unwrap_or(u32::MAX);
    let (to, frame) = (subject(&job.tenant, &Token::of_model(&envelope.model)), encode_one(&envelope, &body));
    let stored = broker.publish(&to, &entropy::message_id(), frame).await?;
    Ok(Some(Place { lane: to.lane, epoch: stored.epoch, sequence: stored.sequence }))
}

#[cfg(test)]
mod tests {
    use super::super::submit::tests::request;
    use super::*;
    use serde_json::json;
    use shared::broker::limits::Limits;
    use shared::broker::memory::MemoryBroker;
    use shared::jobs::State;

    #[tokio::test]
    async fn a_job_ends_though_there_is_no_room_to_say_how() {
        let broker = MemoryBroker::with_limits(&Limits { results_bytes_max: 1, ..Limits::in_process() });
        let (job, _) = request(&Token::parse("job_1").unwrap());
        jobs::create(broker.as_ref(), &job).await.unwrap();
        expire(broker.as_ref(), &job).await.unwrap();
        let ended = jobs::get::<Job>(broker.as_ref(), &job.tenant, &job.id).await.unwrap().unwrap().value;
        assert_eq!(ended.state, State::Expired);
    }

    fn file(id: &str, expires_ms: Option<u64>) -> File {
        let file = json!({
            "id": id, "tenant": "t", "name": "f", "purpose": "batch", "bytes": 0, "lines": 0, "parts": 0, "created_ms": 0,
            "expires_ms": expires_ms,
        });
        serde_json::from_value(file).unwrap()
    }

    fn batch(id: &str, input: &str, state: &str) -> Batch {
        let batch = json!({
            "id": id, "tenant": "t", "role": "r", "op": "chat", "input": input, "window": "24h", "state": state,
            "created_ms": 0, "expires_ms": 1, "counts": { "total": 0, "completed": 0, "failed": 0 }, "settled": 0,
            "cursor": { "part": 0, "offset": 0, "line": 0 },
        });
        serde_json::from_value(batch).unwrap()
    }

    #[tokio::test]
    async fn a_file_that_a_batch_reads_outlives_its_expiry() {
        let broker = MemoryBroker::new();
        for file in [file("file-read", Some(1)), file("file-done", Some(1)), file("file-idle", Some(1)), file("file-kept", None)] {
            jobs::create(broker.as_ref(), &file).await.unwrap();
        }
        for batch in [batch("batch_1", "file-read", "in_progress"), batch("batch_2", "file-done", "completed")] {
            jobs::create(broker.as_ref(), &batch).await.unwrap();
        }
        files_round(broker.as_ref()).await.unwrap();
        let left = jobs::all::<File>(broker.as_ref(), "t").await.unwrap();
        let left: Vec<&str> = left.iter().map(|file| file.value.id.as_str()).collect();
        assert_eq!(left, ["file-read", "file-kept"]);
    }
}
