//! core: what callers were promised, and what they got: the books of a world, kept by the rules of the API alone.

use crate::plan::Plan;
use crate::settled::Book;
use crate::spec::Spec;
use crate::tries::Tries;
use bytes::Bytes;
use futures::FutureExt;
use shared::broker::memory::MemoryBroker;
use shared::broker::{Broker, Bucket, Entry, Feed, Follower, Journal, Since};
use shared::clock::Time;
use shared::domain::{ExecId, RequestId, Token};
use shared::error::Code;
use shared::jobs::{self, Batch, Job, State};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// How long after its deadline a job may still be open: the sweeper's grace, its rounds, and the commit.
const LATE_MAX: Duration = Duration::from_secs(20);

/// Deadlines travel as what is left of them, in whole milliseconds: once to the lane, once to the worker, and each time that it comes back.
const TOLD_WITHIN: Duration = Duration::from_millis(3);

/// How a request ended, as its caller sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Answered,
    Failed(Code),
    /// A limit's word.
    Refused,
    /// Its caller was told that the time is up.
    Expired,
    Left,
    /// Its ingress died, and nobody waits for it.
    Orphaned,
    /// A job that its owner called off.
    Cancelled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Promise {
    /// A caller is on the line.
    OnTheLine,
    /// A job is being submitted, at this ingress.
    Submitting(usize),
    /// Its owner was told that it is taken.
    Taken,
    /// Nobody was told anything: there may be a job, and may be not.
    Unspoken,
}

#[derive(Debug)]
struct Record {
    spec: Rc<Spec>,
    promise: Promise,
    outcome: Option<Outcome>,
    /// The execution that answers it, and whether its job is there.
    known: Option<Job>,
}

pub(crate) struct Audit {
    records: BTreeMap<RequestId, Record>,
    pub(crate) batches: BTreeMap<Token, Book>,
    /// The lines of all batches.
    pub(crate) lines: BTreeMap<RequestId, Rc<Spec>>,
    /// Outcomes on record, in their order.
    results: BTreeMap<RequestId, Vec<(Option<ExecId>, Bytes)>>,
    outcomes: Box<dyn Follower>,
    jobs: Box<dyn Follower>,
    changes: Box<dyn Follower>,
    /// Requests that their ingress took for lost.
    pub(crate) republished: usize,
    pub(crate) tries: Tries,
    /// When each hasty job must have ended.
    due: Vec<(Time, RequestId)>,
}

impl Audit {
    pub(crate) fn new(broker: &Arc<MemoryBroker>) -> Self {
        let follow = |feed: Feed| {
            let opened = broker.follow(&feed, Since::Start).now_or_never().expect("the broker waits for nobody");
            opened.expect("a feed of this broker")
        };
        Self {
            records: BTreeMap::new(),
            batches: BTreeMap::new(),
            lines: BTreeMap::new(),
            results: BTreeMap::new(),
            outcomes: follow(Feed::Journal(Journal::Results, None)),
            jobs: follow(Feed::Records(Bucket::Jobs, None)),
            changes: follow(Feed::Records(Bucket::Batches, None)),
            republished: 0,
            tries: Tries::default(),
            due: Vec::new(),
        }
    }

    pub(crate) fn arrived(&mut self, spec: &Rc<Spec>) {
        let promise = if spec.lane.is_deferred() { Promise::Submitting(spec.ingress) } else { Promise::OnTheLine };
        self.records.insert(spec.id, Record { spec: Rc::clone(spec), promise, outcome: None, known: None });
        if spec.lane.is_deferred() && !spec.patient {
            self.due.push((spec.deadline + LATE_MAX, spec.id));
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.records.len() + self.lines.len()
    }

    pub(crate) fn spec(&self, id: RequestId) -> Rc<Spec> {
        Rc::clone(self.lines.get(&id).unwrap_or_else(|| &self.records[&id].spec))
    }

    /// The one end of a caller's wait.
    pub(crate) fn end(&mut self, id: RequestId, outcome: Outcome, now: Time) {
        let told_within = self.told_within(id);
        let record = self.records.get_mut(&id).expect("only what arrived ends");
        assert!(record.outcome.is_none(), "{id} ends twice: {:?}, {outcome:?}", record.outcome);
        let early =
            now + told_within < record.spec.deadline && matches!(outcome, Outcome::Expired | Outcome::Failed(Code::DeadlineExceeded));
        assert!(!early, "{id} expires at {now:?}, before its deadline at {:?}", record.spec.deadline);
        record.outcome = Some(outcome);
    }

    fn told_within(&self, id: RequestId) -> Duration {
        TOLD_WITHIN + self.tries.drift(id, Duration::from_millis(1))
    }

    pub(crate) fn submitted(&mut self, id: RequestId, taken: bool) {
        let record = self.records.get_mut(&id).expect("only what arrived is submitted");
        record.promise = if taken { Promise::Taken } else { Promise::Unspoken };
    }

    /// Its submitters hear nothing. Returns what was being submitted.
    pub(crate) fn submitter_died(&mut self, ingress: usize) -> Vec<RequestId> {
        let unheard = |record: &&mut Record| record.promise == Promise::Submitting(ingress);
        let unheard = self.records.values_mut().filter(unheard);
        unheard.map(|record| (record.promise = Promise::Unspoken, record.spec.id).1).collect()
    }

    pub(crate) fn submitted_again(&mut self, id: RequestId, ingress: usize) {
        self.records.get_mut(&id).expect("only what arrived is submitted").promise = Promise::Submitting(ingress);
    }

    /// Reads what the roles have written.
    pub(crate) fn follow(&mut self, now: Time) {
        while let Some(entry) = next(&mut self.outcomes) {
            self.put_on_record(&entry);
        }
        while let Some(entry) = next(&mut self.jobs) {
            if let Some(stored) = jobs::of_entry::<Job>(&entry).expect("a job's record") {
                self.changed(stored.value, now);
            }
        }
        while let Some(entry) = next(&mut self.changes) {
            if let Some(stored) = jobs::of_entry::<Batch>(&entry).expect("a batch's record") {
                self.batch_changed(stored.value);
            }
        }
    }

    fn put_on_record(&mut self, entry: &Entry) {
        if entry.key.ends_with(".in") {
            return; // What a job asks.
        }
        for (outcome, body) in jobs::read(entry.value.as_ref().expect("an entry has a value")) {
            self.results.entry(outcome.id).or_default().push((outcome.exec, body));
        }
    }

    /// A job's record is written: its end is for good.
    fn changed(&mut self, job: Job, now: Time) {
        let id = ingress::simulated::request_id(&job.id);
        let told_within = self.told_within(id);
        let record = self.records.get_mut(&id).expect("a job that was submitted");
        if let Some(known) = record.known.as_ref().filter(|known| known.state.is_terminal()) {
            let same = (known.state, known.winner, &known.failure) == (job.state, job.winner, &job.failure);
            assert!(same, "{id} ends twice: {:?} as {:?}, then {:?}", known.winner, known.state, job.state);
        }
        if job.state == State::Succeeded {
            let winner = self.results.get(&id).and_then(|all| all.iter().find(|(exec, _)| *exec == job.winner));
            let (_, body) = winner.unwrap_or_else(|| panic!("{id} has succeeded, and its answer is not on record"));
            let text: String = serde_json::from_slice(body).expect("an answer is JSON");
            record.spec.check_answer(&[text.into()]);
        }
        let early = job.state == State::Expired && now + told_within < record.spec.deadline;
        assert!(!early, "{id} expires before its deadline");
        record.known = Some(job);
    }

    /// Whether what became of a deferred request is on record.
    pub(crate) fn has_outcome(&self, id: RequestId) -> bool {
        let ended = |record: &Record| record.known.as_ref().is_some_and(|job| job.state.is_terminal());
        self.results.contains_key(&id) || self.records.get(&id).is_some_and(ended)
    }

    /// # Panics
    /// When a job is open longer after its deadline than the sweeper takes, where nothing has gone wrong since `since`.
    pub(crate) fn check_due(&self, now: Time, since: Time) {
        let late = self.due.iter().find(|(due, id)| now > (*due).max(since + LATE_MAX) && !self.records[id].is_settled());
        assert!(late.is_none(), "{late:?} is open at {now:?}");
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.records.values().all(Record::is_settled) && self.batches.values().all(Book::has_ended)
    }

    pub(crate) fn remains(&self) -> String {
        let open: Vec<_> = self.records.values().filter(|record| !record.is_settled()).take(3).collect();
        let batches: Vec<_> = self.batches.values().filter(|book| !book.has_ended()).collect();
        format!("requests {open:?}, batches {batches:?}")
    }

    /// Every end is one that the world's plan allows.
    pub(crate) fn judge(&self, plan: &Plan, lives: impl Fn(usize) -> bool) {
        assert!(
            self.republished == 0 || !plan.faults.are_none() || plan.deadly > 0,
            "{} are taken for lost, and nothing was",
            self.republished
        );
        for record in self.records.values() {
            let outcome = record.outcome();
            assert!(record.is_fair(outcome, plan, &self.tries, &lives), "{outcome:?} is no end for {record:?}");
        }
    }
}

fn next(follower: &mut Box<dyn Follower>) -> Option<Entry> {
    follower.next(Duration::ZERO).now_or_never().expect("a reader that does not wait").expect("a feed of this broker")
}

impl Record {
    fn is_settled(&self) -> bool {
        match self.promise {
            Promise::OnTheLine => self.outcome.is_some(),
            Promise::Submitting(_) => false,
            Promise::Taken => self.known.as_ref().is_some_and(|job| job.state.is_terminal()),
            Promise::Unspoken => self.known.as_ref().is_none_or(|job| job.state.is_terminal()),
        }
    }

    fn outcome(&self) -> Outcome {
        let Some(job) = &self.known else { return self.outcome.unwrap_or(Outcome::Orphaned) };
        match (job.state, &job.failure) {
            (State::Succeeded, _) => Outcome::Answered,
            (State::Cancelled, _) => Outcome::Cancelled,
            (State::Failed | State::Expired, Some(failure)) => Outcome::Failed(failure.code),
            _ => panic!("{} is not at its end: {job:?}", self.spec.id),
        }
    }

    fn is_fair(&self, outcome: Outcome, plan: &Plan, tries: &Tries, lives: impl Fn(usize) -> bool) -> bool {
        let Spec { patient, leaves, guilty, ingress, .. } = *self.spec;
        let deferred = self.spec.lane.is_deferred();
        match outcome {
            Outcome::Answered => !guilty,
            Outcome::Failed(Code::Lost) if deferred => self.promise == Promise::Unspoken,
            Outcome::Failed(code) => self.spec.is_fair_failure(code, plan, tries),
            Outcome::Expired => !patient,
            Outcome::Refused => plan.has_limits() && !deferred,
            Outcome::Left | Outcome::Cancelled => leaves.is_some(),
            Outcome::Orphaned => !lives(ingress),
        }
    }
}
