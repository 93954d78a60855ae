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
        for round in [jobs_round(gate).await, batches_round(gate).await, files_round(gate).await] {
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
                expire(gate.broker(), &job).await;
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

async fn files_round(gate: &Gate) -> Result<(), StoreError> {
    let mut walk = Walk::<File>::begin(gate.broker()).await?;
    while let Some(file) = walk.next().await? {
        if file.expires_ms.is_some_and(|at| at <= clock::unix_ms()) {
            files::delete_whole(gate.broker(), &file).await?;
        }
    }
    Ok(())
}

/// Removes a job and all that is kept of it, the record last.
///
/// # Errors
/// Those of the broker: try again.
pub(crate) async fn forget(broker: &dyn Broker, job: &Job) -> Result<(), StoreError> {
    for (outcome, _) in jobs::outcomes(broker, &jobs::topic(&job.id, 0)).await? {
        if let Some(key) = outcome.blob {
            broker.blob_delete(Store::Files, &key).await?;
        }
    }
    broker.blob_delete(Store::Files, &jobs::body_key(&job.id)).await?;
    broker.erase(Journal::Results, &Topic::from(job.id.clone())).await?;
    jobs::delete::<Job>(broker, &job.tenant, &job.id).await
}

pub async fn expire(broker: &dyn Broker, job: &Job) {
    let failure = Failure::new(Code::DeadlineExceeded, "The deadline passed before the job had run: allow more time");
    end(broker, job, failure).await;
}

async fn end(broker: &dyn Broker, job: &Job, failure: Failure) {
    let of = JobRef { job: job.id.clone(), part: 0, row: 0, line: false, again: false };
    let outcome =
        Outcome { row: 0, id: request_id(&job.id), exec: None, failure: Some(Box::new(failure)), usage: Usage::default(), blob: None };
    jobs::commit(broker, vec![Commit { tenant: job.tenant.clone(), of, outcome, body: Bytes::new() }]).await;
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
        end(broker, job, Failure::new(Code::Lost, "The request is not kept any more: submit it again")).await;
        return Ok(());
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
