//! core: who goes next, with whom, and where. One engine per (model, part): `step(now, events) → actions`.
//!
//! The engine knows requests by their measures, never by their content, and waits for nothing: what takes time comes
//! back as an event. Deliveries become waiting items, waiting items become batches for workers that have credit, and
//! every item leaves in exactly one way: accepted by a worker, answered with a failure, or dropped because nobody
//! waits for it. It does not retry a backend's failure (the worker answers for that) and holds no bodies.

mod batch;
mod call;
mod curve;
mod cut;
mod dispatch;
mod fleet;
mod frames;
mod item;
mod limit;
mod line;
mod linger;
mod order;
mod queue;

pub use fleet::{HEARTBEAT_GONE, HEARTBEAT_STALE};
pub use frames::FrameKey;
pub use item::Item;

use batch::{Ended, Member};
use fleet::Fleet;
use foldhash::{HashMap, HashMapExt};
use frames::Frames;
use item::{Entry, State};
use limit::Limits;
use linger::Linger;
use queue::FairQueue;
use shared::clock::Time;
use shared::domain::{BatchId, Lane, ModelKind, NodeId, RequestId};
use shared::error::Code;
use shared::quota::Refusal;
use shared::tombstones::Tombstones;
use shared::wire::{BackendCredit, ItemDone, Running};
use std::collections::BTreeSet;
use std::time::Duration;

/// An unaccepted dispatch is taken back after this long and its worker left alone until it is heard again.
pub const ACCEPT_WAIT: Duration = Duration::from_millis(150);

/// Work for an ingress that has been silent this long is dropped: nobody waits for it.
pub const INGRESS_SILENT: Duration = Duration::from_secs(3);

/// How often frames are renewed and the dead are looked for: a third of the shortest ack wait.
const MAINTENANCE: Duration = Duration::from_secs(1);

/// The measures of one model, from its configuration.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    pub kind: ModelKind,
    /// Inputs in one array call.
    pub max_items: u32,
    /// Estimated tokens in one array call.
    pub max_tokens: u32,
    /// The backend pads: every input of a call costs what the longest does.
    pub padded: bool,
    /// How long one array call should take at most.
    pub objective: Duration,
    /// Nothing is dispatched before: a new owner first hears what the workers already run.
    pub dispatch_from: Time,
}

/// What the engine is told.
#[derive(Clone, Debug)]
pub enum Event {
    /// A frame was handed out by the lane: for the first time, or again.
    Delivered {
        frame: FrameKey,
        items: Vec<Item>,
    },
    /// The quota was reserved.
    Reserved(RequestId),
    /// The quota was refused.
    QuotaRefused {
        id: RequestId,
        refusal: Refusal,
    },
    Accepted {
        worker: NodeId,
        batch: BatchId,
    },
    Refused {
        worker: NodeId,
        batch: BatchId,
    },
    Done {
        worker: NodeId,
        batch: BatchId,
        items: Vec<ItemDone>,
    },
    Heartbeat {
        worker: NodeId,
        backends: Vec<BackendCredit>,
        running: Vec<Running>,
    },
    /// A worker said that it has ended.
    WorkerLeft(NodeId),
    IngressSeen(NodeId),
    /// Nobody waits for these any more.
    Cancelled(Vec<RequestId>),
}

/// What the engine wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Reserve(RequestId),
    Dispatch {
        batch: BatchId,
        worker: NodeId,
        backend: Box<str>,
        items: Vec<RequestId>,
    },
    /// Nothing here depends on the frame any more.
    Ack(FrameKey),
    Renew(FrameKey),
    /// Hand the frame out again at once.
    Nak(FrameKey),
    /// A worker answers for the frame's ack: its token may be dropped here.
    Close(FrameKey),
    /// Tell the ingress that the request failed here.
    Fail {
        id: RequestId,
        ingress: NodeId,
        code: Code,
    },
    /// Give the request back to its ingress, which may try again.
    Refuse {
        id: RequestId,
        ingress: NodeId,
        refusal: Refusal,
    },
    /// The item has left the engine: its bytes may be dropped.
    Release(RequestId),
}

pub struct Engine {
    config: EngineConfig,
    /// Items in the engine's custody: reserving, waiting, or dispatched and not yet accepted.
    items: HashMap<RequestId, Entry>,
    queue: FairQueue,
    fleet: Fleet,
    frames: Frames,
    cancelled: Tombstones,
    deadlines: BTreeSet<(Time, RequestId)>,
    ingresses: HashMap<NodeId, Time>,
    linger: Linger,
    limits: Limits,
    arrivals: u64,
    /// The last batch's number. It starts from the clock, above those of any earlier ownership in this process, whose late
    /// answers must not be taken for these.
    batches: u64,
    bytes: usize,
    maintain_at: Time,
    linger_until: Option<Time>,
    /// Nothing is dispatched before; then it is `None`.
    settle_until: Option<Time>,
}

impl Engine {
    pub fn new(config: EngineConfig) -> Self {
        Self {
            items: HashMap::new(),
            queue: FairQueue::default(),
            fleet: Fleet::default(),
            frames: Frames::default(),
            cancelled: Tombstones::default(),
            deadlines: BTreeSet::new(),
            ingresses: HashMap::new(),
            linger: Linger::default(),
            limits: Limits::new(config.max_tokens, config.objective),
            arrivals: 0,
            batches: config.dispatch_from.as_micros(),
            bytes: 0,
            maintain_at: Time::ZERO,
            linger_until: None,
            settle_until: Some(config.dispatch_from),
            config,
        }
    }

    /// Takes what has happened, adds what is to be done. The events of one call are one moment: a burst becomes one batch.
    pub fn step(&mut self, now: Time, events: impl IntoIterator<Item = Event>, actions: &mut Vec<Action>) {
        for event in events {
            self.apply(now, event, actions);
        }
        self.expire(now, actions);
        self.take_back_unaccepted(now, actions);
        self.maintain(now, actions);
        self.dispatch(now, actions);
    }

    /// When to step next even if nothing happens.
    pub fn wake_at(&self) -> Time {
        let expiry = self.deadlines.first().map(|(deadline, _)| *deadline);
        let accept = self.fleet.first_unaccepted().map(|sent| sent + ACCEPT_WAIT);
        [expiry, accept, self.linger_until, self.settle_until].into_iter().flatten().fold(self.maintain_at, Time::min)
    }

    /// Whether to let what is just arriving join a step: its items may share a call. One known to be alone need not wait.
    pub fn gathers(&self, now: Time) -> bool {
        self.config.kind == ModelKind::Array && self.linger.peak(now) != 1
    }

    /// Items in custody, and their bytes: what bounds the window that an owner holds.
    pub fn load(&self) -> (usize, usize) {
        (self.items.len(), self.bytes)
    }

    /// Whether an item is in custody.
    pub fn holds(&self, id: RequestId) -> bool {
        self.items.contains_key(&id)
    }

    /// An item in custody.
    pub fn item(&self, id: RequestId) -> Option<&Item> {
        self.items.get(&id).map(|entry| &entry.item)
    }

    /// Whether a worker that lives has the item.
    pub fn runs(&self, id: RequestId, now: Time) -> bool {
        self.fleet.is_running_on_live_worker(id, now)
    }

    /// Waiting items by lane.
    pub fn depth(&self, lane: Lane) -> usize {
        self.queue.len(lane)
    }

    /// Free call slots, and outstanding calls.
    pub fn credit(&self, now: Time) -> (u32, usize) {
        (self.fleet.free_slots(now), self.fleet.outstanding())
    }

    /// What is still here, with its ingress, of items that came before `before`: for the `held` announcement.
    pub fn held(&self, before: Time) -> impl Iterator<Item = (&NodeId, RequestId)> {
        self.items.iter().filter(move |(_, entry)| entry.arrived <= before).map(|(id, entry)| (&entry.item.ingress, *id))
    }

    /// Ingresses heard of lately.
    pub fn ingresses(&self) -> impl Iterator<Item = &NodeId> {
        self.ingresses.keys()
    }

    /// Gives every waiting frame back, for the next owner. The engine is empty afterwards.
    pub fn surrender(&mut self, actions: &mut Vec<Action>) {
        actions.extend(self.frames.drain_held().map(Action::Nak));
        actions.extend(self.items.drain().map(|(id, _)| Action::Release(id)));
        self.queue.clear();
        self.deadlines.clear();
        self.bytes = 0;
    }

    fn apply(&mut self, now: Time, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Delivered { frame, items } => self.delivered(now, frame, items, actions),
            Event::Reserved(id) => self.reserved(id),
            Event::QuotaRefused { id, refusal } => self.quota_refused(id, refusal, actions),
            Event::Accepted { worker, batch } => self.accepted(&worker, batch, actions),
            Event::Refused { worker, batch } => self.refused(&worker, batch, actions),
            Event::Done { worker, batch, items } => self.done(now, &worker, batch, &items, actions),
            Event::Heartbeat { worker, backends, running } => self.heartbeat(now, &worker, backends, &running, actions),
            Event::WorkerLeft(worker) => self.worker_gone(&worker, actions),
            Event::IngressSeen(ingress) => {
                self.ingresses.insert(ingress, now);
            }
            Event::Cancelled(ids) => self.cancelled(now, ids, actions),
        }
    }

    fn delivered(&mut self, now: Time, frame: FrameKey, items: Vec<Item>, actions: &mut Vec<Action>) {
        let ids: Vec<RequestId> = items.iter().map(|item| item.id).collect();
        self.place(now, frame, items, actions);
        let not_here = ids.into_iter().filter(|id| !self.items.contains_key(id));
        actions.extend(not_here.map(Action::Release));
    }

    fn place(&mut self, now: Time, frame: FrameKey, items: Vec<Item>, actions: &mut Vec<Action>) {
        if self.frames.is_acked(frame) {
            actions.push(Action::Ack(frame)); // The ack was lost.
            return;
        }
        if self.frames.redelivered(frame, now) {
            return; // Its items are here already; only the token is new.
        }
        if frame.lane.is_deferred() && items.iter().any(|item| self.is_in_hand(now, item.id)) {
            actions.push(Action::Close(frame)); // Whoever has it acks it; if it dies, the frame comes again.
            return;
        }
        let fresh: Vec<Item> = items.into_iter().filter(|item| self.is_fresh(now, item.id)).collect();
        self.frames.open(frame, fresh.len(), now);
        if fresh.is_empty() {
            self.frames.ack(frame);
            actions.push(Action::Ack(frame));
        }
        for item in fresh {
            self.admit(now, frame, item, actions);
        }
    }

    /// Whether an item is here in another frame, or running on a worker that lives.
    fn is_in_hand(&self, now: Time, id: RequestId) -> bool {
        self.items.contains_key(&id) || self.fleet.is_running_on_live_worker(id, now)
    }

    /// Whether an item is to be placed.
    fn is_fresh(&mut self, now: Time, id: RequestId) -> bool {
        if self.cancelled.contains(id) || self.is_in_hand(now, id) {
            return false;
        }
        self.fleet.forget(id, now); // Its worker is silent: the ingress published it again.
        true
    }

    fn admit(&mut self, now: Time, frame: FrameKey, item: Item, actions: &mut Vec<Action>) {
        let id = item.id;
        self.ingresses.entry(item.ingress.clone()).or_insert(now);
        self.deadlines.insert((item.deadline, id));
        self.bytes += item.bytes;
        self.arrivals += 1;
        self.items.insert(id, Entry { item, frame, state: State::Reserving, arrived: now, order: self.arrivals });
        actions.push(Action::Reserve(id));
    }

    fn reserved(&mut self, id: RequestId) {
        if let Some(entry) = self.items.get_mut(&id)
            && entry.state == State::Reserving
        {
            entry.state = State::Waiting;
            self.queue.push(entry);
        }
    }

    fn quota_refused(&mut self, id: RequestId, refusal: Refusal, actions: &mut Vec<Action>) {
        let asked = self.items.get(&id).is_some_and(|entry| entry.state == State::Reserving);
        if asked && let Some(entry) = self.remove(id, actions) {
            actions.push(Action::Refuse { id, ingress: entry.item.ingress.clone(), refusal });
            self.leave_frame(&entry, actions);
        }
    }

    fn accepted(&mut self, worker: &NodeId, batch: BatchId, actions: &mut Vec<Action>) {
        let members = self.fleet.accept(worker, batch);
        members.iter().for_each(|member| self.hand_over(member.id, actions));
        let late = self.fleet.accept_late(worker, batch);
        self.hand_over_late(&late, actions);
    }

    /// A worker has what was taken back from it: it runs there, wherever else it has been sent since.
    fn hand_over_late(&mut self, members: &[Member], actions: &mut Vec<Action>) {
        for member in members {
            self.queue.charge(member.lane, &member.tenant, member.cost); // It was refunded.
            self.hand_over(member.id, actions);
        }
    }

    fn refused(&mut self, worker: &NodeId, batch: BatchId, actions: &mut Vec<Action>) {
        let Some(members) = self.fleet.refuse(worker, batch) else { return };
        self.take_back(batch, &members, actions);
    }

    fn done(&mut self, now: Time, worker: &NodeId, batch: BatchId, items: &[ItemDone], actions: &mut Vec<Action>) {
        self.accepted(worker, batch, actions); // A lost accept: the answer says as much.
        for done in items {
            if let Some((member, ended)) = self.fleet.finish(worker, batch, (done.id, done.end), now) {
                ended.into_iter().for_each(|call| self.learn(now, &call));
                self.queue.settle(member.lane, &member.tenant, member.cost, Item::cost(done.usage.input, done.usage.output));
                self.close(member.frame, actions);
            }
        }
    }

    fn learn(&mut self, now: Time, call: &Ended) {
        self.linger.finished(now, call.took);
        if self.config.kind == ModelKind::Array {
            self.limits.learn(call);
        }
    }

    /// A deferred frame whose worker has acked it, or will.
    fn close(&mut self, frame: FrameKey, actions: &mut Vec<Action>) {
        if self.frames.finished(frame) {
            actions.push(Action::Close(frame));
        }
    }

    fn heartbeat(&mut self, now: Time, worker: &NodeId, backends: Vec<BackendCredit>, running: &[Running], actions: &mut Vec<Action>) {
        let late = self.fleet.running_late(worker, running); // The accept was lost.
        self.hand_over_late(&late, actions);
        for run in running {
            let waiting = self.items.get(&run.id).is_some_and(|e| !matches!(e.state, State::Dispatched(_)));
            if waiting && let Some(entry) = self.remove(run.id, actions) {
                self.leave_to_another(&entry, actions);
            }
        }
        let gone = self.fleet.heartbeat(now, worker, backends, running);
        for member in gone {
            self.close(member.frame, actions);
        }
    }

    fn worker_gone(&mut self, worker: &NodeId, actions: &mut Vec<Action>) {
        let (unaccepted, running) = self.fleet.remove(worker);
        unaccepted.iter().for_each(|(batch, members)| self.take_back(*batch, members, actions));
        for member in running {
            if self.frames.finished(member.frame) {
                actions.push(Action::Nak(member.frame)); // Deferred work comes back without waiting for its ack to run out.
            }
        }
    }

    fn cancelled(&mut self, now: Time, ids: Vec<RequestId>, actions: &mut Vec<Action>) {
        for id in ids {
            self.cancelled.insert(id, now);
            let ours = self.items.get(&id).is_some_and(|e| !matches!(e.state, State::Dispatched(_)));
            if ours && let Some(entry) = self.remove(id, actions) {
                self.leave_frame(&entry, actions);
            }
        }
    }

    fn expire(&mut self, now: Time, actions: &mut Vec<Action>) {
        while let Some((_, id)) = self.deadlines.first().copied().filter(|(deadline, _)| *deadline <= now) {
            self.fail(id, Code::DeadlineExceeded, actions);
        }
    }

    fn fail(&mut self, id: RequestId, code: Code, actions: &mut Vec<Action>) {
        let Some(entry) = self.remove(id, actions) else { return };
        actions.push(Action::Fail { id, ingress: entry.item.ingress.clone(), code });
        self.leave_frame(&entry, actions);
    }

    fn take_back_unaccepted(&mut self, now: Time, actions: &mut Vec<Action>) {
        while let Some((batch, members)) = self.fleet.take_unaccepted(now.saturating_sub(ACCEPT_WAIT)) {
            self.take_back(batch, &members, actions);
        }
    }

    /// Back to where they were in the queue, and the tenants' service is given back.
    fn take_back(&mut self, batch: BatchId, members: &[Member], actions: &mut Vec<Action>) {
        for member in members {
            self.queue.refund(member.lane, &member.tenant, member.cost);
            let Some(entry) = self.items.get_mut(&member.id).filter(|entry| entry.state == State::Dispatched(batch)) else { continue };
            entry.state = State::Waiting;
            self.queue.push(entry);
            if self.cancelled.contains(member.id) {
                self.drop_unawaited(member.id, actions);
            }
        }
    }

    fn maintain(&mut self, now: Time, actions: &mut Vec<Action>) {
        if now < self.maintain_at {
            return;
        }
        self.maintain_at = now + MAINTENANCE;
        self.frames.renew(now, actions);
        self.cancelled.sweep(now);
        self.ingresses.retain(|_, seen| now.since(*seen) < INGRESS_SILENT);
        for worker in self.fleet.silent(now) {
            self.worker_gone(&worker, actions);
        }
    }

    /// Takes an item out of the engine wherever it stands.
    fn remove(&mut self, id: RequestId, actions: &mut Vec<Action>) -> Option<Entry> {
        let entry = self.items.remove(&id)?;
        self.deadlines.remove(&(entry.item.deadline, id));
        self.bytes -= entry.item.bytes;
        if entry.state == State::Waiting {
            self.queue.remove(&entry);
        }
        actions.push(Action::Release(id));
        Some(entry)
    }

    /// One item less depends on the frame; the last one acks it.
    fn leave_frame(&mut self, entry: &Entry, actions: &mut Vec<Action>) {
        if self.frames.left(entry.frame, false) {
            actions.push(Action::Ack(entry.frame));
        }
    }

    /// A worker has the item now, and with a deferred one the frame's ack token.
    fn hand_over(&mut self, id: RequestId, actions: &mut Vec<Action>) {
        let Some(entry) = self.remove(id, actions) else { return };
        if self.frames.left(entry.frame, entry.frame.lane.is_deferred()) {
            actions.push(Action::Ack(entry.frame));
        }
    }

    /// A worker runs the item for another owner. Its end is not heard here, so a deferred frame is let go: it is acked by
    /// the worker, or comes again.
    fn leave_to_another(&mut self, entry: &Entry, actions: &mut Vec<Action>) {
        if !entry.frame.lane.is_deferred() {
            return self.leave_frame(entry, actions);
        }
        self.frames.let_go(entry.frame);
        actions.push(Action::Close(entry.frame));
    }
}

#[cfg(test)]
mod tests;
