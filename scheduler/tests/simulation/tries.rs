//! core: what one engine may do about calls that fail: how often a request is tried, and how much is tried again.

use crate::plan::Plan;
use scheduler::engine::Item;
use shared::clock::Time;
use shared::domain::{Lane, RequestId};
use shared::wire::Fault;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// The engine counts by whole seconds: nine of ten are surely in its window, and all are within ten.
const SURELY: Duration = Duration::from_secs(9);
const WINDOW: Duration = Duration::from_secs(10);

const fn calls_max(lane: Lane) -> u32 {
    match lane {
        Lane::Interactive => 3,
        Lane::Async => 5,
        Lane::Bulk => 8,
    }
}

/// A request that is published again, or dispatched twice because an accept is late, is tried anew: in a world of faults it may
/// have so many lives.
const LIVES_MAX: u32 = 4;

pub(crate) struct Tries {
    lives: u32,
    /// Failed calls of each request.
    failed: BTreeMap<RequestId, u32>,
    retried: BTreeSet<RequestId>,
    /// Calls that failed in this step, and what was in them.
    undecided: Vec<(Fault, Vec<(RequestId, Lane)>)>,
    /// When calls were made for the first time, and when interactive ones were granted another.
    first: VecDeque<Time>,
    again: VecDeque<Time>,
}

impl Tries {
    pub(crate) fn new(plan: &Plan) -> Self {
        let lives = if plan.faults.are_none() { 1 } else { LIVES_MAX };
        Self {
            lives,
            failed: BTreeMap::new(),
            retried: BTreeSet::new(),
            undecided: Vec::new(),
            first: VecDeque::new(),
            again: VecDeque::new(),
        }
    }

    /// It was published again: its ingress has heard nothing of its end.
    pub(crate) fn begun_anew(&mut self, id: RequestId) {
        self.failed.remove(&id);
        self.retried.remove(&id);
    }

    pub(crate) fn failed(&mut self, fault: Fault, items: Vec<(RequestId, Lane)>) {
        // A trial costs a deferred request nothing; what may be its own fault does.
        let counts = |lane: &Lane| !lane.is_deferred() || fault.may_be_the_requests();
        items.iter().filter(|(_, lane)| counts(lane)).for_each(|(id, _)| *self.failed.entry(*id).or_default() += 1);
        self.retried.extend(items.iter().map(|(id, _)| *id));
        self.undecided.push((fault, items));
    }

    /// The engine has said what is tried again: those that it holds.
    pub(crate) fn decided(&mut self, now: Time, is_held: impl Fn(RequestId) -> bool) {
        for (fault, items) in std::mem::take(&mut self.undecided) {
            let granted = items.iter().any(|(id, lane)| *lane == Lane::Interactive && is_held(*id));
            if granted && fault != Fault::Connect {
                self.again.push_back(now);
                self.check_budget(now);
            }
        }
    }

    fn check_budget(&mut self, now: Time) {
        self.first.retain(|at| now.since(*at) <= WINDOW);
        self.again.retain(|at| now.since(*at) < SURELY);
        let allowed = 30 + self.first.len() / 5;
        assert!(self.again.len() <= allowed, "{} of {} calls are made again", self.again.len(), self.first.len());
    }

    pub(crate) fn dispatched<'a>(&mut self, now: Time, items: impl Iterator<Item = &'a Item>) {
        let failed = |item: &Item| self.failed.get(&item.id).copied().unwrap_or_default();
        let tries: Vec<(bool, u32, Lane)> = items.map(|item| (self.retried.contains(&item.id), failed(item), item.lane)).collect();
        let is_first = tries.iter().all(|(is_retry, ..)| !is_retry);
        assert!(is_first || tries.iter().all(|(is_retry, ..)| *is_retry), "what is tried again goes with what is not: {tries:?}");
        assert!(tries.iter().all(|(_, failed, lane)| *failed < calls_max(*lane) * self.lives), "tried too often: {tries:?}");
        if is_first {
            self.first.push_back(now);
        }
    }
}
