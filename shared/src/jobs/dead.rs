//! edge: dead letters: single jobs that failed for good, on record until somebody has dealt with them or 30 days are over. Never
//! what was asked.
//!
//! The journal is append-only: a letter is one entry, and what was done about it another. Reading folds the two.

use super::job::{Job, State};
use crate::broker::{Broker, BrokerError, Feed, Journal, Since, Topic};
use crate::domain::{Operation, Token};
use crate::error::{Code, Failure};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

/// Letters looked at in one reading: some 40 MB, and more than anybody deals with by hand.
const LETTERS_MAX: usize = 100_000;

/// A job that failed for good. Times are milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    pub job: Token,
    pub tenant: Box<str>,
    /// The model's public name.
    pub model: Box<str>,
    pub op: Operation,
    pub code: Code,
    /// What its owner was told.
    pub reason: Box<str>,
    /// Executions begun.
    pub attempts: u32,
    pub created_ms: u64,
    pub died_ms: u64,
    /// The job that it repeated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redrive_of: Option<Token>,
}

/// An entry of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Entry {
    Died(DeadLetter),
    /// Somebody has dealt with it.
    Settled(Token),
}

impl DeadLetter {
    /// The letter of a job that failed for a reason that its owner cannot mend; none of any other.
    pub fn of(job: &Job) -> Option<Self> {
        let failure = job.failure.as_deref().filter(|failure| job.state == State::Failed && is_ours(failure))?;
        Some(Self {
            job: job.id.clone(),
            tenant: job.tenant.clone(),
            model: job.model.clone(),
            op: job.op,
            code: failure.code,
            reason: failure.message.as_str().into(),
            attempts: job.attempts,
            created_ms: job.created_ms,
            died_ms: job.ended_ms.unwrap_or_default(),
            redrive_of: job.redrive_of.clone(),
        })
    }

    fn topic(&self) -> Topic {
        Token::of_name(&self.tenant).into()
    }
}

/// What the caller did wrong stays wrong: running it again would not help.
const fn is_ours(failure: &Failure) -> bool {
    matches!(failure.code.status(), 429 | 500..)
}

/// Puts a letter on record. Twice is as good as once.
///
/// # Errors
/// Those of the broker.
pub async fn bury(broker: &dyn Broker, letter: &DeadLetter) -> Result<(), BrokerError> {
    append(broker, letter, "died", &Entry::Died(letter.clone())).await
}

/// Puts on record that somebody has dealt with a letter.
///
/// # Errors
/// Those of the broker.
pub async fn settle(broker: &dyn Broker, letter: &DeadLetter) -> Result<(), BrokerError> {
    append(broker, letter, "settled", &Entry::Settled(letter.job.clone())).await
}

async fn append(broker: &dyn Broker, letter: &DeadLetter, what: &str, entry: &Entry) -> Result<(), BrokerError> {
    let json = serde_json::to_vec(entry).expect("letters are plain data");
    let message_id = format!("{}-{what}", letter.job);
    broker.append(Journal::Dead, &letter.topic(), &message_id, json.into()).await.map(drop)
}

/// The letters that nobody has dealt with, of one tenant or of all, in the order of their jobs' ids: of more than 100,000, the oldest.
///
/// # Errors
/// Those of the broker.
pub async fn letters(broker: &dyn Broker, tenant: Option<&str>) -> Result<Vec<DeadLetter>, BrokerError> {
    let topic = tenant.map(|tenant| Topic::from(Token::of_name(tenant)));
    let mut follower = broker.follow(&Feed::Journal(Journal::Dead, topic), Since::Start).await?;
    let (mut letters, mut settled) = (BTreeMap::new(), HashSet::new());
    while let Some(entry) = follower.next(Duration::ZERO).await? {
        match entry.value.as_deref().and_then(|json| serde_json::from_slice(json).ok()) {
            Some(Entry::Died(letter)) => {
                let wanted = tenant.is_none_or(|tenant| *letter.tenant == *tenant);
                // Whoever ends a job late may note it when somebody has dealt with it already.
                if wanted && letters.len() < LETTERS_MAX && !settled.contains(&letter.job) {
                    letters.insert(letter.job.clone(), letter);
                }
            }
            Some(Entry::Settled(job)) => {
                letters.remove(&job);
                settled.insert(job);
            }
            None => tracing::error!(sequence = entry.sequence, "an entry of the dead letters cannot be read"),
        }
        if !entry.more {
            break;
        }
    }
    Ok(letters.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::super::job::{End, sample};
    use super::*;
    use crate::broker::memory::MemoryBroker;

    fn failed(id: &str, tenant: &str, code: Code) -> Job {
        let mut job = Job { tenant: tenant.into(), ..sample(id) };
        assert!(job.ended(End::Failed(Failure::new(code, "x")), 7));
        job
    }

    fn letter(id: &str, tenant: &str) -> DeadLetter {
        DeadLetter::of(&failed(id, tenant, Code::Lost)).unwrap()
    }

    #[test]
    fn only_what_failed_and_may_do_better_is_a_letter() {
        assert!(DeadLetter::of(&failed("job_1", "t", Code::BackendRejected)).is_none(), "the caller's fault");
        let mut expired = sample("job_1");
        assert!(DeadLetter::of(&expired).is_none());
        expired.ended(End::Expired(Failure::new(Code::DeadlineExceeded, "x")), 7);
        assert!(DeadLetter::of(&expired).is_none(), "nobody wants it any more");
        for code in [Code::BackendUnreachable, Code::BackendRateLimited, Code::Internal, Code::Lost] {
            assert_eq!(DeadLetter::of(&failed("job_1", "t", code)).unwrap().code, code);
        }
    }

    #[tokio::test]
    async fn letters_are_listed_until_they_are_settled_and_once_however_often_they_were_noted() {
        let broker = MemoryBroker::new();
        let ids = async |tenant| {
            letters(broker.as_ref(), tenant).await.unwrap().into_iter().map(|letter| letter.job.to_string()).collect::<Vec<_>>()
        };
        for (id, tenant) in [("job_2", "b"), ("job_1", "a"), ("job_1", "a"), ("job_3", "a")] {
            bury(broker.as_ref(), &letter(id, tenant)).await.unwrap();
        }
        assert_eq!(ids(None).await, ["job_1", "job_2", "job_3"]);
        settle(broker.as_ref(), &letter("job_1", "a")).await.unwrap();
        bury(broker.as_ref(), &letter("job_1", "a")).await.unwrap();
        assert_eq!((ids(Some("a")).await, ids(Some("b")).await), (vec!["job_3".to_owned()], vec!["job_2".to_owned()]));
    }
}
