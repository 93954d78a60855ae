//! core: what a worker runs: who may dispatch to it, what it has accepted, and what was cancelled.

use foldhash::{HashMap, HashMapExt};
use shared::clock::Time;
use shared::domain::{BatchId, ExecId, Lane, NodeId, RequestId, Token};
use shared::tombstones::Tombstones;
use shared::wire::{RefuseReason, Running};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// An ingress that was heard and has been silent this long waits for nothing any more.
const INGRESS_SILENT: Duration = Duration::from_secs(5);

/// Dispatches of one request that are answered for: the first, and those of owners that came later.
const REPORTS_MAX: usize = 8;

/// Whom to tell when an execution ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub scheduler: NodeId,
    pub batch: BatchId,
}

/// One request in execution.
#[derive(Debug)]
pub struct Entry {
    pub exec: ExecId,
    pub model: Token,
    pub lane: Lane,
    /// While it runs; none once its outcome is only to be put on record.
    pub call: Option<CallId>,
    pub ingress: NodeId,
    pub since: Time,
    /// When its request was published, before all the tries that failed.
    pub published: Time,
    /// Its backend has begun to answer.
    pub begun: bool,
    pub cancel: CancellationToken,
    pub reports: Vec<Report>,
}

/// One backend call, which has ended when the last of its requests has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallId(u64);

#[derive(Debug)]
struct Call {
    model: Token,
    backend: Box<str>,
    left: usize,
}

#[derive(Debug, Default)]
pub struct Table {
    running: HashMap<RequestId, Entry>,
    calls: HashMap<CallId, Call>,
    /// Calls by model and backend: as many entries as the configuration has backends.
    in_flight: HashMap<Token, Vec<(Box<str>, usize)>>,
    calls_begun: u64,
    /// The newest lease revision seen of each model: older owners are refused.
    fences: HashMap<Token, u64>,
    cancelled: Tombstones,
    ingresses: HashMap<NodeId, Time>,
    draining: bool,
}

impl Table {
    /// Whether a batch of an owner at `revision` may start a call at a backend of `concurrency`.
    pub fn admit(&mut self, model: &Token, revision: u64, backend: &str, concurrency: u32) -> Result<(), RefuseReason> {
        let newest = self.fences.entry(model.clone()).or_default();
        if revision < *newest {
            return Err(RefuseReason::Fenced);
        }
        *newest = revision;
        if self.draining {
            return Err(RefuseReason::Draining);
        }
        if self.calls_in_flight(model, backend) >= concurrency as usize {
            return Err(RefuseReason::Busy);
        }
        Ok(())
    }

    fn calls_in_flight(&self, model: &Token, backend: &str) -> usize {
        let of_model = self.in_flight.get(model).map_or(&[][..], Vec::as_slice);
        of_model.iter().find(|(name, _)| **name == *backend).map_or(0, |(_, calls)| *calls)
    }

    fn count_calls(&mut self, model: &Token, backend: &str, count: impl FnOnce(&mut usize)) {
        let of_model = self.in_flight.entry(model.clone()).or_default();
        match of_model.iter_mut().find(|(name, _)| **name == *backend) {
            Some((_, calls)) => count(calls),
            None => {
                of_model.push((backend.into(), 0));
                count(&mut of_model.last_mut().expect("just added").1);
            }
        }
    }

    /// A call for requests that are about to [`Table::start`]. One that gets none never counts.
    pub fn begin_call(&mut self, model: &Token, backend: &str) -> CallId {
        self.calls_begun += 1;
        self.count_calls(model, backend, |calls| *calls += 1);
        let id = CallId(self.calls_begun);
        self.calls.insert(id, Call { model: model.clone(), backend: backend.into(), left: 0 });
        id
    }

    /// Forgets a call whose requests all ran here already.
    pub fn drop_if_empty(&mut self, call: CallId) {
        if self.calls.get(&call).is_some_and(|call| call.left == 0)
            && let Some(call) = self.calls.remove(&call)
        {
            self.count_calls(&call.model, &call.backend, |calls| *calls -= 1);
        }
    }

    /// A second dispatch of a request that runs here is answered by the execution that runs. False: it does not.
    pub fn join(&mut self, id: RequestId, report: Report) -> bool {
        let Some(entry) = self.running.get_mut(&id) else { return false };
        if entry.reports.len() < REPORTS_MAX && !entry.reports.contains(&report) {
            entry.reports.push(report);
        }
        true
    }

    pub fn is_running(&self, id: RequestId) -> bool {
        self.running.contains_key(&id)
    }

    /// Enters an execution. One that was cancelled before it came is cancelled from the start.
    pub fn start(&mut self, id: RequestId, entry: Entry) {
        if self.cancelled.contains(id) {
            entry.cancel.cancel();
        }
        if let Some(call) = entry.call.and_then(|call| self.calls.get_mut(&call)) {
            call.left += 1;
        }
        self.running.insert(id, entry);
    }

    /// The first of a stream has come.
    pub fn begun(&mut self, id: RequestId, exec: ExecId) {
        if let Some(entry) = self.running.get_mut(&id).filter(|entry| entry.exec == exec) {
            entry.begun = true;
        }
    }

    /// An execution has ended. With the last one of its call the backend's place is free, before anybody is told.
    pub fn end(&mut self, id: RequestId, exec: ExecId) -> Option<Entry> {
        if self.running.get(&id).is_none_or(|entry| entry.exec != exec) {
            return None;
        }
        let mut entry = self.running.remove(&id)?;
        self.leave_call(entry.call.take());
        Some(entry)
    }

    /// The call has ended for a request that stays here until its outcome is on record. Returns whom to tell, once.
    pub fn free(&mut self, id: RequestId, exec: ExecId) -> Option<(Token, Vec<Report>)> {
        let entry = self.running.get_mut(&id).filter(|entry| entry.exec == exec)?;
        let call = entry.call.take()?;
        let told = (entry.model.clone(), entry.reports.clone());
        self.leave_call(Some(call));
        Some(told)
    }

    fn leave_call(&mut self, id: Option<CallId>) {
        let Some(id) = id else { return };
        if let Some(call) = self.calls.get_mut(&id) {
            call.left -= 1;
        }
        self.drop_if_empty(id);
    }

    /// Cancels requests, or only one execution of them.
    pub fn cancel(&mut self, now: Time, ids: &[RequestId], exec: Option<ExecId>) {
        for id in ids {
            if exec.is_none() {
                self.cancelled.insert(*id, now);
            }
            if let Some(entry) = self.running.get(id).filter(|entry| exec.is_none_or(|exec| exec == entry.exec)) {
                entry.cancel.cancel();
            }
        }
        self.cancelled.sweep(now);
    }

    pub fn ingress_seen(&mut self, now: Time, ingress: NodeId) {
        self.ingresses.insert(ingress, now);
    }

    /// Cancels what dead ingresses asked for: their callers are gone with them.
    pub fn cancel_orphans(&mut self, now: Time) {
        let (silent, live) = self.ingresses.drain().partition(|(_, seen): &(_, Time)| now.since(*seen) >= INGRESS_SILENT);
        self.ingresses = live;
        let silent: HashMap<NodeId, Time> = silent;
        let orphans = self.running.values().filter(|entry| !entry.lane.is_deferred() && silent.contains_key(&entry.ingress));
        orphans.for_each(|entry| entry.cancel.cancel());
    }

    pub fn drain(&mut self) {
        self.draining = true;
    }

    pub const fn is_draining(&self) -> bool {
        self.draining
    }

    pub fn executions(&self) -> usize {
        self.running.len()
    }

    pub fn running(&self, model: &Token) -> Vec<Running> {
        let of_model = self.running.iter().filter(|(_, entry)| entry.model == *model);
        of_model.map(|(id, entry)| Running { id: *id, exec: entry.exec, lane: entry.lane, begun: entry.begun }).collect()
    }

    /// Interactive requests that were published at or before `before`, by the ingress that waits for them. Not by when they began here:
    /// one that is tried again and again for less than a second each would be named by nobody.
    pub fn held(&self, before: Time) -> HashMap<NodeId, Vec<RequestId>> {
        let mut held: HashMap<NodeId, Vec<RequestId>> = HashMap::new();
        for (id, entry) in self.running.iter().filter(|(_, entry)| entry.published <= before && !entry.lane.is_deferred()) {
            held.entry(entry.ingress.clone()).or_default().push(*id);
        }
        held
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::entropy;

    fn model() -> Token {
        Token::of_model("m")
    }

    fn report(batch: u64) -> Report {
        Report { scheduler: NodeId::parse("s").unwrap(), batch: BatchId(batch) }
    }

    fn entry(table: &mut Table) -> Entry {
        Entry {
            call: Some(table.begin_call(&model(), "b")),
            exec: entropy::exec_id(),
            model: model(),
            lane: Lane::Interactive,
            ingress: NodeId::parse("i").unwrap(),
            since: Time::ZERO,
            published: Time::ZERO,
            begun: false,
            cancel: CancellationToken::new(),
            reports: vec![report(1)],
        }
    }

    #[test]
    fn an_older_owner_is_refused() {
        let mut table = Table::default();
        assert_eq!(table.admit(&model(), 5, "b", 1), Ok(()));
        assert_eq!(table.admit(&model(), 4, "b", 1), Err(RefuseReason::Fenced));
        assert_eq!(table.admit(&model(), 6, "b", 1), Ok(()));
    }

    #[test]
    fn no_more_calls_start_than_the_backend_takes() {
        let mut table = Table::default();
        let (id, running) = (entropy::request_id(), entry(&mut table));
        let exec = running.exec;
        table.start(id, running);
        assert_eq!(table.admit(&model(), 1, "b", 1), Err(RefuseReason::Busy));
        assert_eq!(table.admit(&model(), 1, "other", 1), Ok(()));
        table.end(id, exec);
        assert_eq!(table.admit(&model(), 1, "b", 1), Ok(()));
    }

    #[test]
    fn the_place_of_a_call_is_free_before_its_outcome_is_on_record() {
        let mut table = Table::default();
        let (id, running) = (entropy::request_id(), entry(&mut table));
        let exec = running.exec;
        table.start(id, running);
        assert_eq!(table.free(id, exec), Some((model(), vec![report(1)])));
        assert_eq!(table.free(id, exec), None, "once");
        assert_eq!(table.admit(&model(), 1, "b", 1), Ok(()));
        assert!(table.is_running(id), "but it is listed, and joined by a second dispatch");
        assert!(table.end(id, exec).is_some());
    }

    #[test]
    fn a_second_dispatch_joins_the_execution_that_runs() {
        let mut table = Table::default();
        let (id, running) = (entropy::request_id(), entry(&mut table));
        let exec = running.exec;
        assert!(!table.join(id, report(1)));
        table.start(id, running);
        assert!(table.join(id, report(2)));
        let ended = table.end(id, exec).unwrap();
        assert_eq!(ended.reports, [report(1), report(2)]);
        assert!(table.end(id, exec).is_none(), "an execution ends once");
    }

    #[test]
    fn a_cancel_that_comes_before_its_request_is_remembered() {
        let mut table = Table::default();
        let (id, running) = (entropy::request_id(), entry(&mut table));
        let cancel = running.cancel.clone();
        table.cancel(Time::ZERO, &[id], None);
        table.start(id, running);
        assert!(cancel.is_cancelled());
    }

    #[test]
    fn cancelling_another_execution_leaves_this_one_alone() {
        let mut table = Table::default();
        let (id, running) = (entropy::request_id(), entry(&mut table));
        let (exec, cancel) = (running.exec, running.cancel.clone());
        table.start(id, running);
        table.cancel(Time::ZERO, &[id], Some(entropy::exec_id()));
        assert!(!cancel.is_cancelled());
        table.cancel(Time::ZERO, &[id], Some(exec));
        assert!(cancel.is_cancelled());
    }

    #[test]
    fn a_dead_ingresss_work_is_cancelled_and_a_living_ones_is_not() {
        let mut table = Table::default();
        let running = entry(&mut table);
        let (ingress, cancel) = (running.ingress.clone(), running.cancel.clone());
        table.start(entropy::request_id(), running);
        table.ingress_seen(Time::ZERO, ingress);
        table.cancel_orphans(Time::from_millis(4_900));
        assert!(!cancel.is_cancelled());
        table.cancel_orphans(Time::from_millis(5_000));
        assert!(cancel.is_cancelled());
    }

    #[test]
    fn a_request_is_named_a_second_after_it_was_published_however_often_it_began() {
        let (mut table, id) = (Table::default(), entropy::request_id());
        let again = Entry { since: Time::from_millis(900), published: Time::from_millis(100), ..entry(&mut table) };
        let ingress = again.ingress.clone();
        table.start(id, again);
        assert!(table.held(Time::from_millis(99)).is_empty());
        assert_eq!(table.held(Time::from_millis(100)), HashMap::from_iter([(ingress, vec![id])]));
    }
}
