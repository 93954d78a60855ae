//! core: who has an item, from its dispatch to its end.
//!
//! An interactive item is its ingress's concern as soon as a worker has it, and leaves the engine then. A deferred one
//! stays in custody until its outcome is on record: a worker's `done` says so, or the commit of a failure found here.
//! Until then its frame is not acked, and if the worker goes, the item returns to its place.

use super::batch::{Ended, Member};
use super::event::{Action, Cause};
use super::fleet::UNLISTED_AFTER;
use super::frames::FrameKey;
use super::item::{Entry, Item, State};
use super::lanes::aged_after;
use super::queue::FairQueue;
use super::turnstile::Turnstiles;
use super::{ACCEPT_WAIT, Engine, RUNS_ELSEWHERE_WAIT};
use shared::clock::Time;
use shared::domain::{BatchId, Lane, ModelKind, NodeId, RequestId};
use shared::error::Code;
use shared::wire::{BackendCredit, ItemDone, Running};
use std::collections::BTreeSet;

/// Workers that a deferred item may have killed before it fails. After the first it runs alone, so that the next two are evidence.
const CRASHES_MAX: u8 = 3;

impl Engine {
    pub(super) fn accepted(&mut self, worker: &NodeId, batch: BatchId, actions: &mut Vec<Action>) {
        let members = self.fleet.accept(worker, batch);
        members.iter().for_each(|member| self.hand_over(member.id, actions));
        let late = self.fleet.accept_late(worker, batch, |id| self.items.contains_key(&id));
        self.hand_over_late(&late, actions);
    }

    /// A worker has what was taken back from it: it runs there, wherever else it has been sent since. A deferred item that was
    /// stays with the other one, and whoever ends it first ends it.
    fn hand_over_late(&mut self, members: &[Member], actions: &mut Vec<Action>) {
        for member in members {
            self.queue.charge(member.lane, &member.tenant, member.cost); // It was refunded.
            let elsewhere = self.items.get(&member.id).is_some_and(|e| e.frame.lane.is_deferred() && e.state.is_sent());
            if !elsewhere {
                self.hand_over(member.id, actions);
            }
        }
    }

    /// A worker has the item.
    fn hand_over(&mut self, id: RequestId, actions: &mut Vec<Action>) {
        if self.items.get(&id).is_some_and(|entry| entry.frame.lane.is_deferred()) {
            self.set_aside(id, State::Running);
        } else {
            self.drop_item(id, actions);
        }
    }

    pub(super) fn refused(&mut self, worker: &NodeId, batch: BatchId, actions: &mut Vec<Action>) {
        let Some(members) = self.fleet.refuse(worker, batch) else { return };
        self.take_back(batch, &members, actions);
    }

    pub(super) fn take_back_unaccepted(&mut self, now: Time, actions: &mut Vec<Action>) {
        while let Some((batch, members)) = self.fleet.take_unaccepted(now.saturating_sub(ACCEPT_WAIT)) {
            self.take_back(batch, &members, actions);
        }
    }

    fn take_back(&mut self, batch: BatchId, members: &[Member], actions: &mut Vec<Action>) {
        for member in members {
            self.queue.refund(member.lane, &member.tenant, member.cost);
            if self.items.get(&member.id).is_some_and(|entry| entry.state == State::Dispatched(batch)) {
                self.queue_again(member.id, actions);
            }
        }
    }

    /// A worker no longer has what it had accepted, and nobody said how it ended. An interactive item's ingress sees to it; a
    /// deferred one is queued again.
    fn interrupted(&mut self, member: &Member, crashed: bool, actions: &mut Vec<Action>) {
        let Some(entry) = self.items.get_mut(&member.id) else { return };
        entry.crashes = entry.crashes.saturating_add(u8::from(crashed));
        let (state, is_poison) = (entry.state, entry.crashes >= CRASHES_MAX);
        self.queue.refund(member.lane, &member.tenant, member.cost);
        match state {
            State::Running if is_poison => self.fail(member.id, Cause::Here(Code::Poison), actions),
            State::Running => self.queue_again(member.id, actions),
            State::Reserving | State::Waiting | State::Resting(_) | State::Dispatched(_) | State::Failing => {}
        }
    }

    /// An outcome that a worker was to put on record will never be there: its request is run again.
    fn unrecorded(&mut self, id: RequestId, actions: &mut Vec<Action>) {
        if self.items.get(&id).is_some_and(|entry| entry.state == State::Running) {
            self.queue_again(id, actions);
        }
    }

    /// Back to where it was in the queue, unless another worker has it, too.
    fn queue_again(&mut self, id: RequestId, actions: &mut Vec<Action>) {
        if self.fleet.has_accepted(id) || self.recording.contains(id) {
            return self.set_aside(id, State::Running);
        }
        if self.cancelled.contains(id) {
            return self.drop_item(id, actions);
        }
        let Some(entry) = self.items.get_mut(&id) else { return };
        entry.state = State::Waiting;
        self.deadlines.insert((entry.item.deadline, id));
        self.queue.push(entry);
    }

    /// Calls have ended, and their outcomes are on record or were sent.
    pub(super) fn done(&mut self, now: Time, worker: &NodeId, batch: BatchId, items: &[ItemDone], actions: &mut Vec<Action>) {
        self.accepted(worker, batch, actions); // A lost accept: the answer says as much.
        for done in items {
            self.finish(now, worker, batch, done);
            self.committed(done.id, actions);
        }
    }

    /// Calls of deferred items have ended. Until their outcomes are on record, their worker answers for them.
    pub(super) fn freed(&mut self, now: Time, worker: &NodeId, batch: BatchId, items: &[ItemDone], actions: &mut Vec<Action>) {
        self.accepted(worker, batch, actions);
        for done in items {
            if self.finish(now, worker, batch, done) && self.items.contains_key(&done.id) {
                self.recording.begin(now, worker, done.id);
            }
        }
    }

    /// An item's share of the credit is free, and with the last of a call what the call says is learnt. False: it was before.
    fn finish(&mut self, now: Time, worker: &NodeId, batch: BatchId, done: &ItemDone) -> bool {
        let Some((member, ended)) = self.fleet.finish(worker, batch, done.into(), now) else { return false };
        ended.into_iter().for_each(|call| self.learn(now, &call));
        self.queue.settle(member.lane, &member.tenant, member.cost, Item::cost(done.usage.input, done.usage.output));
        true
    }

    pub(super) fn learn(&mut self, now: Time, call: &Ended) {
        self.linger.finished(now, call.took);
        if self.config.kind == ModelKind::Array {
            self.limits.learn(call);
        }
    }

    /// The outcome of a deferred item is on record, whoever put it there.
    pub(super) fn committed(&mut self, id: RequestId, actions: &mut Vec<Action>) {
        if self.items.get(&id).is_some_and(|entry| entry.frame.lane.is_deferred()) {
            self.drop_item(id, actions);
        }
    }

    pub(super) fn heartbeat(
        &mut self,
        now: Time,
        worker: &NodeId,
        backends: Vec<BackendCredit>,
        running: &[Running],
        actions: &mut Vec<Action>,
    ) {
        self.fleet.all_listed(worker, running).into_iter().for_each(|batch| self.accepted(worker, batch, actions));
        let late = self.fleet.running_late(worker, running, |id| self.items.contains_key(&id)); // The accept was lost.
        self.hand_over_late(&late, actions);
        running.iter().for_each(|run| self.leave_to_another(now, run.id, actions));
        let unlisted = self.fleet.heartbeat(now, worker, backends, running);
        unlisted.iter().for_each(|member| self.interrupted(member, true, actions));
        self.recording.unlisted(now, worker, running).into_iter().for_each(|id| self.unrecorded(id, actions));
    }

    /// A worker runs for another owner what waits here. A deferred item's end is not heard here, so that its frame is given
    /// back: when it comes again, the outcome is on record. What came back a moment ago may be listed by who had it until then.
    fn leave_to_another(&mut self, now: Time, id: RequestId, actions: &mut Vec<Action>) {
        let is_back = |entry: &Entry| entry.retry.as_ref().is_some_and(|retry| now.since(retry.back) < UNLISTED_AFTER);
        let Some(entry) = self.items.get(&id).filter(|entry| !entry.state.is_sent() && !is_back(entry)) else { return };
        if entry.frame.lane.is_deferred() {
            self.give_back(entry.frame, actions);
        } else {
            self.drop_item(id, actions);
        }
    }

    /// Gives a frame back with all its items, wherever they stand: those that run here as well are known by their workers.
    fn give_back(&mut self, frame: FrameKey, actions: &mut Vec<Action>) {
        let mut ids: Vec<(u64, RequestId)> = self.items.iter().filter(|(_, e)| e.frame == frame).map(|(id, e)| (e.order, *id)).collect();
        ids.sort_unstable(); // So that the same events give the same actions.
        let entries: Vec<Entry> = ids.into_iter().filter_map(|(_, id)| self.remove(id, actions)).collect();
        self.frames.give_back(frame);
        actions.push(Action::Nak(frame, RUNS_ELSEWHERE_WAIT));
        entries.iter().for_each(|entry| self.ask(&entry.item.account(), actions)); // Others may be asked about in their stead.
    }

    /// One that said goodbye did not crash.
    pub(super) fn worker_gone(&mut self, worker: &NodeId, crashed: bool, actions: &mut Vec<Action>) {
        let (unaccepted, running) = self.fleet.remove(worker);
        unaccepted.iter().for_each(|(batch, members)| self.take_back(*batch, members, actions));
        running.iter().for_each(|member| self.interrupted(member, crashed, actions));
        self.recording.left(worker).into_iter().for_each(|id| self.unrecorded(id, actions));
    }

    /// Orders what has waited for too long one lane up: of each lane the oldest item, and the next when that has gone. One at a
    /// time, because a lane that is late as a whole must not become the lane above it.
    pub(super) fn promote_aged(&mut self, now: Time) {
        for lane in Lane::ALL {
            let Some((after, up)) = aged_after(lane) else { continue };
            let is_waiting = |id: &RequestId| self.items.get(id).is_some_and(|entry| entry.state == State::Waiting);
            if self.aged[lane.index()].as_ref().is_some_and(is_waiting) {
                continue;
            }
            let is_its_own = |id: &RequestId| self.items.get(id).is_some_and(|entry| entry.item.lane == lane);
            let oldest = self.queue.waiting_since(lane, now.saturating_sub(after)).find(is_its_own);
            let Some((id, entry)) = oldest.and_then(|id| Some((id, self.items.get_mut(&id)?))) else { continue };
            self.queue.remove(entry);
            entry.lane = up;
            self.queue.push(entry);
            self.aged[lane.index()] = Some(id);
        }
    }

    /// Nobody waits for these. What a worker has, it ends itself.
    pub(super) fn cancel(&mut self, now: Time, ids: Vec<RequestId>, actions: &mut Vec<Action>) {
        for id in ids {
            self.cancelled.insert(id, now);
            if self.items.get(&id).is_some_and(|entry| !entry.state.is_sent()) {
                self.drop_item(id, actions);
            }
        }
    }

    pub(super) fn fail(&mut self, id: RequestId, cause: Cause, actions: &mut Vec<Action>) {
        let Some(entry) = self.items.get(&id) else { return };
        let (ingress, is_deferred) = (entry.item.ingress.clone(), entry.frame.lane.is_deferred());
        actions.push(Action::Fail { id, ingress, cause });
        if is_deferred {
            self.set_aside(id, State::Failing);
        } else {
            self.drop_item(id, actions);
        }
    }

    /// Somebody else sees to the item and its deadline now; it stays in custody.
    fn set_aside(&mut self, id: RequestId, state: State) {
        let Some(entry) = self.items.get_mut(&id) else { return };
        unqueue(&mut self.queue, &mut self.turnstiles, &mut self.resting, entry);
        self.deadlines.remove(&(entry.item.deadline, id));
        entry.state = state;
    }

    /// The item leaves the engine and its frame.
    pub(super) fn drop_item(&mut self, id: RequestId, actions: &mut Vec<Action>) {
        let Some(entry) = self.remove(id, actions) else { return };
        self.leave_frame(&entry, actions);
        if entry.item.lane.is_deferred() {
            let account = entry.item.account();
            self.turnstiles.ended(&account);
            self.ask(&account, actions); // Its place may have been what another waits for.
        }
    }

    /// Takes an item out of the engine wherever it stands.
    pub(super) fn remove(&mut self, id: RequestId, actions: &mut Vec<Action>) -> Option<Entry> {
        let entry = self.items.remove(&id)?;
        self.recording.end(id);
        self.deadlines.remove(&(entry.item.deadline, id));
        let held = &mut self.held[entry.frame.lane.index()];
        (held.items, held.bytes) = (held.items - 1, held.bytes - entry.item.bytes);
        unqueue(&mut self.queue, &mut self.turnstiles, &mut self.resting, &entry);
        actions.push(Action::Release(id));
        Some(entry)
    }

    /// One item less depends on the frame; the last one acks it.
    pub(super) fn leave_frame(&mut self, entry: &Entry, actions: &mut Vec<Action>) {
        if self.frames.left(entry.frame) {
            actions.push(Action::Ack(entry.frame));
        }
    }
}

/// Takes an item from where it waits, if it does.
fn unqueue(queue: &mut FairQueue, turnstiles: &mut Turnstiles, resting: &mut BTreeSet<(Time, RequestId)>, entry: &Entry) {
    match entry.state {
        State::Waiting => queue.remove(entry),
        State::Resting(until) => drop(resting.remove(&(until, entry.item.id))),
        State::Reserving if entry.item.lane.is_deferred() => turnstiles.left(&entry.item.account(), entry.order),
        State::Reserving | State::Dispatched(_) | State::Running | State::Failing => {}
    }
}
