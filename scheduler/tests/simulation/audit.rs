//! core: what one engine may never do, checked at every step from what it was told and what it asked for. The books are
//! kept by the wire's rules alone, so that they fail where the engine's own would agree with themselves.

use crate::gap::Gap;
use crate::plan::Plan;
use crate::schedulers::tenant;
use scheduler::engine::{ACCEPT_WAIT, Action, Engine, Event, FrameKey, HEARTBEAT_GONE, HEARTBEAT_STALE, INGRESS_SILENT, Item};
use shared::clock::Time;
use shared::domain::{BatchId, Lane, ModelKind, NodeId, RequestId};
use shared::wire::{BackendCredit, ItemDone, Running};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What a worker accepted this long ago and does not list has ended.
const UNLISTED_AFTER: Duration = Duration::from_secs(1);

/// Bytes that a dispatch frame carries.
const BATCH_BYTES_MAX: usize = 768 * 1024;

/// A linger grows with the calls, to so many times the lane's own at most.
const LINGER_GROWTH: u32 = 5;

/// The whole wait for company, in lingers.
const WHOLE_WAIT: u32 = 4;

/// How long an idle slot may wait after the last arrival.
const fn linger(kind: ModelKind, lane: Lane) -> Duration {
    match (kind, lane) {
        (ModelKind::Sequence, _) => Duration::ZERO,
        (ModelKind::Array, Lane::Interactive) => Duration::from_millis(2),
        (ModelKind::Array, Lane::Async) => Duration::from_millis(20),
        (ModelKind::Array, Lane::Bulk) => Duration::from_millis(200),
    }
}

pub(crate) struct Rules {
    kind: ModelKind,
    max_items: u32,
    max_tokens: u32,
    dispatch_from: Time,
    /// Tokens never bind, so that a free slot means that anything may go.
    is_roomy: bool,
    /// The weights, when nothing goes wrong and the service gap can be told.
    fair: Option<BTreeMap<String, u32>>,
}

impl Rules {
    pub(crate) fn of(plan: &Plan, dispatch_from: Time) -> Self {
        let weights = || plan.weights.iter().enumerate().map(|(n, weight)| (tenant(n), *weight)).collect();
        let fair = plan.has_fair_order().then(weights);
        let (kind, max_items, max_tokens, is_roomy) = (plan.kind, plan.max_items, plan.max_tokens, plan.is_roomy());
        Self { kind, max_items, max_tokens, dispatch_from, is_roomy, fair }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Reserving,
    Waiting,
    Out(BatchId),
}

/// An item in the engine's custody.
#[derive(Debug)]
struct Custody {
    item: Item,
    frame: FrameKey,
    state: State,
    since: Time,
}

#[derive(Debug)]
struct Worker {
    seen: Time,
    backends: Vec<BackendCredit>,
}

/// A dispatch that has not ended.
#[derive(Debug)]
struct Batch {
    worker: NodeId,
    /// The backend, and its worker unless it is shared.
    slot: (Box<str>, Option<NodeId>),
    sent: Time,
    is_accepted: bool,
    is_taken_back: bool,
    items: BTreeMap<RequestId, Item>,
    /// Of these another worker was late to say that it has them: the copies here do not count.
    superseded: BTreeSet<RequestId>,
}

impl Batch {
    fn carries(&self, id: RequestId) -> bool {
        self.is_live() && self.items.contains_key(&id) && !self.superseded.contains(&id)
    }

    /// It holds its credit.
    const fn is_live(&self) -> bool {
        self.is_accepted || !self.is_taken_back
    }
}

pub(crate) struct Audit {
    rules: Rules,
    /// Everything ever delivered, and the frame it came in last.
    known: BTreeMap<RequestId, (Item, FrameKey)>,
    frames: BTreeSet<FrameKey>,
    /// Delivered in this step: of two frames with one item, the first counts.
    arriving: BTreeSet<RequestId>,
    custody: BTreeMap<RequestId, Custody>,
    /// Bytes in custody.
    bytes: usize,
    workers: BTreeMap<NodeId, Worker>,
    batches: BTreeMap<BatchId, Batch>,
    cancelled: BTreeSet<RequestId>,
    ingresses: BTreeMap<NodeId, Time>,
    /// When a slot was last freed.
    freed: Time,
    gap: Option<Gap>,
}

impl Audit {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            gap: rules.fair.clone().map(Gap::new),
            rules,
            known: BTreeMap::new(),
            frames: BTreeSet::new(),
            arriving: BTreeSet::new(),
            custody: BTreeMap::new(),
            bytes: 0,
            workers: BTreeMap::new(),
            batches: BTreeMap::new(),
            cancelled: BTreeSet::new(),
            ingresses: BTreeMap::new(),
            freed: Time::ZERO,
        }
    }

    /// The request of a deferred frame.
    pub(crate) fn only_item_of(&self, frame: FrameKey) -> RequestId {
        *self.known.iter().find(|(_, (_, of))| *of == frame).expect("a frame that was delivered").0
    }

    pub(crate) fn hear(&mut self, now: Time, events: &[Event]) {
        self.arriving.clear();
        events.iter().for_each(|event| self.hear_one(now, event));
        self.take_back(now);
        self.drop_gone(now);
    }

    fn hear_one(&mut self, now: Time, event: &Event) {
        match event {
            Event::Delivered { frame, items } => self.delivered(now, *frame, items),
            Event::Reserved(id) => {
                if let Some(held) = self.custody.get_mut(id).filter(|held| held.state == State::Reserving) {
                    (held.state, held.since) = (State::Waiting, now);
                }
            }
            Event::QuotaRefused { .. } => {}
            Event::Accepted { worker, batch } => self.accepted(worker, *batch),
            Event::Refused { worker, batch } => self.refused(worker, *batch),
            Event::Done { worker, batch, items } => self.done(now, worker, *batch, items),
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
            batch.is_accepted = true;
        }
    }

    fn refused(&mut self, worker: &NodeId, id: BatchId) {
        let is_refusable = |batch: &Batch| batch.worker == *worker && !batch.is_accepted && !batch.is_taken_back;
        if self.batches.get(&id).is_some_and(is_refusable) {
            let batch = self.batches.remove(&id).expect("looked up a moment ago");
            self.waits_again(id, &batch);
        }
    }

    fn done(&mut self, now: Time, worker: &NodeId, id: BatchId, items: &[ItemDone]) {
        self.accepted(worker, id);
        if let Some(batch) = self.batches.get_mut(&id).filter(|batch| batch.worker == *worker) {
            items.iter().for_each(|done| drop(batch.items.remove(&done.id)));
        }
        self.drop_ended(now);
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
        for batch in self.batches.values_mut().filter(|batch| batch.worker == *worker) {
            let is_late = batch.is_taken_back && !batch.is_accepted && batch.items.keys().any(lists);
            batch.is_accepted |= is_late;
            if is_late || batch.is_accepted && now.since(batch.sent) >= UNLISTED_AFTER {
                batch.items.retain(|id, _| lists(id));
            }
        }
        self.drop_ended(now);
    }

    fn take_back(&mut self, now: Time) {
        let is_due = |batch: &&mut Batch| !batch.is_accepted && !batch.is_taken_back && now.since(batch.sent) >= ACCEPT_WAIT;
        let mut taken = BTreeMap::new();
        for (id, batch) in &mut self.batches {
            if let Some(batch) = Some(batch).filter(is_due) {
                batch.is_taken_back = true;
                taken.insert(*id, batch.items.keys().copied().collect::<Vec<_>>());
            }
        }
        for (id, held) in &mut self.custody {
            if let State::Out(batch) = held.state
                && taken.get(&batch).is_some_and(|ids| ids.contains(id))
            {
                held.state = State::Waiting;
            }
        }
    }

    fn waits_again(&mut self, id: BatchId, batch: &Batch) {
        for item in batch.items.keys() {
            if let Some(held) = self.custody.get_mut(item).filter(|held| held.state == State::Out(id)) {
                held.state = State::Waiting;
            }
        }
        if let Some(gap) = &mut self.gap {
            batch.items.values().for_each(|item| gap.refund(item));
        }
    }

    fn drop_gone(&mut self, now: Time) {
        let gone: Vec<NodeId> =
            self.workers.iter().filter(|(_, worker)| now.since(worker.seen) >= HEARTBEAT_GONE).map(|(id, _)| id.clone()).collect();
        gone.iter().for_each(|worker| self.drop_worker(now, worker));
    }

    fn drop_worker(&mut self, now: Time, worker: &NodeId) {
        self.workers.remove(worker);
        let of_worker: Vec<BatchId> = self.batches.iter().filter(|(_, batch)| batch.worker == *worker).map(|(id, _)| *id).collect();
        for id in of_worker {
            let batch = self.batches.remove(&id).expect("listed a moment ago");
            self.waits_again(id, &batch);
            self.freed = now;
        }
    }

    /// Checks the actions of a step.
    ///
    /// # Panics
    /// When the engine did what it may not.
    pub(crate) fn check(&mut self, now: Time, actions: &[Action], engine: &Engine) {
        for action in actions {
            match action {
                Action::Reserve(id) => self.admit(now, *id),
                Action::Dispatch { batch, worker, backend, items } => self.dispatch(now, *batch, worker, backend, items),
                Action::Ack(frame) => self.check_ack(*frame),
                Action::Renew(frame) | Action::Nak(frame) | Action::Close(frame) => assert!(self.frames.contains(frame), "{action:?}"),
                Action::Fail { id, .. } => assert!(self.known.contains_key(id), "{action:?} of a stranger"),
                Action::Release(id) => {
                    assert!(self.known.contains_key(id), "{action:?} of a stranger");
                    self.released(*id);
                }
            }
        }
        assert_eq!(engine.load(), (self.custody.len(), self.bytes), "the engine's load and what it took and released");
    }

    fn released(&mut self, id: RequestId) {
        let Some(held) = self.custody.remove(&id) else { return };
        self.bytes -= held.item.bytes;
        if let State::Out(batch) = held.state
            && let Some(batch) = self.batches.get_mut(&batch).filter(|batch| !batch.is_accepted)
        {
            batch.superseded.insert(id);
        }
    }

    fn admit(&mut self, now: Time, id: RequestId) {
        let (item, frame) = self.known.get(&id).expect("only what was delivered is reserved").clone();
        self.bytes += item.bytes;
        let held = Custody { item, frame, state: State::Reserving, since: now };
        assert!(self.custody.insert(id, held).is_none(), "{id} is admitted twice");
        // Published again because its worker is silent: that execution is given up.
        let silent = |worker: &NodeId| self.workers.get(worker).is_none_or(|w| now.since(w.seen) >= HEARTBEAT_STALE);
        for batch in self.batches.values_mut().filter(|batch| silent(&batch.worker)) {
            batch.items.remove(&id);
        }
        self.drop_ended(now);
    }

    fn check_ack(&self, frame: FrameKey) {
        assert!(self.frames.contains(&frame), "ack of an unknown {frame:?}");
        let held = self.custody.iter().find(|(_, held)| held.frame == frame);
        assert!(held.is_none(), "{frame:?} is acked, and {held:?} waits in it");
    }

    fn dispatch(&mut self, now: Time, id: BatchId, worker: &NodeId, backend: &str, ids: &[RequestId]) {
        assert!(now >= self.rules.dispatch_from, "dispatched before it heard what the workers run");
        ids.iter().for_each(|id| self.check_item(now, *id));
        let items: BTreeMap<RequestId, Item> = ids.iter().map(|id| (*id, self.custody[id].item.clone())).collect();
        assert_eq!(items.len(), ids.len(), "an item is twice in {id:?}");
        self.check_limits(&items);
        let slot = self.check_credit(now, worker, backend, &items);
        if let Some(gap) = &mut self.gap {
            items.values().for_each(|item| gap.charge(item));
            gap.batched(items.values());
        }
        for item in ids {
            self.custody.get_mut(item).expect("checked").state = State::Out(id);
        }
        let (is_accepted, is_taken_back, superseded) = (false, false, BTreeSet::new());
        let batch = Batch { worker: worker.clone(), slot, sent: now, is_accepted, is_taken_back, items, superseded };
        assert!(self.batches.insert(id, batch).is_none(), "{id:?} is named twice");
    }

    fn check_item(&self, now: Time, id: RequestId) {
        let held = self.custody.get(&id).unwrap_or_else(|| panic!("{id} is dispatched and not in custody"));
        assert_eq!(held.state, State::Waiting, "{id} is dispatched");
        assert!(held.item.deadline > now, "{id} is dispatched after its deadline");
        assert!(!self.cancelled.contains(&id), "{id} is dispatched after its cancel");
        let twice = self.batches.iter().find(|(_, batch)| batch.carries(id));
        assert!(twice.is_none(), "{id} is twice in flight: {twice:?}");
        let heard = self.ingresses[&held.item.ingress];
        let is_awaited = held.item.lane.is_deferred() || now.since(heard) < INGRESS_SILENT;
        assert!(is_awaited, "{id} is dispatched for an ingress silent since {heard:?}");
    }

    fn check_limits(&self, items: &BTreeMap<RequestId, Item>) {
        assert!(!items.is_empty(), "an empty batch");
        assert!(self.rules.kind == ModelKind::Array || items.len() == 1, "a sequence backend batches by itself");
        let first = items.values().next().expect("not empty");
        assert!(items.values().all(|item| item.compat == first.compat), "a batch mixes what may not share a call");
        let count: u32 = items.values().map(|item| item.items).sum();
        let tokens: u32 = items.values().map(Item::tokens).sum();
        let bytes: usize = items.values().map(|item| item.bytes).sum();
        let fits = count <= self.rules.max_items && tokens <= self.rules.max_tokens && bytes <= BATCH_BYTES_MAX;
        assert!(fits || items.len() == 1, "{count} items, {tokens} tokens, {bytes} bytes in one batch");
    }

    fn check_credit(&self, now: Time, worker: &NodeId, backend: &str, items: &BTreeMap<RequestId, Item>) -> (Box<str>, Option<NodeId>) {
        let said = self.workers.get(worker).unwrap_or_else(|| panic!("dispatched to {worker}, which never spoke"));
        assert!(now.since(said.seen) < HEARTBEAT_STALE, "dispatched to {worker}, silent since {:?}", said.seen);
        let credit = said.backends.iter().find(|credit| &*credit.name == backend).expect("a backend that was announced");
        let slot = (credit.name.clone(), (!credit.shared).then(|| worker.clone()));
        let live: Vec<&Batch> = self.batches.values().filter(|batch| batch.slot == slot && batch.is_live()).collect();
        assert!(live.len() < credit.concurrency as usize, "{} calls at {slot:?} already, of {}", live.len(), credit.concurrency);
        let tokens: u32 = live.iter().flat_map(|batch| batch.items.values()).chain(items.values()).map(Item::tokens).sum();
        assert!(live.is_empty() || tokens <= credit.tokens, "{tokens} tokens at {slot:?}, of {}", credit.tokens);
        slot
    }

    /// Checks what a step leaves undone.
    pub(crate) fn rest(&mut self, now: Time, engine: &Engine) {
        self.check_conserves_work(now, engine);
        if let Some(gap) = &mut self.gap {
            gap.check(self.custody.values().filter(|held| held.state == State::Waiting).map(|held| &held.item));
        }
    }

    /// While credit is free, nothing waits longer than its linger.
    fn check_conserves_work(&self, now: Time, engine: &Engine) {
        let (free, outstanding) = engine.credit(now);
        if free == 0 || now < self.rules.dispatch_from || !(self.rules.is_roomy || outstanding == 0) {
            return;
        }
        let waiting = self.custody.values().filter(|held| held.state == State::Waiting);
        let Some(lane) = waiting.clone().map(|held| held.item.lane).min() else { return };
        let since: Vec<Time> = waiting.filter(|held| held.item.lane == lane).map(|held| held.since).collect();
        let waits =
            |arrival: Option<&Time>| now.since(*arrival.expect("the lane is not empty").max(&self.freed).max(&self.rules.dispatch_from));
        let (first, last) = (waits(since.iter().min()), waits(since.iter().max()));
        let linger = linger(self.rules.kind, lane) * LINGER_GROWTH;
        assert!(last <= linger && first <= linger * WHOLE_WAIT, "{free} slots are free, and {lane:?} waits for {last:?} to {first:?}");
    }
}
