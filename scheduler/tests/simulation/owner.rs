//! core: one owner of a model in a world: around the real engine, what its loop does: bytes and ack tokens kept, actions
//! performed, what is held announced.

use crate::audit::Audit;
use crate::faults::Row;
use crate::lane::Delivery;
use crate::plan::{Plan, Quota, Request};
use crate::schedulers::NEVER;
use crate::workers::Dispatch;
use crate::world::{Happening, Outcome, World};
use scheduler::engine::{Action, Cause, Engine, EngineConfig, Event, FrameKey, Item, PATIENCE};
use shared::broker::ACK_WAIT_INTERACTIVE;
use shared::clock::Time;
use shared::domain::{Lane, NodeId, RequestId};
use shared::error::Code;
use shared::quota::{Refusal, Whose};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

/// A new owner dispatches nothing for so long, while it asks the workers what they run.
const SETTLE: Duration = Duration::from_millis(250);

pub(crate) const HELD_EVERY: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub(crate) enum Input {
    Delivery(Delivery),
    /// Where the interactive lane stands, from a reader that opened it (again).
    Position((u64, u64)),
    Event(Event),
}

/// The state of an owner's loop.
pub(crate) struct Owner {
    pub(crate) engine: Engine,
    audit: Audit,
    pub(crate) revision: u64,
    since: Time,
    /// What the loop keeps of each request in custody.
    bytes: BTreeMap<RequestId, Request>,
    /// Everything it was ever delivered: what is returned travels by its name here.
    known: BTreeMap<RequestId, Request>,
    tokens: BTreeSet<FrameKey>,
    weights: Vec<u32>,
    position: (u64, u64),
    delivered: (u64, u64),
    /// A pull found no room.
    pub(crate) starved: bool,
}

impl World {
    /// One round of the loop: everything in the mailbox, and what follows from it.
    pub(crate) fn step(&mut self, n: usize) {
        if self.schedulers[n].step_at > self.now {
            return; // A later wish, overtaken.
        }
        self.schedulers[n].step_at = NEVER;
        let inputs = std::mem::take(&mut self.schedulers[n].mailbox);
        let Some(mut owner) = self.schedulers[n].owner.take() else { return };
        let mut events: Vec<Event> = inputs.into_iter().filter_map(|input| owner.take_in(input)).collect();
        loop {
            let mut actions = Vec::new();
            owner.audit.hear(self.now, &events);
            owner.engine.step(self.now, events.drain(..), &mut actions);
            owner.audit.check(self.now, &actions, &owner.engine);
            for action in actions {
                events.extend(self.perform(n, &mut owner, action));
            }
            if events.is_empty() {
                break;
            }
        }
        owner.audit.rest(self.now, &owner.engine);
        let wake = owner.engine.wake_at();
        assert!(wake > self.now, "the engine wants to be woken at {wake:?}, which has passed at {:?}", self.now);
        self.want_step(n, wake);
        if std::mem::take(&mut owner.starved) {
            Lane::ALL.into_iter().for_each(|lane| self.post(Duration::ZERO, Happening::Pull { scheduler: n, lane }));
        }
        self.schedulers[n].owner = Some(owner);
    }

    pub(crate) fn perform(&mut self, n: usize, owner: &mut Owner, action: Action) -> Option<Event> {
        match action {
            Action::Reserve(id) => return self.reserve(n, id),
            Action::Dispatch { batch, worker, backend, items } => {
                self.batches.push((self.now, items.len()));
                let dispatch = Dispatch { scheduler: n, revision: owner.revision, batch, backend, items: owner.load(&items) };
                self.send(Row::Dispatch, Happening::Dispatched { worker, dispatch });
            }
            Action::Ack(frame) => self.ack(owner, frame),
            Action::Nak(frame, delay) => {
                if owner.tokens.remove(&frame) {
                    self.send(Row::Ack, Happening::Nak(frame, delay));
                }
            }
            Action::Renew(frame) => {
                if owner.tokens.contains(&frame) {
                    self.send(Row::Ack, Happening::Renew(frame));
                }
            }
            Action::Fail { id, cause, .. } => {
                self.verdict(id, outcome(&cause));
                if self.records[&id].request.lane.is_deferred() {
                    let after = self.rng.micros(100, 3_000);
                    self.post(after, Happening::Mail { scheduler: n, input: Input::Event(Event::Committed(id)) });
                }
            }
            Action::Refuse { id, .. } => self.verdict(id, Outcome::Refused),
            Action::Release(id) if owner.engine.holds(id) => {} // It has come again in the meantime.
            Action::Release(id) => {
                owner.bytes.remove(&id);
            }
        }
        None
    }

    fn reserve(&mut self, n: usize, id: RequestId) -> Option<Event> {
        let Quota::Asked { refused } = self.plan.quota else { return Some(Event::Reserved(id)) };
        let event = if self.rng.happens(refused) {
            Event::QuotaRefused { id, refusal: Refusal::unavailable(Whose::Tenant) }
        } else {
            Event::Reserved(id)
        };
        let after = self.rng.micros(100, 3_000);
        self.post(after, Happening::Mail { scheduler: n, input: Input::Event(event) });
        None
    }

    /// A deferred frame may be acked here only when nothing more can become of it.
    fn ack(&mut self, owner: &mut Owner, frame: FrameKey) {
        if !owner.tokens.remove(&frame) {
            return;
        }
        if frame.lane.is_deferred() {
            let open = owner.audit.items_of(frame).find(|id| self.records[id].outcome.is_none());
            assert!(open.is_none(), "the scheduler acks {frame:?}, and {open:?} has no outcome");
        }
        self.send(Row::Ack, Happening::Ack(frame));
    }

    pub(crate) fn announce(&mut self, n: usize, revision: u64) {
        let Some(owner) = self.schedulers[n].owner.as_ref().filter(|owner| owner.revision == revision) else { return };
        let passed = owner.passed(self.now);
        let mut held: BTreeMap<NodeId, BTreeSet<RequestId>> = owner.engine.ingresses().map(|id| (id.clone(), BTreeSet::new())).collect();
        for (ingress, id) in owner.engine.held(self.now.saturating_sub(HELD_EVERY)) {
            held.entry(ingress.clone()).or_default().insert(id);
        }
        for (id, ids) in held {
            let ingress = self.ingresses.iter().position(|ingress| ingress.id == id).expect("an ingress of this world");
            self.send(Row::Held, Happening::Held { ingress, ids: ids.into_iter().collect(), passed });
        }
        self.post(HELD_EVERY, Happening::Announce { scheduler: n, revision });
    }
}

impl Owner {
    pub(crate) fn new(plan: &Plan, now: Time, revision: u64, position: (u64, u64)) -> Self {
        let Plan { kind, max_items, max_tokens, padded, objective, .. } = *plan;
        let config = EngineConfig { kind, max_items, max_tokens, padded, objective, patience: PATIENCE, dispatch_from: now + SETTLE };
        Self {
            audit: Audit::new(plan, config.dispatch_from),
            engine: Engine::new(config),
            revision,
            since: now,
            bytes: BTreeMap::new(),
            known: BTreeMap::new(),
            tokens: BTreeSet::new(),
            weights: plan.weights.clone(),
            position,
            delivered: (0, 0),
            starved: false,
        }
    }

    /// Nothing is in custody, no credit is occupied, and the loop has kept nothing.
    pub(crate) fn is_empty(&self) -> bool {
        let waits = Lane::ALL.iter().any(|lane| self.engine.depth(*lane) > 0);
        self.engine.is_empty() && self.outstanding() == 0 && !waits && self.bytes.is_empty() && self.tokens.is_empty()
    }

    pub(crate) fn outstanding(&self) -> usize {
        self.engine.credit(self.since).1
    }

    pub(crate) fn describe(&self) -> String {
        let (engine, outstanding) = (Lane::ALL.map(|lane| self.engine.load(lane)), self.outstanding());
        format!("load {engine:?}, outstanding {outstanding}, bytes {}, tokens {:?}", self.bytes.len(), self.tokens)
    }

    fn take_in(&mut self, input: Input) -> Option<Event> {
        match input {
            Input::Event(event) => Some(self.take_event(event)),
            Input::Delivery(delivery) => Some(self.take_delivery(delivery)),
            Input::Position(position) => {
                self.position = position;
                None
            }
        }
    }

    /// What comes back of interactive requests comes with its bytes.
    fn take_event(&mut self, event: Event) -> Event {
        if let Event::Returned(returned) = &event {
            for back in returned.items.iter().filter(|back| back.item.is_some()) {
                if let Some(request) = self.known.get(&back.id) {
                    self.bytes.entry(back.id).or_insert_with(|| Rc::clone(request));
                }
            }
        }
        event
    }

    fn take_delivery(&mut self, Delivery { key, requests, .. }: Delivery) -> Event {
        if key.lane == Lane::Interactive {
            let (epoch, sequence) = self.delivered;
            self.delivered = if key.epoch == epoch { (epoch, sequence.max(key.sequence)) } else { (key.epoch, key.sequence) };
        }
        self.tokens.insert(key);
        for request in &requests {
            self.bytes.entry(request.id).or_insert_with(|| Rc::clone(request));
            self.known.insert(request.id, Rc::clone(request));
        }
        Event::Delivered { frame: key, items: requests.iter().map(|request| item(request, self.weights[request.tenant])).collect() }
    }

    /// What goes to the worker.
    fn load(&self, ids: &[RequestId]) -> Vec<Request> {
        ids.iter().map(|id| Rc::clone(self.bytes.get(id).expect("the loop has the bytes of what is dispatched"))).collect()
    }

    fn passed(&self, now: Time) -> Option<(u64, u64)> {
        let settled = now.since(self.since) > ACK_WAIT_INTERACTIVE + HELD_EVERY;
        match (self.delivered, self.position) {
            (delivered, position) if settled && position > delivered => Some(position),
            ((0, _), _) => None,
            (delivered, _) => Some(delivered),
        }
    }
}

fn outcome(cause: &Cause) -> Outcome {
    match cause {
        Cause::Here(Code::Poison) => Outcome::Poisoned,
        Cause::Here(_) => Outcome::Expired,
        Cause::Down(_) => Outcome::Failed,
        Cause::Backend(_) => Outcome::Failed,
    }
}

pub(crate) fn tenant(n: usize) -> String {
    format!("tenant-{n}")
}

pub(crate) fn item(request: &Request, weight: u32) -> Item {
    Item {
        id: request.id,
        tenant: tenant(request.tenant).into(),
        weight,
        key: None,
        lane: request.lane,
        tokens_in: request.tokens_in,
        tokens_out: request.tokens_out,
        items: request.items,
        longest: request.longest,
        bytes: request.bytes,
        compat: request.compat,
        deadline: request.deadline,
        ingress: NodeId::parse(&format!("ingress-{}", request.ingress)).expect("a token"),
    }
}
