//! core: the record of a single job, and the steps between its states. A terminal state is absorbing.

use super::store::Kept;
use crate::broker::Bucket;
use crate::domain::{ExecId, Lane, Operation, Token};
use crate::error::Failure;
use crate::wire::Usage;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// On record; whether it is in its lane is not yet known.
    Accepted,
    Queued,
    Running,
    Succeeded,
    Failed,
    Cancelled,
    /// Its deadline passed first.
    Expired,
}

impl State {
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled | Self::Expired)
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }
}

/// Where a frame stands in its lane, by which it can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub lane: Lane,
    pub epoch: u64,
    pub sequence: u64,
}

/// One request that outlives its connection. Times are milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    pub id: Token,
    pub tenant: Box<str>,
    /// The model's public name.
    pub model: Box<str>,
    pub op: Operation,
    /// Whether its answer is written event by event.
    #[serde(default)]
    pub stream: bool,
    pub state: State,
    /// Executions begun so far.
    pub attempts: u32,
    pub created_ms: u64,
    #[serde(default)]
    pub started_ms: Option<u64>,
    #[serde(default)]
    pub ended_ms: Option<u64>,
    pub deadline_ms: u64,
    /// What two submissions under one `Idempotency-Key` must have in common: a hash of operation and body.
    #[serde(with = "serde_bytes")]
    pub fingerprint: Vec<u8>,
    #[serde(default)]
    pub place: Option<Place>,
    /// The execution that was begun last.
    #[serde(default)]
    pub exec: Option<ExecId>,
    /// The execution whose entry in the results is the job's, where one succeeded.
    #[serde(default)]
    pub winner: Option<ExecId>,
    #[serde(default)]
    pub failure: Option<Box<Failure>>,
    #[serde(default)]
    pub usage: Option<Usage>,
    /// Its tenant has been told of its end, where they want to be.
    #[serde(default)]
    pub notified: bool,
    /// The job that this one repeats, by an operator's order.
    #[serde(default)]
    pub redrive_of: Option<Token>,
    /// What its caller has noted on a background response.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<Box<str>, Box<str>>,
}

impl Kept for Job {
    const BUCKET: Bucket = Bucket::Jobs;

    fn tenant(&self) -> &str {
        &self.tenant
    }

    fn id(&self) -> &Token {
        &self.id
    }
}

/// How a job's last execution ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    Answered { exec: ExecId, usage: Usage },
    Failed(Failure),
    Cancelled,
    Expired(Failure),
}

impl Job {
    /// How the id of a background response begins.
    pub const RESPONSE: &str = "resp_";

    /// Whether it is a background response, which has a shape and paths of its own.
    pub fn is_response(&self) -> bool {
        self.id.as_str().starts_with(Self::RESPONSE)
    }

    /// It stands in its lane. False: nothing changed, because a worker or its end was faster.
    pub fn queued(&mut self, place: Place) -> bool {
        let known = self.place == Some(place);
        self.place = Some(place);
        match self.state {
            State::Accepted => self.state = State::Queued,
            State::Queued | State::Running if !known => {}
            _ => return false,
        }
        true
    }

    /// An execution begins. False: it has ended, and nothing is to be run.
    pub fn begun(&mut self, exec: ExecId, now_ms: u64) -> bool {
        if self.state.is_terminal() {
            return false;
        }
        self.state = State::Running;
        self.attempts += 1;
        self.exec = Some(exec);
        self.started_ms = self.started_ms.or(Some(now_ms));
        true
    }

    /// An execution begins after one whose worker lived to say that its call failed: that was no attempt of the job's.
    pub fn begun_again(&mut self, exec: ExecId, now_ms: u64) -> bool {
        let attempts = self.attempts;
        let begun = self.begun(exec, now_ms);
        self.attempts = attempts;
        begun
    }

    /// The one outcome. False: it had one.
    pub fn ended(&mut self, end: End, now_ms: u64) -> bool {
        if self.state.is_terminal() {
            return false;
        }
        self.ended_ms = Some(now_ms);
        self.state = match end {
            End::Answered { exec, usage } => {
                self.winner = Some(exec);
                self.usage = Some(usage);
                State::Succeeded
            }
            End::Failed(failure) => {
                self.failure = Some(Box::new(failure));
                State::Failed
            }
            End::Expired(failure) => {
                self.failure = Some(Box::new(failure));
                State::Expired
            }
            End::Cancelled => State::Cancelled,
        };
        true
    }
}

#[cfg(test)]
pub(crate) fn sample(id: &str) -> Job {
    Job {
        id: Token::parse(id).unwrap(),
        tenant: "search".into(),
        model: "chat".into(),
        op: Operation::Chat,
        stream: false,
        state: State::Accepted,
        attempts: 0,
        created_ms: 1_795_000_000_000,
        started_ms: None,
        ended_ms: None,
        deadline_ms: 1_795_000_600_000,
        fingerprint: vec![7; 32],
        place: None,
        exec: None,
        winner: None,
        failure: None,
        usage: None,
        notified: false,
        redrive_of: None,
        metadata: BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy;
    use crate::error::Code;
    use proptest::prelude::*;

    const PLACE: Place = Place { lane: Lane::Async, epoch: 1, sequence: 2 };

    #[test]
    fn a_job_goes_from_its_acceptance_to_its_answer() {
        let (mut job, exec, usage) = (sample("job_1"), entropy::exec_id(), Usage { input: 3, output: 4 });
        assert!(job.queued(PLACE) && job.state == State::Queued);
        assert!(!job.queued(PLACE), "nothing new");
        assert!(job.begun(entropy::exec_id(), 5) && job.begun(exec, 6));
        assert_eq!((job.attempts, job.started_ms, job.exec), (2, Some(5), Some(exec)));
        assert!(job.ended(End::Answered { exec, usage }, 9));
        assert_eq!((job.state, job.winner, job.usage, job.ended_ms), (State::Succeeded, Some(exec), Some(usage), Some(9)));
    }

    #[test]
    fn a_job_that_was_begun_before_its_queueing_was_known_still_learns_its_place() {
        let mut job = sample("job_1");
        assert!(job.begun(entropy::exec_id(), 5) && job.queued(PLACE));
        assert_eq!((job.state, job.place), (State::Running, Some(PLACE)));
    }

    proptest! {
        #[test]
        fn whatever_comes_after_its_end_changes_nothing(steps in prop::collection::vec(0..6u8, 1..20)) {
            let mut job = sample("job_1");
            let mut ended: Option<Job> = None;
            for step in steps {
                let changed = match step {
                    0 => job.clone().queued(PLACE) && job.queued(PLACE),
                    1 => job.begun(entropy::exec_id(), 1),
                    2 => job.ended(End::Cancelled, 2),
                    3 => job.ended(End::Failed(Failure::new(Code::Internal, "x")), 3),
                    4 => job.ended(End::Expired(Failure::new(Code::DeadlineExceeded, "x")), 4),
                    _ => job.ended(End::Answered { exec: entropy::exec_id(), usage: Usage::default() }, 5),
                };
                if let Some(ended) = &ended {
                    prop_assert!(!changed);
                    prop_assert_eq!(ended, &job);
                }
                if job.state.is_terminal() {
                    ended.get_or_insert_with(|| job.clone());
                }
            }
        }
    }
}
