//! core: the workers, what they may take, and what they have. No dispatch without credit; silence is no credit. Where the next
//! call goes is in `slots.rs`.

use super::batch::{Batch, End, Ended, Member, SlotKey};
use super::breaker::State;
use super::places::Places;
use foldhash::{HashMap, HashSet};
use shared::clock::Time;
use shared::domain::{BatchId, NodeId, RequestId};
use shared::wire::{BackendCredit, Running};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// A worker silent this long gets no more work.
pub const HEARTBEAT_STALE: Duration = Duration::from_millis(1_500);

/// A worker silent this long is gone, and what it had with it.
pub const HEARTBEAT_GONE: Duration = Duration::from_secs(5);

/// What a worker accepted this long ago and does not list in a heartbeat has ended; its `done` was lost.
pub(super) const UNLISTED_AFTER: Duration = Duration::from_secs(1);

/// Dispatches that were taken back are remembered in case the accept is merely late.
const LATE_MAX: usize = 1_024;

#[derive(Debug)]
pub(super) struct Worker {
    pub(super) seen: Time,
    /// It did not accept, or refused: left alone until it is heard again.
    pub(super) suspect: bool,
    pub(super) backends: Vec<BackendCredit>,
    pub(super) tokens: u64,
    /// When it was last given a batch: among equals, whoever rested longest goes next.
    pub(super) served: Time,
}

#[derive(Debug, Default)]
pub(super) struct Fleet {
    pub(super) workers: BTreeMap<NodeId, Worker>,
    pub(super) places: Places,
    /// In order, so that the same events give the same actions.
    batches: BTreeMap<BatchId, Batch>,
    unaccepted: VecDeque<(Time, BatchId)>,
    late: VecDeque<(BatchId, Batch)>,
    /// Accepted items of this owner's batches.
    running: HashMap<RequestId, BatchId>,
    /// The other batches of items that two workers run, because the accept of one was late: few, and gone with their batches.
    doubles: Vec<(RequestId, BatchId)>,
    /// What each worker said it runs, whoever dispatched it.
    listed: HashMap<RequestId, NodeId>,
    freed: Time,
    /// Members of all batches.
    outstanding: usize,
}

impl Fleet {
    pub(super) fn freed_at(&self) -> Time {
        self.freed
    }

    /// Requests in calls.
    pub(super) fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Where a batch is.
    pub(super) fn backend_of(&self, batch: BatchId) -> Option<Box<str>> {
        self.batches.get(&batch).map(|batch| batch.slot.backend.clone())
    }

    pub(super) fn have_breakers_changed(&mut self) -> bool {
        std::mem::take(&mut self.places.have_changed)
    }

    /// Whether a batch shows if its backend answers again.
    pub(super) fn is_trial(&self, batch: BatchId) -> bool {
        self.places.iter().any(|(.., place)| matches!(place.state(), State::Trial(trial, _) if trial == batch))
    }

    /// The backend of a batch asks not to be called for so long.
    pub(super) fn hold(&mut self, now: Time, batch: BatchId, wait: Duration) {
        if let Some(batch) = self.batches.get(&batch) {
            self.places.hold(now, &batch.slot.key, wait);
        }
    }

    pub(super) fn dispatched(&mut self, now: Time, id: BatchId, batch: Batch) {
        if let Some(worker) = self.workers.get_mut(&batch.slot.worker) {
            worker.served = now;
        }
        self.unaccepted.push_back((now, id));
        self.places.called(now, &batch.slot.key, id);
        self.occupy(id, batch);
    }

    /// When the oldest dispatch that waits for its accept was sent.
    pub(super) fn first_unaccepted(&self) -> Option<Time> {
        self.unaccepted.front().map(|(sent, _)| *sent)
    }

    /// The worker has it: returns the members to hand over; none if it is not this worker's or was accepted before.
    pub(super) fn accept(&mut self, worker: &NodeId, id: BatchId) -> Vec<Member> {
        let Some(batch) = self.batches.get_mut(&id).filter(|b| b.slot.worker == *worker && b.accepted.is_none()) else {
            return Vec::new();
        };
        batch.accepted = Some(batch.sent);
        let members = batch.members.clone();
        for member in &members {
            if let Some(other) = self.running.insert(member.id, id) {
                self.doubles.push((member.id, other));
            }
        }
        self.drop_settled_waits();
        members
    }

    /// The worker has what was taken back from it, and of that only what `is_here` did not run elsewhere since: returns the members
    /// to hand over.
    pub(super) fn accept_late(&mut self, worker: &NodeId, id: BatchId, is_here: impl Fn(RequestId) -> bool) -> Vec<Member> {
        let at = self.late.iter().position(|(late, batch)| *late == id && batch.slot.worker == *worker);
        let Some((_, mut batch)) = at.and_then(|at| self.late.remove(at)) else { return Vec::new() };
        batch.members.iter_mut().for_each(|member| member.is_double = !is_here(member.id));
        self.occupy(id, batch);
        self.accept(worker, id)
    }

    /// Batches that a worker has not accepted and whose items it lists, all of them: it has them, and its accept was lost or is late.
    pub(super) fn all_listed(&self, worker: &NodeId, running: &[Running]) -> Vec<BatchId> {
        let is_listed = |member: &Member| running.iter().any(|run| run.id == member.id);
        let has_all = |batch: &Batch| batch.slot.worker == *worker && batch.accepted.is_none() && batch.members.iter().all(is_listed);
        let waits = self.unaccepted.iter().filter(|(_, id)| self.batches.get(id).is_some_and(has_all));
        waits.map(|(_, id)| *id).collect()
    }

    /// The worker lists items of batches that were taken back from it: returns those to hand over.
    pub(super) fn running_late(&mut self, worker: &NodeId, running: &[Running], is_here: impl Fn(RequestId) -> bool) -> Vec<Member> {
        let is_listed = |member: &Member| running.iter().any(|run| run.id == member.id);
        let has_listed = |batch: &Batch| batch.slot.worker == *worker && batch.members.iter().any(is_listed);
        let listed: Vec<BatchId> = self.late.iter().filter(|(_, batch)| has_listed(batch)).map(|(id, _)| *id).collect();
        for (_, batch) in self.late.iter_mut().filter(|(id, _)| listed.contains(id)) {
            batch.members.retain(is_listed); // The others wait, or run, elsewhere.
        }
        listed.into_iter().flat_map(|id| self.accept_late(worker, id, &is_here)).collect()
    }

    /// The worker will not take it: returns the members to take back.
    pub(super) fn refuse(&mut self, worker: &NodeId, id: BatchId) -> Option<Vec<Member>> {
        if self.batches.get(&id).is_none_or(|b| b.slot.worker != *worker || b.accepted.is_some()) {
            return None;
        }
        let batch = self.vacate(id)?;
        self.suspect(worker);
        self.drop_settled_waits();
        Some(batch.members)
    }

    /// A batch sent at or before `sent_by` that nobody accepted. Its worker is suspect from now on.
    pub(super) fn take_unaccepted(&mut self, sent_by: Time) -> Option<(BatchId, Vec<Member>)> {
        self.drop_settled_waits();
        let (_, id) = self.unaccepted.front().copied().filter(|(sent, _)| *sent <= sent_by)?;
        self.unaccepted.pop_front();
        let batch = self.vacate(id)?;
        self.suspect(&batch.slot.worker);
        let members = batch.members.clone();
        if self.late.len() == LATE_MAX {
            self.late.pop_front();
        }
        self.late.push_back((id, batch));
        Some((id, members))
    }

    fn drop_settled_waits(&mut self) {
        let waits = |id: &BatchId| self.batches.get(id).is_some_and(|b| b.accepted.is_none());
        while self.unaccepted.front().is_some_and(|(_, id)| !waits(id)) {
            self.unaccepted.pop_front();
        }
    }

    fn suspect(&mut self, worker: &NodeId) {
        if let Some(worker) = self.workers.get_mut(worker) {
            worker.suspect = true;
        }
    }

    /// One item of a batch has ended. Returns it, once, and with the last one the whole call.
    pub(super) fn finish(&mut self, worker: &NodeId, id: BatchId, end: End, now: Time) -> Option<(Member, Option<Ended>)> {
        let batch = self.batches.get_mut(&id).filter(|b| b.slot.worker == *worker)?;
        let at = batch.members.iter().position(|m| m.id == end.id)?;
        let member = batch.members.swap_remove(at);
        self.outstanding -= 1;
        batch.note(&member, end);
        let ended = batch.members.is_empty().then(|| batch.ended(now));
        let key = batch.slot.key.clone();
        self.lighten(&key, worker, member.tokens);
        self.no_longer_running(end.id, id);
        self.listed.remove(&end.id);
        if let Some(call) = &ended {
            self.places.ended(now, &key, id, call);
            self.vacate(id);
            self.freed = now;
        }
        Some((member, ended))
    }

    /// Drops what this owner knows of a request whose worker fell silent.
    pub(super) fn forget(&mut self, request: RequestId, now: Time) {
        let Some(id) = self.running.get(&request).copied() else { return };
        if let Some(worker) = self.batches.get(&id).map(|b| b.slot.worker.clone()) {
            self.finish(&worker, id, End::untold(request), now);
        }
    }

    /// Whether a worker has accepted the request from this owner, and not ended it.
    pub(super) fn has_accepted(&self, request: RequestId) -> bool {
        self.running.contains_key(&request)
    }

    /// Whether a worker has accepted the request from this owner in another batch, and not ended it there.
    pub(super) fn runs_besides(&self, request: RequestId, batch: BatchId) -> bool {
        let is_there = |other: BatchId| other != batch;
        self.running.get(&request).is_some_and(|other| is_there(*other))
            || self.doubles.iter().any(|(double, other)| *double == request && is_there(*other))
    }

    /// Whether a worker has said that it runs the request, whoever dispatched it.
    pub(super) fn is_listed(&self, request: RequestId) -> bool {
        self.listed.contains_key(&request)
    }

    /// Whether a worker that was heard lately has the request.
    pub(super) fn is_running_on_live_worker(&self, request: RequestId, now: Time) -> bool {
        let ours = self.running.get(&request).and_then(|id| self.batches.get(id)).map(|b| &b.slot.worker);
        let said = self.listed.get(&request);
        let is_live = |id: &NodeId| self.workers.get(id).is_some_and(|w| now.since(w.seen) < HEARTBEAT_STALE);
        ours.is_some_and(is_live) || said.is_some_and(is_live)
    }

    /// A worker speaks: its credit is fresh, and what it no longer runs has ended. Returns what ended unreported.
    pub(super) fn heartbeat(&mut self, now: Time, id: &NodeId, backends: Vec<BackendCredit>, running: &[Running]) -> Vec<Member> {
        let (tokens, served) = self.workers.get(id).map_or((0, Time::ZERO), |w| (w.tokens, w.served));
        backends.iter().for_each(|credit| self.places.announced(now, id, credit));
        self.workers.insert(id.clone(), Worker { seen: now, suspect: false, backends, tokens, served });
        self.listed.retain(|_, worker| worker != id);
        self.listed.extend(running.iter().map(|r| (r.id, id.clone())));
        for run in running.iter().filter(|run| run.begun) {
            let Some(batch) = self.running.get(&run.id) else { continue };
            let Some(of_worker) = self.batches.get(batch).filter(|b| b.slot.worker == *id) else { continue };
            self.places.begun(now, &of_worker.slot.key, *batch);
        }
        let listed: HashSet<RequestId> = running.iter().map(|r| r.id).collect();
        self.unlisted(now, id, &listed)
            .into_iter()
            .filter_map(|(batch, request)| self.finish(id, batch, End::untold(request), now))
            .map(|(m, _)| m)
            .collect()
    }

    fn unlisted(&self, now: Time, worker: &NodeId, listed: &HashSet<RequestId>) -> Vec<(BatchId, RequestId)> {
        let is_old = |b: &Batch| b.accepted.is_some_and(|at| now.since(at) >= UNLISTED_AFTER);
        let batches = self.batches.iter().filter(|(_, b)| b.slot.worker == *worker && is_old(b));
        let members = batches.flat_map(|(id, b)| b.members.iter().map(|m| (*id, m.id)));
        members.filter(|(_, request)| !listed.contains(request)).collect()
    }

    /// Workers that have been silent for too long.
    pub(super) fn silent(&self, now: Time) -> Vec<NodeId> {
        self.workers.iter().filter(|(_, w)| now.since(w.seen) >= HEARTBEAT_GONE).map(|(id, _)| id.clone()).collect()
    }

    /// Drops a worker. Returns its batches that were not yet accepted, and the members of those that were.
    pub(super) fn remove(&mut self, id: &NodeId) -> (Vec<(BatchId, Vec<Member>)>, Vec<Member>) {
        let (mut unaccepted, mut running) = (Vec::new(), Vec::new());
        let of_worker: Vec<BatchId> = self.batches.iter().filter(|(_, b)| b.slot.worker == *id).map(|(id, _)| *id).collect();
        for batch_id in of_worker {
            match self.vacate(batch_id) {
                Some(batch) if batch.accepted.is_some() => running.extend(batch.members),
                Some(batch) => unaccepted.push((batch_id, batch.members)),
                None => {}
            }
        }
        self.late.retain(|(_, batch)| batch.slot.worker != *id);
        self.workers.remove(id);
        self.places.drop_worker(id);
        self.listed.retain(|_, worker| worker != id);
        self.drop_settled_waits();
        (unaccepted, running)
    }

    fn occupy(&mut self, id: BatchId, batch: Batch) {
        let tokens = batch.tokens();
        if let Some(place) = self.places.get_mut(&batch.slot.key) {
            place.calls += 1;
            place.tokens += tokens;
        }
        self.outstanding += batch.members.len();
        if let Some(worker) = self.workers.get_mut(&batch.slot.worker) {
            worker.tokens += tokens;
        }
        self.batches.insert(id, batch);
    }

    fn vacate(&mut self, id: BatchId) -> Option<Batch> {
        let batch = self.batches.remove(&id)?;
        batch.members.iter().for_each(|member| self.no_longer_running(member.id, id));
        self.outstanding -= batch.members.len();
        self.lighten(&batch.slot.key, &batch.slot.worker, batch.tokens());
        self.places.lost(&batch.slot.key, id); // Unless its end was heard.
        if let Some(place) = self.places.get_mut(&batch.slot.key) {
            place.calls = place.calls.saturating_sub(1);
        }
        Some(batch)
    }

    fn no_longer_running(&mut self, request: RequestId, batch: BatchId) {
        self.doubles.retain(|double| *double != (request, batch));
        if self.running.get(&request) != Some(&batch) {
            return;
        }
        match self.doubles.iter().position(|(double, _)| *double == request) {
            Some(at) => self.running.insert(request, self.doubles.swap_remove(at).1),
            None => self.running.remove(&request),
        };
    }

    fn lighten(&mut self, key: &SlotKey, worker: &NodeId, tokens: u64) {
        if let Some(place) = self.places.get_mut(key) {
            place.tokens = place.tokens.saturating_sub(tokens);
        }
        if let Some(worker) = self.workers.get_mut(worker) {
            worker.tokens = worker.tokens.saturating_sub(tokens);
        }
    }
}
