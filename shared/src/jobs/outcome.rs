//! edge: what came of a request, in the journal of results. The first entry for a row counts, in the journal's order:
//! so a request that ran twice has one outcome, whoever reads.

use super::dead::{self, DeadLetter};
use super::job::{End, Job};
use super::store::{self, StoreError};
use crate::broker::{Broker, BrokerError, Feed, Journal, Since, Store, Topic};
use crate::clock;
use crate::domain::{ExecId, RequestId, Token};
use crate::entropy;
use crate::error::{Code, Failure};
use crate::wire::{FRAME_BYTES_MAX, FrameWriter, JobRef, Part, Usage, decode, encode_one};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

/// A larger answer waits in the blob store, so that an entry fits a message with room for its head.
const INLINE_MAX: usize = 512 * 1024;

/// Pauses between the tries of what the broker did not take: the first, and the longest, as they double.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How one row ended. The body beside it is the answer's JSON, or empty where it waits in the blob store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    pub row: u32,
    pub id: RequestId,
    /// Absent when it never reached a worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Box<Failure>>,
    #[serde(default)]
    pub usage: Usage,
    /// Where a large body is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blob: Option<Box<str>>,
}

/// An outcome on its way into the journal.
#[derive(Clone, Debug)]
pub struct Commit {
    pub tenant: Box<str>,
    pub of: JobRef,
    pub outcome: Outcome,
    pub body: Bytes,
}

/// Where the outcomes of a job's part are.
pub fn topic(job: &Token, part: u32) -> Topic {
    let part = Token::parse(&part.to_string()).expect("digits are a token");
    Topic::of(&[job, &part])
}

/// Where a single job's frame is kept, as it was published.
pub fn input_topic(job: &Token) -> Topic {
    Topic::of(&[job, &Token::parse("in").expect("a token")])
}

/// Where a single job's body is, if it is large. The same for whoever submits it again: a frame that is in the lane already
/// finds it there.
pub fn body_key(job: &Token) -> String {
    format!("body.{job}")
}

/// Puts outcomes on record, however long the broker is away: those of one part in one entry, and single jobs are ended.
/// When this returns, whatever happens to the queue, they count.
pub async fn commit(broker: &dyn Broker, commits: Vec<Commit>) {
    let mut parts: BTreeMap<(Token, u32), Vec<Commit>> = BTreeMap::new();
    for commit in commits {
        parts.entry((commit.of.job.clone(), commit.of.part)).or_default().push(commit);
    }
    for ((job, part), commits) in parts {
        commit_part(broker, &topic(&job, part), commits).await;
    }
}

/// Ends a single job that has no answer, without waiting: where the journal is full, its record alone says how it ended. For whoever
/// makes room there.
///
/// # Errors
/// Those of the store.
pub async fn commit_if_room(broker: &dyn Broker, commit: &Commit) -> Result<(), StoreError> {
    let (topic, frame) = (topic(&commit.of.job, commit.of.part), encode_one(&commit.outcome, &[]));
    match broker.append(Journal::Results, &topic, &entropy::message_id(), frame).await {
        Ok(_) | Err(BrokerError::Full) => conclude(broker, &commit.tenant, &commit.of.job, &end(&commit.outcome)).await,
        Err(error) => Err(error.into()),
    }
}

async fn commit_part(broker: &dyn Broker, topic: &Topic, commits: Vec<Commit>) {
    let mut writer = FrameWriter::new();
    for commit in &commits {
        let part = laid_down(broker, commit).await;
        if !writer.fits(&part) {
            append(broker, topic, writer.take()).await;
        }
        writer.push(&part);
    }
    append(broker, topic, writer.take()).await;
    for commit in commits.iter().filter(|commit| !commit.of.line) {
        end_job(broker, commit).await;
    }
}

/// The outcome as a part of an entry, its body in the blob store if it is large.
async fn laid_down(broker: &dyn Broker, commit: &Commit) -> Part {
    if commit.body.len() <= INLINE_MAX {
        return Part::encode(&commit.outcome, commit.body.clone());
    }
    let key = format!("result.{}", entropy::message_id());
    let put = insist(|| broker.blob_put(Store::Files, &key, commit.body.clone())).await;
    let outcome = match put {
        Ok(()) => Outcome { blob: Some(key.into()), ..commit.outcome.clone() },
        Err(error) => {
            tracing::error!(%error, job = %commit.of.job, "an answer cannot be kept");
            let failure =
                Failure::new(Code::QueueFull, "The answer is too large for what is left of the store: delete files, then submit again");
            Outcome { failure: Some(Box::new(failure)), ..commit.outcome.clone() }
        }
    };
    Part::encode(&outcome, Bytes::new())
}

async fn append(broker: &dyn Broker, topic: &Topic, frame: Bytes) {
    debug_assert!(frame.len() <= FRAME_BYTES_MAX + INLINE_MAX, "an entry fits a message");
    let id = entropy::message_id();
    if let Err(error) = insist(|| broker.append(Journal::Results, topic, &id, frame.clone())).await {
        tracing::error!(%error, "an outcome cannot be put on record: the request will run again");
    }
}

async fn end_job(broker: &dyn Broker, commit: &Commit) {
    let end = end(&commit.outcome);
    if let Err(error) = insist_store(|| conclude(broker, &commit.tenant, &commit.of.job, &end)).await {
        tracing::warn!(%error, job = %commit.of.job, "a job's end was not recorded: its record is gone");
    }
}

/// Ends a single job. Whoever is first wins; the record names the execution whose answer counts. One that failed for good is a
/// dead letter from then on.
///
/// # Errors
/// Those of [`store::change`].
pub async fn conclude(broker: &dyn Broker, tenant: &str, job: &Token, end: &End) -> Result<(), StoreError> {
    let now_ms = clock::unix_ms();
    let ended = store::change(broker, tenant, job, |job: &mut Job| job.ended(end.clone(), now_ms)).await?.value;
    match DeadLetter::of(&ended) {
        Some(letter) => Ok(dead::bury(broker, &letter).await?),
        None => Ok(()),
    }
}

/// What an outcome makes of its job.
pub fn end(outcome: &Outcome) -> End {
    match (&outcome.failure, outcome.exec) {
        (Some(failure), _) if failure.code == Code::DeadlineExceeded => End::Expired(*failure.clone()),
        (Some(failure), _) => End::Failed(*failure.clone()),
        (None, Some(exec)) => End::Answered { exec, usage: outcome.usage },
        (None, None) => End::Failed(Failure::new(Code::Internal, "The request ended without an answer: submit it again")),
    }
}

/// The outcomes of a job's part, the first of each row, with their bodies as they lie in the journal.
///
/// # Errors
/// `Unavailable`.
pub async fn outcomes(broker: &dyn Broker, topic: &Topic) -> Result<Vec<(Outcome, Bytes)>, BrokerError> {
    let mut all = all_outcomes(broker, topic).await?;
    let mut rows = HashSet::new();
    all.retain(|(outcome, _)| rows.insert(outcome.row));
    Ok(all)
}

/// All that there are, in order: several of a row that ran several times.
///
/// # Errors
/// `Unavailable`.
pub async fn all_outcomes(broker: &dyn Broker, topic: &Topic) -> Result<Vec<(Outcome, Bytes)>, BrokerError> {
    let mut follower = broker.follow(&Feed::Journal(Journal::Results, Some(topic.clone())), Since::Start).await?;
    let mut all = Vec::new();
    while let Some(entry) = follower.next(Duration::ZERO).await? {
        all.extend(read(&entry.value.unwrap_or_default()));
        if !entry.more {
            break;
        }
    }
    Ok(all)
}

/// The outcomes of one entry. What cannot be read is left out: the request runs again.
pub fn read(entry: &Bytes) -> Vec<(Outcome, Bytes)> {
    let parts = decode(entry).unwrap_or_else(|error| {
        tracing::error!(%error, "an entry of the results cannot be read");
        Vec::new()
    });
    parts.into_iter().filter_map(|part| Some((part.decode().ok()?, part.body))).collect()
}

/// Tries until the broker takes it, or refuses it for a reason that waiting does not mend.
pub(super) async fn insist<T, F: Future<Output = Result<T, BrokerError>>>(mut attempt: impl FnMut() -> F) -> Result<T, BrokerError> {
    let mut pause = PAUSE_MIN;
    loop {
        match attempt().await {
            Err(error @ (BrokerError::Unavailable(_) | BrokerError::Full)) => {
                tracing::warn!(%error, "an outcome is not yet on record; trying again")
            }
            ended => return ended,
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn insist_store<T, F: Future<Output = Result<T, StoreError>>>(mut attempt: impl FnMut() -> F) -> Result<T, StoreError> {
    let mut pause = PAUSE_MIN;
    loop {
        match attempt().await {
            Err(StoreError::Broker(BrokerError::Unavailable(_))) => {}
            ended => return ended,
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}
