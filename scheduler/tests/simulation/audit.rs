//! core: what one engine may never do, checked at every step.

use crate::books::{Batch, Books, Custody, State};
use crate::gap::Gap;
use crate::owner::tenant;
use crate::plan::Plan;
use crate::tries::Tries;
use scheduler::engine::{Action, Breaker, Engine, Event, FrameKey, HEARTBEAT_STALE, INGRESS_SILENT, Item};
use shared::clock::Time;
use shared::domain::{BatchId, Lane, ModelKind, NodeId, RequestId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Bytes that a dispatch frame carries.
const BATCH_BYTES_MAX: usize = 768 * 1024;

/// A linger grows with the calls, to so many times the lane's own at most.
const LINGER_GROWTH: u32 = 5;

/// The whole wait for company, in lingers.
const WHOLE_WAIT: u32 = 4;

/// How long after the last interactive arrival the deferred lanes keep below their ceilings.
const CEILINGS_FOR: Duration = Duration::from_secs(10);

/// How long an idle slot may wait after the last arrival.
const fn linger(kind: ModelKind, lane: Lane) -> Duration {
    match (kind, lane) {
        (ModelKind::Sequence, _) => Duration::ZERO,
        (ModelKind::Array, Lane::Interactive) => Duration::from_millis(2),
        (ModelKind::Array, Lane::Async) => Duration::from_millis(20),
        (ModelKind::Array, Lane::Bulk) => Duration::from_millis(200),
    }
}

/// Items in an engine's custody, and their bytes.
fn load(engine: &Engine) -> (usize, usize) {
    Lane::ALL.into_iter().map(|lane| engine.load(lane)).fold((0, 0), |sum, load| (sum.0 + load.0, sum.1 + load.1))
}

struct Rules {
    kind: ModelKind,
    max_items: u32,
    max_tokens: u32,
    padded: bool,
    dispatch_from: Time,
    /// Tokens never bind, so that a free slot means that anything may go.
    is_roomy: bool,
    /// The weights, when nothing goes wrong and the service gap can be told.
    fair: Option<BTreeMap<String, u32>>,
}

impl Rules {
    fn of(plan: &Plan, dispatch_from: Time) -> Self {
        let weights = || plan.weights.iter().enumerate().map(|(n, weight)| (tenant(n), *weight)).collect();
        let fair = plan.has_fair_order().then(weights);
        let Plan { kind, max_items, max_tokens, padded, .. } = *plan;
        Self { kind, max_items, max_tokens, padded, dispatch_from, is_roomy: plan.is_roomy(), fair }
    }
}

impl Rules {
    /// Tokens of service that similar lengths may put a tenant ahead.
    fn lead(&self) -> u32 {
        if self.padded && self.kind == ModelKind::Array { self.max_tokens } else { 0 }
    }
}

pub(crate) struct Audit {
    rules: Rules,
    books: Books,
    gap: Option<Gap>,
    tries: Tries,
}

impl Audit {
    pub(crate) fn new(plan: &Plan, dispatch_from: Time) -> Self {
        let rules = Rules::of(plan, dispatch_from);
        Self {
            gap: rules.fair.clone().map(|weights| Gap::new(weights, rules.lead())),
            rules,
            books: Books::default(),
            tries: Tries::new(plan),
        }
    }

    /// What was delivered in a frame, and in no other since.
    pub(crate) fn items_of(&self, frame: FrameKey) -> impl Iterator<Item = RequestId> {
        self.books.items_of(frame)
    }

    pub(crate) fn hear(&mut self, now: Time, events: &[Event]) {
        for items in events.iter().filter_map(|event| if let Event::Delivered { items, .. } = event { Some(items) } else { None }) {
            let fresh = items.iter().filter(|item| !self.books.custody.contains_key(&item.id));
            fresh.for_each(|item| self.tries.begun_anew(item.id));
        }
        self.books.hear(now, events);
        for call in std::mem::take(&mut self.books.failed) {
            let of = |id: &RequestId| (*id, self.books.known[id].0.lane);
            self.tries.failed(call.fault, call.ids.iter().map(of).collect());
        }
        let given_back = std::mem::take(&mut self.books.given_back);
        if let Some(gap) = &mut self.gap {
            given_back.iter().for_each(|item| gap.refund(item));
        }
    }

    /// Checks the actions of a step.
    ///
    /// # Panics
    /// When the engine did what it may not.
    pub(crate) fn check(&mut self, now: Time, actions: &[Action], engine: &Engine) {
        self.admit(now, engine);
        for action in actions {
            match action {
                Action::Reserve(_) => {}
                Action::Dispatch { batch, worker, backend, items } => self.dispatch(now, *batch, worker, backend, items),
                Action::Ack(frame) => self.check_ack(*frame),
                Action::Renew(frame) | Action::Nak(frame, _) => {
                    assert!(self.books.frames.contains(frame), "{action:?}")
                }
                Action::Fail { id, .. } | Action::Refuse { id, .. } => {
                    assert!(self.books.known.contains_key(id), "{action:?} of a stranger");
                    self.books.failed(*id);
                }
                Action::Release(id) => {
                    assert!(self.books.known.contains_key(id), "{action:?} of a stranger");
                    self.books.released(*id);
                    self.admit(now, engine); // It may have been taken and given back in one step.
                }
            }
        }
        self.admit(now, engine);
        self.check_breakers(actions, engine);
        self.tries.decided(now, |id| engine.holds(id));
        assert_eq!(load(engine), (self.books.custody.len(), self.books.bytes), "the engine's load and what it took and released");
    }

    /// What was delivered and is here has been taken into custody.
    fn admit(&mut self, now: Time, engine: &Engine) {
        let taken = |id: &RequestId| engine.holds(*id) && !self.books.custody.contains_key(id);
        let taken: Vec<RequestId> = self.books.arriving.iter().copied().filter(taken).collect();
        taken.into_iter().for_each(|id| self.books.admit(now, id));
    }

    /// Nothing goes to a backend whose breaker is open, but one call at a time that is its trial.
    fn check_breakers(&self, actions: &[Action], engine: &Engine) {
        for action in actions {
            let Action::Dispatch { batch, worker, backend, .. } = action else { continue };
            let mut at = engine.breakers().filter(|(of, by, _)| *of == &**backend && by.is_none_or(|by| by == worker));
            let (.., state) = at.next().expect("a backend that was called is known");
            let may_go = matches!(state, Breaker::Closed) || matches!(state, Breaker::Trial(trial, _) if trial == *batch);
            assert!(may_go, "{batch:?} goes to {backend} though its breaker is {state:?}");
        }
    }

    fn check_ack(&self, frame: FrameKey) {
        assert!(self.books.frames.contains(&frame), "ack of an unknown {frame:?}");
        let held = self.books.custody.iter().find(|(_, held)| held.frame == frame);
        assert!(held.is_none(), "{frame:?} is acked, and {held:?} waits in it");
    }

    fn dispatch(&mut self, now: Time, id: BatchId, worker: &NodeId, backend: &str, ids: &[RequestId]) {
        assert!(now >= self.rules.dispatch_from, "dispatched before it heard what the workers run");
        ids.iter().for_each(|id| self.check_item(now, *id));
        let items: BTreeMap<RequestId, Item> = ids.iter().map(|id| (*id, self.books.custody[id].item.clone())).collect();
        assert_eq!(items.len(), ids.len(), "an item is twice in {id:?}");
        self.check_limits(&items);
        let slot = self.check_credit(now, worker, backend, &items);
        self.tries.dispatched(now, items.values());
        if let Some(gap) = &mut self.gap {
            items.values().for_each(|item| gap.charge(item));
            gap.batched(items.values());
        }
        for item in ids {
            self.books.custody.get_mut(item).expect("checked").state = State::Out(id);
        }
        let (is_accepted, is_taken_back, superseded, doubles) = (false, false, BTreeSet::new(), BTreeSet::new());
        let batch = Batch { worker: worker.clone(), slot, sent: now, is_accepted, is_taken_back, items, superseded, doubles };
        assert!(self.books.batches.insert(id, batch).is_none(), "{id:?} is named twice");
    }

    fn check_item(&self, now: Time, id: RequestId) {
        let held = self.books.custody.get(&id).unwrap_or_else(|| panic!("{id} is dispatched and not in custody"));
        assert_eq!(held.state, State::Waiting, "{id} is dispatched");
        assert!(held.item.deadline > now, "{id} is dispatched after its deadline");
        assert!(!self.books.cancelled.contains(&id), "{id} is dispatched after its cancel");
        let twice = self.books.batches.iter().find(|(_, batch)| batch.carries(id));
        assert!(twice.is_none(), "{id} is twice in flight: {twice:?}");
        let heard = self.books.ingresses[&held.item.ingress];
        let is_awaited = held.item.lane.is_deferred() || now.since(heard) < INGRESS_SILENT;
        assert!(is_awaited, "{id} is dispatched for an ingress silent since {heard:?}");
    }

    fn check_limits(&self, items: &BTreeMap<RequestId, Item>) {
        assert!(!items.is_empty(), "an empty batch");
        assert!(self.rules.kind == ModelKind::Array || items.len() == 1, "a sequence backend batches by itself");
        let first = items.values().next().expect("not empty");
        assert!(items.values().all(|item| item.compat == first.compat), "a batch mixes what may not share a call");
        let count: u32 = items.values().map(|item| item.items).sum();
        let longest = items.values().map(|item| item.longest).max().expect("not empty");
        let tokens = if self.rules.padded { count * longest } else { items.values().map(Item::tokens).sum() };
        let bytes: usize = items.values().map(|item| item.bytes).sum();
        let fits = count <= self.rules.max_items && tokens <= self.rules.max_tokens && bytes <= BATCH_BYTES_MAX;
        assert!(fits || items.len() == 1, "{count} items, {tokens} tokens, {bytes} bytes in one batch");
    }

    fn check_credit(&self, now: Time, worker: &NodeId, backend: &str, items: &BTreeMap<RequestId, Item>) -> (Box<str>, Option<NodeId>) {
        let said = self.books.workers.get(worker).unwrap_or_else(|| panic!("dispatched to {worker}, which never spoke"));
        assert!(now.since(said.seen) < HEARTBEAT_STALE, "dispatched to {worker}, silent since {:?}", said.seen);
        let credit = said.backends.iter().find(|credit| &*credit.name == backend).expect("a backend that was announced");
        let slot = (credit.name.clone(), (!credit.shared).then(|| worker.clone()));
        let live: Vec<&Batch> = self.books.batches.values().filter(|batch| batch.slot == slot && batch.is_live()).collect();
        assert!(live.len() < credit.concurrency as usize, "{} calls at {slot:?} already, of {}", live.len(), credit.concurrency);
        let tokens: u32 = live.iter().flat_map(|batch| batch.items.values()).chain(items.values()).map(Item::tokens).sum();
        assert!(live.is_empty() || tokens <= credit.tokens, "{tokens} tokens at {slot:?}, of {}", credit.tokens);
        slot
    }

    /// Checks what a step leaves undone.
    pub(crate) fn rest(&mut self, now: Time, engine: &Engine) {
        self.check_conserves_work(now, engine);
        if let Some(gap) = &mut self.gap {
            gap.check(self.books.custody.values().filter(|held| held.state == State::Waiting).map(|held| &held.item));
        }
    }

    /// While interactive work arrives, the deferred lanes leave some of a sequence model's credit free.
    fn has_ceilings(&self, now: Time) -> bool {
        let arrived = self.books.interactive_at.is_some_and(|at| now.since(at) < CEILINGS_FOR);
        self.rules.kind == ModelKind::Sequence && arrived
    }

    /// While credit is free, nothing waits longer than its linger.
    fn check_conserves_work(&self, now: Time, engine: &Engine) {
        let (free, outstanding) = engine.credit(now);
        if free == 0 || now < self.rules.dispatch_from || !(self.rules.is_roomy || outstanding == 0) {
            return;
        }
        let may_go = |lane: Lane| lane == Lane::Interactive || !self.has_ceilings(now);
        let waits = |held: &&Custody| held.state == State::Waiting && !held.is_retry && may_go(held.item.lane);
        let waiting = self.books.custody.values().filter(waits);
        let Some(lane) = waiting.clone().map(|held| held.item.lane).min() else { return };
        let since: Vec<Time> = waiting.filter(|held| held.item.lane == lane).map(|held| held.since).collect();
        let waits = |arrival: Option<&Time>| {
            now.since(*arrival.expect("the lane is not empty").max(&self.books.freed).max(&self.rules.dispatch_from))
        };
        let (first, last) = (waits(since.iter().min()), waits(since.iter().max()));
        let linger = linger(self.rules.kind, lane) * LINGER_GROWTH;
        assert!(last <= linger && first <= linger * WHOLE_WAIT, "{free} slots are free, and {lane:?} waits for {last:?} to {first:?}");
    }
}
