//! core: one owner of the model in a world: around the real engine, what its loop does: bytes and ack tokens kept, actions performed,
//! quota reserved and settled, what is held announced.

use crate::books::Books;
use crate::faults::Row;
use crate::frames::Waiting;
use crate::happening::Happening;
use crate::mutations::Mutation;
use crate::plan::Plan;
use crate::schedulers::NEVER;
use crate::spec::Spec;
use crate::tasks::Process;
use crate::world::{World, tenant};
use bytes::Bytes;
use scheduler::engine::{Action, Cause, Engine, EngineConfig, Event, FrameKey, PATIENCE};
use scheduler::reservations::{Account, Reservations};
use scheduler::simulated::{Reading, SETTLE};
use shared::broker::AckToken;
use shared::clock::Time;
use shared::domain::{BatchId, Lane, NodeId, RequestId};
use shared::error::{Code, Failure};
use shared::jobs::{self, Commit, Outcome};
use shared::quota::{Decision, Quotas, RENEW_EVERY_MS, Reserve, Settle};
use shared::wire::{Dispatch, Envelope, Part, Reply, ToIngress, ToScheduler, Usage};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How far an owner's view of a deadline may lie behind the caller's: a publish that came late, and whole milliseconds. A job's goes by
/// several calls, each of which may be late, and its ingress may stop in between.
const PUBLISHED_WITHIN: Duration = Duration::from_millis(500);
const SUBMITTED_WITHIN: Duration = Duration::from_secs(10);

/// And between owner and worker, of whom either may stall.
const DELIVERED_WITHIN: Duration = Duration::from_secs(9);

/// The state of an owner's loop.
pub(crate) struct Owner {
    pub(crate) engine: Engine,
    pub(crate) revision: u64,
    pub(crate) reading: Reading,
    pub(crate) waiting: BTreeMap<RequestId, Waiting>,
    pub(crate) tokens: BTreeMap<FrameKey, AckToken>,
    pub(crate) reservations: Reservations,
    pub(crate) renew_at: Time,
    pub(crate) pulling: [bool; Lane::ALL.len()],
    pub(crate) was_idle: [bool; Lane::ALL.len()],
    /// For the books: what each frame carried when it was last delivered, and what the workers said.
    pub(crate) carried: BTreeMap<FrameKey, Vec<RequestId>>,
    books: Books,
}

impl Owner {
    pub(crate) fn new(plan: &Plan, now: Time, revision: u64) -> Self {
        let config = EngineConfig {
            kind: plan.kind,
            max_items: plan.max_items,
            max_tokens: 20_000,
            padded: plan.padded,
            objective: Duration::from_millis(100),
            patience: PATIENCE,
            dispatch_from: now + SETTLE,
        };
        Self {
            engine: Engine::new(config),
            revision,
            reading: Reading::new(now),
            waiting: BTreeMap::new(),
            tokens: BTreeMap::new(),
            reservations: Reservations::default(),
            renew_at: now + Duration::from_millis(RENEW_EVERY_MS),
            pulling: [false; Lane::ALL.len()],
            was_idle: [true; Lane::ALL.len()],
            carried: BTreeMap::new(),
            books: Books::default(),
        }
    }

    /// Nothing is in custody, no credit is occupied, nothing is reserved, and the loop has kept nothing.
    pub(crate) fn is_empty(&self) -> bool {
        let waits = Lane::ALL.iter().any(|lane| self.engine.depth(*lane) > 0);
        let kept = !self.waiting.is_empty() || !self.tokens.is_empty();
        self.engine.is_empty() && self.engine.credit(Time::ZERO).1 == 0 && !waits && !kept && self.reservations.is_empty()
    }

    pub(crate) fn describe(&self) -> String {
        let (load, outstanding) = (Lane::ALL.map(|lane| self.engine.load(lane)), self.engine.credit(Time::ZERO).1);
        let (bytes, open) = (self.waiting.len(), self.reservations.len());
        format!("load {load:?}, outstanding {outstanding}, bytes {bytes}, tokens {:?}, reserved {open}", self.tokens)
    }
}

impl World {
    pub(crate) fn open_mail(&mut self, n: usize, message: ToScheduler, body: &Bytes) {
        let event = match message {
            ToScheduler::Accept { worker, batch, .. } => Event::Accepted { worker, batch },
            ToScheduler::Refuse { worker, batch, .. } => Event::Refused { worker, batch },
            ToScheduler::Freed { worker, batch, items, .. } => Event::Freed { worker, batch, items },
            ToScheduler::Done { worker, batch, items, .. } => Event::Done { worker, batch, items },
            ToScheduler::Returned(returned) => return self.take_returned(n, returned, body),
            ToScheduler::Look(_) => return,
        };
        self.take_mail(n, event);
    }

    /// One round of the loop: everything in the mailbox, and what follows from it.
    pub(crate) fn step(&mut self, n: usize) {
        if self.schedulers[n].step_at > self.now {
            return; // A later wish, overtaken.
        }
        self.schedulers[n].step_at = NEVER;
        let mut events = std::mem::take(&mut self.schedulers[n].mailbox);
        let Some(mut owner) = self.schedulers[n].owner.take() else { return };
        owner.books.drop_silent(self.now);
        events.iter().for_each(|event| self.note(&mut owner, event));
        if self.has(Mutation::ReturnedByAll) {
            events.extend(owner.books.by_all(&events));
        }
        if self.has(Mutation::AckedWhenAccepted) && events.iter().any(|event| matches!(event, Event::Accepted { .. })) {
            let frames: Vec<FrameKey> = owner.tokens.keys().copied().collect();
            frames.into_iter().for_each(|frame| self.ack(&mut owner, frame));
        }
        loop {
            let mut actions = Vec::new();
            owner.engine.step(self.now, events.drain(..), &mut actions);
            for action in actions {
                events.extend(self.perform(n, &mut owner, action));
            }
            if events.is_empty() {
                break;
            }
        }
        let wake = owner.engine.wake_at();
        assert!(wake > self.now, "the engine wants to be woken at {wake:?}, which has passed at {:?}", self.now);
        self.want_step(n, wake);
        self.schedulers[n].owner = Some(owner);
    }

    fn note(&self, owner: &mut Owner, event: &Event) {
        owner.books.note(self.now, event);
        if let Event::Done { batch, items, .. } = event {
            for done in items {
                let runs_besides = owner.engine.runs_besides(done.id, *batch);
                self.settle(owner.reservations.done(done, runs_besides, |_| 0));
            }
        }
    }

    fn settle(&self, settle: Option<Settle>) {
        if let Some(settle) = settle {
            self.ledger.settle(&settle);
        }
    }

    pub(crate) fn give_up(&mut self, n: usize, owner: &mut Owner) {
        let mut actions = Vec::new();
        owner.engine.surrender(&mut actions);
        for action in actions {
            self.perform(n, owner, action);
        }
        assert!(owner.engine.is_empty(), "a surrendered engine is empty");
    }

    fn perform(&mut self, n: usize, owner: &mut Owner, action: Action) -> Option<Event> {
        match action {
            Action::Reserve(id) => return self.reserve(owner, id),
            Action::Dispatch { batch, worker, backend, items } => self.dispatch(n, owner, (batch, worker, backend), &items),
            Action::Ack(frame) => self.ack(owner, frame),
            Action::Nak(frame, delay) => {
                if let Some(token) = owner.tokens.remove(&frame) {
                    self.send(Row::Ack, || Happening::Nak(token.clone(), delay));
                }
            }
            Action::Renew(frame) => {
                if let Some(token) = owner.tokens.get(&frame) {
                    self.send(Row::Ack, || Happening::Renew(token.clone()));
                }
            }
            Action::Fail { id, ingress, cause } => {
                let code = match cause {
                    Cause::Here(code) => code,
                    Cause::Down(_) => Code::BackendUnavailable,
                    Cause::Backend(failure) => failure.code,
                };
                self.fail(n, owner, id, &ingress, code);
            }
            Action::Refuse { id, ingress, refusal } => {
                let message = ToIngress::Refused { id, refusal };
                self.send(Row::Reply, || Happening::ToIngress { ingress: ingress.clone(), message: message.clone(), body: Bytes::new() });
            }
            Action::Release(id) if owner.engine.holds(id) => {} // It has come again in the meantime.
            Action::Release(id) => {
                owner.waiting.remove(&id);
                if !owner.engine.runs(id) && !self.has(Mutation::ReservationsKept) {
                    self.settle(owner.reservations.unused(id));
                }
            }
        }
        None
    }

    /// The ledger is everybody's, and answers at once.
    fn reserve(&self, owner: &mut Owner, id: RequestId) -> Option<Event> {
        let item = owner.engine.item(id)?;
        let quota = (0..self.plan.quotas.len()).find(|t| tenant(*t) == *item.tenant).map(|t| Arc::clone(&self.plan.quotas[t]))?;
        if quota.is_unlimited() {
            return Some(Event::Reserved(id));
        }
        let (tenant, tokens) = (Arc::clone(&item.tenant), u64::from(item.tokens()));
        let quotas = Quotas { tenant: quota, key: None };
        match self.ledger.reserve(&Reserve { id, tenant: Arc::clone(&tenant), key: None, quotas, tokens, nano_usd: 0 }) {
            Decision::Granted(standing) => {
                owner.reservations.granted(id, Account { tenant, key: None }, standing);
                Some(Event::Reserved(id))
            }
            Decision::Refused(refusal) => Some(Event::QuotaRefused { id, refusal }),
            Decision::Unseeded => panic!("a quota without budgets is seeded"),
        }
    }

    fn dispatch(&mut self, n: usize, owner: &mut Owner, (batch, worker, backend): (BatchId, NodeId, Box<str>), ids: &[RequestId]) {
        owner.books.check_dispatch(&worker, &backend, ids);
        owner.books.sent(batch, worker.clone(), ids);
        for id in ids {
            let Spec { deadline, lane, .. } = *self.audit.spec(*id);
            let late_max = if lane.is_deferred() { SUBMITTED_WITHIN } else { PUBLISHED_WITHIN };
            let late_max = late_max + self.audit.tries.drift(*id, DELIVERED_WITHIN);
            assert!(self.now < deadline + late_max, "{id} is dispatched after its deadline at {deadline:?}");
        }
        let crossed = self.has(Mutation::BodiesCrossed);
        let lying = (0..ids.len()).map(|n| if crossed { ids[ids.len() - 1 - n] } else { ids[n] });
        let (items, body) = owner.load(self.now, ids, lying);
        let (scheduler, model) = (self.schedulers[n].id.clone(), self.model.clone());
        let dispatch = Dispatch { scheduler, model, batch, revision: owner.revision, backend, items };
        let message = || Happening::ToWorker { worker: worker.clone(), dispatch: dispatch.clone(), body: body.clone() };
        self.send(Row::Dispatch, message);
    }

    /// A deferred frame may go only when nothing more can become of it. (Where streams forget, sequences are given again.)
    fn ack(&mut self, owner: &mut Owner, frame: FrameKey) {
        let Some(token) = owner.tokens.remove(&frame) else { return };
        if frame.lane.is_deferred() && !self.plan.faults.forget() {
            let open = owner.carried[&frame].iter().find(|id| !self.audit.has_outcome(**id));
            assert!(open.is_none(), "{frame:?} is acked, and {open:?} has no outcome");
        }
        self.send(Row::Ack, || Happening::Ack(token.clone()));
    }

    /// Tells the ingress, or puts it on record.
    fn fail(&mut self, n: usize, owner: &Owner, id: RequestId, ingress: &NodeId, code: Code) {
        let failure = Failure::new(code, "It failed here");
        let Some(waiting) = owner.waiting.get(&id).filter(|waiting| waiting.lane.is_deferred()) else {
            let reply = Reply { id, exec: None, part: 0, last: true, head: None, failure: Some(Box::new(failure)), usage: None };
            let message = ToIngress::Reply(reply);
            let to = || Happening::ToIngress { ingress: ingress.clone(), message: message.clone(), body: Bytes::new() };
            return self.send(Row::Reply, to);
        };
        let envelope: Envelope = Part { head: waiting.envelope.clone(), body: Bytes::new() }.decode().expect("an envelope");
        let of = *envelope.job.expect("a deferred request says what it is part of");
        let outcome = Outcome { row: of.row, id, exec: None, failure: Some(Box::new(failure)), usage: Usage::default(), blob: None };
        let commit = Commit { tenant: envelope.tenant, of, outcome, body: Bytes::new() };
        let (broker, revision) = (Arc::clone(&self.broker), owner.revision);
        self.begin(Process::Scheduler(n), async move {
            jobs::commit(broker.as_ref(), vec![commit]).await;
            Happening::Recorded { scheduler: n, revision, id }
        });
    }
}
