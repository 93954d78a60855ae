//! core: what one engine was told and has taken, by the wire's rules alone, so that the books fail where the engine's own
//! would agree with themselves.

use scheduler::engine::{ACCEPT_WAIT, Event, FrameKey, HEARTBEAT_GONE, HEARTBEAT_STALE, Item, Returned};
use shared::clock::Time;
use shared::domain::{BatchId, NodeId, RequestId};
use shared::wire::{BackendCredit, Fault, ItemDone, Running};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What a worker accepted this long ago and does not list has ended.
const UNLISTED_AFTER: Duration = Duration::from_secs(1);

/// The engine looks for the dead so often: until then it does not know that what they had waits again.
const NOTICED_WITHIN: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Reserving,
    Waiting,
    Out(BatchId),
    /// It failed, and that is being put on record.
    Failing,
}

/// An item in the engine's custody.
#[derive(Debug)]
pub(crate) struct Custody {
    pub(crate) item: Item,
    pub(crate) frame: FrameKey,
    pub(crate) state: State,
    pub(crate) since: Time,
    /// A call of it has failed: it may rest before the next.
    pub(crate) is_retry: bool,
}

#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) seen: Time,
    pub(crate) backends: Vec<BackendCredit>,
}

/// A dispatch that has not ended.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) worker: NodeId,
    /// The backend, and its worker unless it is shared.
    pub(crate) slot: (Box<str>, Option<NodeId>),
    pub(crate) sent: Time,
    pub(crate) is_accepted: bool,
    pub(crate) is_taken_back: bool,
    pub(crate) items: BTreeMap<RequestId, Item>,
    /// Of these another worker was late to say that it has them: the copies here do not count.
    pub(crate) superseded: BTreeSet<RequestId>,
    /// These ran elsewhere before their worker was heard to have them here.
    pub(crate) doubles: BTreeSet<RequestId>,
}

impl Batch {
    pub(crate) fn carries(&self, id: RequestId) -> bool {
        self.is_live() && self.items.contains_key(&id) && !self.superseded.contains(&id)
    }

    fn note_doubles(&mut self, custody: &BTreeMap<RequestId, Custody>) {
        self.doubles = self.items.keys().copied().filter(|id| !custody.contains_key(id)).collect();
    }

    /// It holds its credit.
    pub(crate) const fn is_live(&self) -> bool {
        self.is_accepted || !self.is_taken_back
    }
}

#[derive(Default)]
pub(crate) struct Books {
    /// Everything ever delivered, and the frame it came in last.
    pub(crate) known: BTreeMap<RequestId, (Item, FrameKey)>,
    pub(crate) frames: BTreeSet<FrameKey>,
    /// Delivered in this step: of two frames with one item, the first counts.
    pub(crate) arriving: BTreeSet<RequestId>,
    pub(crate) custody: BTreeMap<RequestId, Custody>,
    /// When interactive work last came.
    pub(crate) interactive_at: Option<Time>,
    /// Bytes in custody.
    pub(crate) bytes: usize,
    pub(crate) workers: BTreeMap<NodeId, Worker>,
    pub(crate) batches: BTreeMap<BatchId, Batch>,
    /// The call has ended, and the outcome goes on record: at which worker, since when.
    recording: BTreeMap<RequestId, (NodeId, Time)>,
    pub(crate) cancelled: BTreeSet<RequestId>,
    pub(crate) ingresses: BTreeMap<NodeId, Time>,
    /// When a slot was last freed.
    pub(crate) freed: Time,
    /// Something left a batch, or turned out to be in one.
    has_moved: bool,
    /// A worker was late to say that it has what was taken back from it.
    has_late: bool,
    /// Of batches that were refused or taken back, and not yet told.
    pub(crate) given_back: Vec<Item>,
    /// Calls that failed and that this owner waited for, and not yet told.
    pub(crate) failed: Vec<FailedCall>,
}

/// What shared a call that failed.
pub(crate) struct FailedCall {
    pub(crate) fault: Fault,
    pub(crate) ids: Vec<RequestId>,
}

impl Books {
    /// What was delivered in a frame, and in no other since.
    pub(crate) fn items_of(&self, frame: FrameKey) -> impl Iterator<Item = RequestId> {
        self.known.iter().filter(move |(_, (_, of))| *of == frame).map(|(id, _)| *id)
    }

    pub(crate) fn hear(&mut self, now: Time, events: &[Event]) {
        self.arriving.clear();
        events.iter().for_each(|event| self.hear_one(now, event));
        self.take_back(now);
        self.drop_gone(now);
        self.follow(now);
    }

    fn hear_one(&mut self, now: Time, event: &Event) {
        match event {
            Event::Delivered { frame, items } => self.delivered(now, *frame, items),
            Event::Reserved(id) => {
                if let Some(held) = self.custody.get_mut(id).filter(|held| held.state == State::Reserving) {
                    (held.state, held.since) = (State::Waiting, now);
                }
            }
            Event::QuotaRefused { .. } | Event::Committed(_) => {}
            Event::Accepted { worker, batch } => self.accepted(worker, *batch),
            Event::Refused { worker, batch } => self.refused(worker, *batch),
            Event::Freed { worker, batch, items } => self.freed(now, worker, *batch, items),
            Event::Done { worker, batch, items } => self.done(now, worker, *batch, items),
            Event::Returned(returned) => self.returned(now, returned),
            Event::Heartbeat { worker, backends, running } => self.heartbeat(now, worker, backends, running),
            Event::WorkerLeft(worker) => self.drop_worker(now, worker),
            Event::IngressSeen(ingress) => {
                self.ingresses.insert(ingress.clone(), now);
            }
            Event::Cancelled(ids) => self.cancelled.extend(ids),
        }
    }

    fn delivered(&mut self, now: Time, frame: FrameKey, items: &[Item]) {
        self.frames.insert(frame);
        for item in items {
            if self.arriving.insert(item.id) {
                self.known.insert(item.id, (item.clone(), frame));
            }
            self.ingresses.insert(item.ingress.clone(), now); // At the latest: silence is told from here on.
        }
    }

    fn accepted(&mut self, worker: &NodeId, id: BatchId) {
        if let Some(batch) = self.batches.get_mut(&id).filter(|batch| batch.worker == *worker) {
            let is_late = batch.is_taken_back && !batch.is_accepted;
            if is_late {
                batch.note_doubles(&self.custody);
            }
            self.has_late |= is_late;
            self.has_moved |= self.has_late;
            batch.is_accepted = true;
        }
    }

    fn refused(&mut self, worker: &NodeId, id: BatchId) {
        let is_refusable = |batch: &Batch| batch.worker == *worker && !batch.is_accepted && !batch.is_taken_back;
        if self.batches.get(&id).is_some_and(is_refusable) {
            let batch = self.batches.remove(&id).expect("looked up a moment ago");
            self.given_back.extend(batch.items.into_values());
            self.has_moved = true;
        }
    }

    fn freed(&mut self, now: Time, worker: &NodeId, id: BatchId, items: &[ItemDone]) {
        let carried = |batch: &Batch, done: &ItemDone| batch.worker == *worker && batch.items.contains_key(&done.id);
        for done in items.iter().filter(|done| self.batches.get(&id).is_some_and(|batch| carried(batch, done))) {
            let Some(held) = self.custody.get_mut(&done.id) else { continue };
            self.recording.insert(done.id, (worker.clone(), now));
            if held.state == State::Waiting {
                held.state = State::Out(id); // It had been taken back: the worker has it, after all.
            }
        }
        self.leave(now, worker, id, items.iter().map(|done| done.id));
    }

    fn done(&mut self, now: Time, worker: &NodeId, id: BatchId, items: &[ItemDone]) {
        items.iter().for_each(|done| drop(self.recording.remove(&done.id)));
        self.leave(now, worker, id, items.iter().map(|done| done.id));
    }

    /// What waits to be on record and never will be.
    fn unrecorded(&mut self, is_lost: impl Fn(RequestId, &NodeId, Time) -> bool) {
        let before = self.recording.len();
        self.recording.retain(|id, (worker, since)| !is_lost(*id, worker, *since));
        self.has_moved |= self.recording.len() < before;
    }

    fn leave(&mut self, now: Time, worker: &NodeId, id: BatchId, items: impl Iterator<Item = RequestId>) {
        self.accepted(worker, id);
        if let Some(batch) = self.batches.get_mut(&id).filter(|batch| batch.worker == *worker) {
            items.for_each(|id| drop(batch.items.remove(&id)));
            self.has_moved = true;
        }
        self.drop_ended(now);
    }

    /// What was in the batch comes back; what is interactive is not here any more.
    fn returned(&mut self, now: Time, returned: &Returned) {
        self.accepted(&returned.worker, returned.batch);
        let batch = self.batches.get(&returned.batch).filter(|batch| batch.worker == returned.worker);
        let doubles = batch.map(|batch| batch.doubles.clone()).unwrap_or_default();
        let was_out = |id: &RequestId| batch.is_some_and(|batch| batch.items.contains_key(id));
        let out: Vec<RequestId> = returned.items.iter().map(|back| back.id).filter(was_out).collect();
        self.leave(now, &returned.worker, returned.batch, out.iter().copied());
        let ids: Vec<RequestId> = out.into_iter().filter(|id| !doubles.contains(id)).collect();
        for back in returned.items.iter().filter(|back| ids.contains(&back.id)) {
            if let Some(held) = self.custody.get_mut(&back.id) {
                held.is_retry = true;
            }
            if let Some(item) = &back.item {
                self.arriving.insert(back.id);
                self.known.insert(back.id, (item.clone(), FrameKey::NONE));
            }
        }
        self.failed.push(FailedCall { fault: returned.fault, ids });
    }

    fn drop_ended(&mut self, now: Time) {
        let before = self.batches.len();
        self.batches.retain(|_, batch| !batch.items.is_empty());
        if self.batches.len() < before {
            self.freed = now;
        }
    }

    fn heartbeat(&mut self, now: Time, worker: &NodeId, backends: &[BackendCredit], running: &[Running]) {
        let before = self.workers.insert(worker.clone(), Worker { seen: now, backends: backends.to_vec() });
        if before.is_none() {
            self.freed = now; // It may have been given up here a little before it is there.
        }
        let lists = |id: &RequestId| running.iter().any(|run| run.id == *id);
        for batch in self.batches.values_mut().filter(|batch| batch.worker == *worker && !batch.is_taken_back) {
            batch.is_accepted |= batch.items.keys().all(lists); // Its accept was lost or is late.
        }
        for batch in self.batches.values_mut().filter(|batch| batch.worker == *worker) {
            let is_late = batch.is_taken_back && !batch.is_accepted && batch.items.keys().any(lists);
            if is_late {
                batch.note_doubles(&self.custody);
            }
            batch.is_accepted |= is_late;
            self.has_late |= is_late;
            if is_late || batch.is_accepted && now.since(batch.sent) >= UNLISTED_AFTER {
                batch.items.retain(|id, _| lists(id));
                self.has_moved = true;
            }
        }
        self.drop_ended(now);
        self.unrecorded(|id, of, since| of == worker && now.since(since) >= UNLISTED_AFTER && !lists(&id));
    }

    fn take_back(&mut self, now: Time) {
        let is_due = |batch: &&mut Batch| !batch.is_accepted && !batch.is_taken_back && now.since(batch.sent) >= ACCEPT_WAIT;
        for batch in self.batches.values_mut().filter(is_due) {
            (batch.is_taken_back, self.has_moved) = (true, true);
        }
    }

    /// What is out and in no batch any more waits again; what waits and turns out to be in one does not.
    fn follow(&mut self, now: Time) {
        if !std::mem::take(&mut self.has_moved) {
            return;
        }
        let batches = &self.batches;
        let carrier = |id: RequestId| batches.iter().find(|(_, batch)| batch.carries(id)).map(|(batch, _)| *batch);
        for (id, held) in &mut self.custody {
            match held.state {
                State::Out(_) if self.recording.contains_key(id) => {}
                State::Out(batch) if batches.get(&batch).is_some_and(|batch| batch.carries(*id)) => {}
                State::Out(_) => match carrier(*id) {
                    Some(other) => held.state = State::Out(other),
                    None => (held.state, held.since) = (State::Waiting, now + NOTICED_WITHIN),
                },
                State::Waiting if self.has_late => held.state = carrier(*id).map_or(State::Waiting, State::Out),
                State::Waiting | State::Reserving | State::Failing => {}
            }
        }
        self.has_late = false;
    }

    fn drop_gone(&mut self, now: Time) {
        let gone: Vec<NodeId> =
            self.workers.iter().filter(|(_, worker)| now.since(worker.seen) >= HEARTBEAT_GONE).map(|(id, _)| id.clone()).collect();
        gone.iter().for_each(|worker| self.drop_worker(now, worker));
    }

    fn drop_worker(&mut self, now: Time, worker: &NodeId) {
        self.workers.remove(worker);
        self.unrecorded(|_, of, _| of == worker);
        let of_worker: Vec<BatchId> = self.batches.iter().filter(|(_, batch)| batch.worker == *worker).map(|(id, _)| *id).collect();
        for id in of_worker {
            let batch = self.batches.remove(&id).expect("listed a moment ago");
            self.given_back.extend(batch.items.into_values());
            self.has_moved = true;
            self.freed = now;
        }
    }

    /// The engine fails an item; a deferred one stays until that is on record.
    pub(crate) fn failed(&mut self, id: RequestId) {
        if let Some(held) = self.custody.get_mut(&id) {
            held.state = State::Failing;
        }
    }

    /// The engine lets an item go.
    pub(crate) fn released(&mut self, id: RequestId) {
        let Some(held) = self.custody.remove(&id) else { return };
        self.recording.remove(&id);
        self.bytes -= held.item.bytes;
        if let State::Out(batch) = held.state
            && let Some(batch) = self.batches.get_mut(&batch).filter(|batch| !batch.is_accepted)
        {
            batch.superseded.insert(id);
        }
    }

    /// The engine takes an item.
    pub(crate) fn admit(&mut self, now: Time, id: RequestId) {
        let (item, frame) = self.known.get(&id).expect("only what was delivered is taken").clone();
        if !frame.lane.is_deferred() {
            self.interactive_at = Some(now);
        }
        self.bytes += item.bytes;
        let is_retry = frame == FrameKey::NONE;
        let held = Custody { item, frame, state: if is_retry { State::Waiting } else { State::Reserving }, since: now, is_retry };
        assert!(self.custody.insert(id, held).is_none(), "{id} is admitted twice");
        // Published again because its worker is silent: that execution is given up.
        let silent = |worker: &NodeId| self.workers.get(worker).is_none_or(|w| now.since(w.seen) >= HEARTBEAT_STALE);
        for batch in self.batches.values_mut().filter(|batch| silent(&batch.worker)) {
            batch.items.remove(&id);
            self.has_moved = true;
        }
        self.drop_ended(now);
    }
}
