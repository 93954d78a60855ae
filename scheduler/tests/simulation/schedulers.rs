//! core: the schedulers of a world: the lease, and around the real engine what its loop does: bytes and ack tokens kept,
//! actions performed, what is held announced.

use crate::audit::{Audit, Rules};
use crate::faults::Row;
use crate::lane::Delivery;
use crate::plan::{Quota, Request};
use crate::workers::Dispatch;
use crate::world::{Happening, Outcome, World};
use scheduler::engine::{Action, Engine, EngineConfig, Event, FrameKey, Item};
use shared::broker::{ACK_WAIT_INTERACTIVE, LEASE_TTL, ack_wait};
use shared::clock::Time;
use shared::domain::{BatchId, Lane, NodeId, RequestId};
use shared::error::Code;
use shared::wire::COALESCE_MAX;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

/// How often the lease is renewed or sought.
const ROUND: Duration = Duration::from_millis(500);

/// A new owner dispatches nothing for so long, while it asks the workers what they run.
const SETTLE: Duration = Duration::from_millis(250);

const HELD_EVERY: Duration = Duration::from_secs(1);

/// A pull that brought something is followed by the next.
const PULL_PAUSE: Duration = Duration::from_micros(500);

const NEVER: Time = Time(u64::MAX);

#[derive(Clone, Debug)]
pub(crate) enum Input {
    Delivery(Delivery),
    /// Where the interactive lane stands, from a reader that opened it (again).
    Position((u64, u64)),
    Event(Event),
}

/// The record that says who owns the model.
#[derive(Debug, Default)]
pub(crate) struct Lease {
    holder: Option<usize>,
    expires: Time,
    revision: u64,
}

/// The state of an owner's loop.
struct Owner {
    engine: Engine,
    audit: Audit,
    revision: u64,
    since: Time,
    /// What the loop keeps of each waiting request, and the frame it came in.
    bytes: BTreeMap<RequestId, (Request, FrameKey)>,
    tokens: BTreeSet<FrameKey>,
    position: (u64, u64),
    delivered: (u64, u64),
    /// A pull found no room.
    starved: bool,
}

pub(crate) struct Scheduler {
    id: NodeId,
    alive: bool,
    stalled_until: Time,
    seeks_from: Time,
    mailbox: Vec<Input>,
    step_at: Time,
    owner: Option<Box<Owner>>,
}

impl Scheduler {
    /// Nothing is in custody, no credit is occupied, and the loop has kept nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.owner.as_ref().is_none_or(|owner| {
            owner.engine.load() == (0, 0)
                && owner.engine.credit(NEVER).1 == 0
                && owner.bytes.is_empty()
                && owner.tokens.is_empty()
                && Lane::ALL.iter().all(|lane| owner.engine.depth(*lane) == 0)
        })
    }

    pub(crate) fn describe(&self) -> Option<String> {
        let owner = self.owner.as_ref()?;
        let (engine, outstanding) = (owner.engine.load(), owner.engine.credit(NEVER).1);
        Some(format!("{}: load {engine:?}, outstanding {outstanding}, bytes {}, tokens {:?}", self.id, owner.bytes.len(), owner.tokens))
    }
}

impl World {
    pub(crate) fn add_scheduler(&mut self) {
        let n = self.schedulers.len();
        let id = NodeId::parse(&format!("scheduler-{n}")).expect("a token");
        let after = self.rng.micros(0, 5_000);
        self.post(after, Happening::Round(n));
        let (stalled_until, seeks_from) = (Time::ZERO, Time::ZERO);
        self.schedulers.push(Scheduler { id, alive: true, stalled_until, seeks_from, mailbox: Vec::new(), step_at: NEVER, owner: None });
    }

    fn owners(&self) -> Vec<usize> {
        (0..self.schedulers.len()).filter(|n| self.schedulers[*n].owner.is_some()).collect()
    }

    /// The process dies; another one starts in its place.
    pub(crate) fn kill_scheduler(&mut self) {
        let victim = self.owners().first().copied().unwrap_or(self.schedulers.len() - 1);
        (self.schedulers[victim].alive, self.schedulers[victim].owner) = (false, None);
        self.add_scheduler();
    }

    pub(crate) fn stall_scheduler(&mut self) {
        let Some(victim) = self.owners().first().copied() else { return };
        self.schedulers[victim].stalled_until = self.now + self.rng.millis(100, 6_000);
    }

    /// Gives the model up in good order. Whoever comes first takes it, perhaps the same one again.
    pub(crate) fn surrender(&mut self) {
        let Some(n) = self.owners().first().copied() else { return };
        if self.now < self.schedulers[n].stalled_until {
            return;
        }
        let mut owner = self.schedulers[n].owner.take().expect("an owner");
        let mut actions = Vec::new();
        owner.engine.surrender(&mut actions);
        for action in actions {
            self.perform(n, &mut owner, action);
        }
        assert_eq!((owner.engine.load(), owner.bytes.len()), ((0, 0), 0), "a surrendered engine is empty");
        if self.lease.holder == Some(n) {
            self.lease.holder = None;
        }
        self.schedulers[n].seeks_from = self.now + self.rng.millis(0, 2_000);
    }

    pub(crate) fn handle_scheduler(&mut self, happening: Happening) {
        let (Happening::Round(n)
        | Happening::Announce { scheduler: n, .. }
        | Happening::Pull { scheduler: n, .. }
        | Happening::Mail { scheduler: n, .. }
        | Happening::Step(n)) = happening
        else {
            return;
        };
        if !self.schedulers[n].alive {
            return;
        }
        if self.now < self.schedulers[n].stalled_until {
            return self.post(self.schedulers[n].stalled_until.since(self.now), happening);
        }
        match happening {
            Happening::Announce { revision, .. } => self.announce(n, revision),
            Happening::Pull { lane, .. } => self.pull(n, lane),
            Happening::Mail { input, .. } => self.take_mail(n, input),
            Happening::Step(_) => self.step(n),
            _ => self.round(n),
        }
    }

    fn round(&mut self, n: usize) {
        self.post(ROUND, Happening::Round(n));
        let is_free = self.lease.holder.is_none() || self.lease.expires <= self.now;
        if self.schedulers[n].owner.is_some() {
            if self.lease.holder == Some(n) && !is_free {
                self.lease.expires = self.now + LEASE_TTL;
            } else {
                self.schedulers[n].owner = None;
            }
        } else if is_free && self.now >= self.schedulers[n].seeks_from {
            self.take_over(n);
        }
    }

    fn take_over(&mut self, n: usize) {
        self.lease = Lease { holder: Some(n), expires: self.now + LEASE_TTL, revision: self.lease.revision + 1 };
        let revision = self.lease.revision;
        let config = self.engine_config();
        let owner = Owner {
            audit: Audit::new(Rules::of(&self.plan, config.dispatch_from)),
            engine: Engine::new(config),
            revision,
            since: self.now,
            bytes: BTreeMap::new(),
            tokens: BTreeSet::new(),
            position: self.lanes[Lane::Interactive.index()].position(),
            delivered: (0, 0),
            starved: false,
        };
        self.schedulers[n].owner = Some(Box::new(owner));
        self.want_step(n, self.now);
        self.post(HELD_EVERY, Happening::Announce { scheduler: n, revision });
        (0..self.workers.len()).for_each(|worker| self.send(Row::Heartbeat, Happening::Probed(worker)));
        Lane::ALL.into_iter().for_each(|lane| self.ring(lane));
    }

    fn engine_config(&self) -> EngineConfig {
        let weights = self.plan.weights.iter().enumerate().map(|(n, weight)| (tenant(n).into(), *weight)).collect();
        let (kind, max_items, max_tokens) = (self.plan.kind, self.plan.max_items, self.plan.max_tokens);
        EngineConfig { kind, max_items, max_tokens, weights, dispatch_from: self.now + SETTLE }
    }

    /// The interactive stream is made anew: its readers find theirs gone, and open it again.
    pub(crate) fn lose_stream(&mut self) {
        let lane = &mut self.lanes[Lane::Interactive.index()];
        lane.wipe();
        let position = lane.position();
        for scheduler in self.owners() {
            let after = self.rng.millis(1, 400);
            self.post(after, Happening::Mail { scheduler, input: Input::Position(position) });
        }
    }

    /// Something waits in a lane: its readers hear of it.
    pub(crate) fn ring(&mut self, lane: Lane) {
        for scheduler in self.owners() {
            let after = self.rng.micros(20, 200);
            self.post(after, Happening::Pull { scheduler, lane });
        }
    }

    fn pull(&mut self, n: usize, lane: Lane) {
        let Some(owner) = &mut self.schedulers[n].owner else { return };
        if !self.lanes[lane.index()].has_waiting(self.now) {
            return;
        }
        let frames = self.plan.window.saturating_sub(owner.engine.load().0) / COALESCE_MAX;
        owner.starved |= frames == 0;
        let taken = self.lanes[lane.index()].take(self.now, frames);
        if !taken.is_empty() {
            self.post(ack_wait(lane), Happening::Due(lane));
            self.post(PULL_PAUSE, Happening::Pull { scheduler: n, lane });
        }
        for delivery in taken {
            self.send(Row::Delivery, Happening::Mail { scheduler: n, input: Input::Delivery(delivery) });
        }
    }

    pub(crate) fn mail_all(&mut self, row: Row, input: &Input) {
        for scheduler in 0..self.schedulers.len() {
            self.send(row, Happening::Mail { scheduler, input: input.clone() });
        }
    }

    fn take_mail(&mut self, n: usize, input: Input) {
        if self.schedulers[n].owner.is_some() {
            self.schedulers[n].mailbox.push(input);
            let after = self.rng.micros(0, 20);
            self.want_step(n, self.now + after);
        }
    }

    fn want_step(&mut self, n: usize, at: Time) {
        if at < self.schedulers[n].step_at {
            self.schedulers[n].step_at = at;
            self.post(at.since(self.now), Happening::Step(n));
        }
    }

    /// One round of the loop: everything in the mailbox, and what follows from it.
    fn step(&mut self, n: usize) {
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

    fn perform(&mut self, n: usize, owner: &mut Owner, action: Action) -> Option<Event> {
        match action {
            Action::Reserve(id) => return self.reserve(n, id),
            Action::Dispatch { batch, worker, backend, items } => {
                self.batches.push((self.now, items.len()));
                let dispatch = Dispatch { scheduler: n, revision: owner.revision, batch, backend, items: owner.load(&items) };
                self.send(Row::Dispatch, Happening::Dispatched { worker, dispatch });
            }
            Action::Ack(frame) => self.ack(owner, frame),
            Action::Nak(frame) => {
                if owner.tokens.remove(&frame) {
                    self.send(Row::Ack, Happening::Nak(frame));
                }
            }
            Action::Close(frame) => {
                owner.tokens.remove(&frame);
            }
            Action::Renew(frame) => {
                if owner.tokens.contains(&frame) {
                    self.send(Row::Ack, Happening::Renew(frame));
                }
            }
            Action::Fail { id, code, .. } => {
                self.verdict(id, if code == Code::DeadlineExceeded { Outcome::Expired } else { Outcome::Refused });
            }
            Action::Release(id) if owner.engine.holds(id) => {} // It has come again in the meantime.
            Action::Release(id) => {
                owner.bytes.remove(&id);
            }
        }
        None
    }

    fn reserve(&mut self, n: usize, id: RequestId) -> Option<Event> {
        let Quota::Asked { refused } = self.plan.quota else { return Some(Event::Reserved(id)) };
        let event = if self.rng.happens(refused) { Event::QuotaRefused { id, retry_at: self.now } } else { Event::Reserved(id) };
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
            let id = owner.audit.only_item_of(frame);
            assert!(self.records[&id].outcome.is_some(), "the scheduler acks {frame:?}, and {id} has no outcome");
        }
        self.send(Row::Ack, Happening::Ack(frame));
    }

    fn announce(&mut self, n: usize, revision: u64) {
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
    fn take_in(&mut self, input: Input) -> Option<Event> {
        match input {
            Input::Event(event) => Some(event),
            Input::Delivery(delivery) => Some(self.take_delivery(delivery)),
            Input::Position(position) => {
                self.position = position;
                None
            }
        }
    }

    fn take_delivery(&mut self, Delivery { key, requests }: Delivery) -> Event {
        if key.lane == Lane::Interactive {
            let (epoch, sequence) = self.delivered;
            self.delivered = if key.epoch == epoch { (epoch, sequence.max(key.sequence)) } else { (key.epoch, key.sequence) };
        }
        self.tokens.insert(key);
        for request in &requests {
            self.bytes.entry(request.id).or_insert_with(|| (Rc::clone(request), key));
        }
        Event::Delivered { frame: key, items: requests.iter().map(item).collect() }
    }

    /// What goes to the worker: each request, and with a deferred one its frame's ack token.
    fn load(&self, ids: &[RequestId]) -> Vec<(Request, Option<FrameKey>)> {
        let load = |id| {
            let (request, frame) = self.bytes.get(id).expect("the loop has the bytes of what is dispatched");
            let token = frame.lane.is_deferred().then_some(*frame);
            assert!(token.is_none_or(|frame| self.tokens.contains(&frame)), "{id} goes out without its ack token");
            (Rc::clone(request), token)
        };
        ids.iter().map(load).collect()
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

pub(crate) fn tenant(n: usize) -> String {
    format!("tenant-{n}")
}

fn item(request: &Request) -> Item {
    Item {
        id: request.id,
        tenant: tenant(request.tenant).into(),
        lane: request.lane,
        tokens_in: request.tokens_in,
        tokens_out: request.tokens_out,
        items: request.items,
        bytes: request.bytes,
        compat: request.compat,
        deadline: request.deadline,
        ingress: NodeId::parse(&format!("ingress-{}", request.ingress)).expect("a token"),
    }
}

/// The batch of an answer, at the scheduler that sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) scheduler: usize,
    pub(crate) batch: BatchId,
}
