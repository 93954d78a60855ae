//! core: the workers of a world: each accepts or refuses at once, answers a second dispatch with the execution that runs,
//! and says what it has.

use crate::faults::Row;
use crate::ingresses::Reply;
use crate::owner::{Input, item};
use crate::plan::Request;
use crate::world::{Happening, Outcome, World};
use scheduler::engine::{Event, GivenBack, Returned};
use shared::clock::Time;
use shared::domain::{BatchId, ExecId, ModelKind, NodeId, RequestId};
use shared::error::{Code, Failure};
use shared::wire::{BackendCredit, Fault, ItemDone, ItemEnd, Running, Usage};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

const HEARTBEAT: Duration = Duration::from_millis(500);

const HELD_EVERY: Duration = Duration::from_secs(1);

/// An ingress silent this long waits for nothing.
const INGRESS_SILENT: Duration = Duration::from_secs(5);

/// How calls fail.
const FAULTS: [Fault; 7] =
    [Fault::Connect, Fault::Broken, Fault::RateLimited, Fault::Unavailable, Fault::ServerError, Fault::Timeout, Fault::Rejected];

#[derive(Clone, Debug)]
pub(crate) struct Dispatch {
    pub(crate) scheduler: usize,
    pub(crate) revision: u64,
    pub(crate) batch: BatchId,
    pub(crate) backend: Box<str>,
    pub(crate) items: Vec<Request>,
}

/// The batch of an answer, at the scheduler that sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Report {
    scheduler: usize,
    batch: BatchId,
}

/// One request in execution.
#[derive(Debug)]
struct Execution {
    exec: ExecId,
    request: Request,
    since: Time,
    cancelled: bool,
    reports: Vec<Report>,
    parts: u32,
    /// What went wrong with the call that has ended.
    fault: Option<Fault>,
}

impl Execution {
    /// None: nobody waits for it.
    fn outcome(&self, now: Time) -> Option<Outcome> {
        match () {
            () if self.cancelled => None,
            () if now >= self.request.deadline => Some(Outcome::Expired),
            () if self.fault.is_some() => Some(Outcome::Failed),
            () => Some(Outcome::Answered),
        }
    }

    fn ended(&self, now: Time) -> ItemDone {
        let (end, usage) = match self.outcome(now) {
            Some(Outcome::Answered) => (ItemEnd::Answered, Usage { input: self.request.tokens_in, output: self.request.tokens_out }),
            Some(_) => (ItemEnd::Failed, Usage::default()),
            None => (ItemEnd::Cancelled, Usage::default()),
        };
        ItemDone { id: self.request.id, end, usage, fault: self.fault }
    }

    /// Another try may do better, and nobody has had a byte.
    fn is_returned(&self, now: Time) -> bool {
        self.outcome(now) == Some(Outcome::Failed) && self.parts == 0 && self.fault.is_some_and(Fault::is_curable)
    }
}

/// One call at a backend, and the requests that it answers.
#[derive(Debug)]
struct Call {
    backend: Box<str>,
    ids: Vec<RequestId>,
}

#[derive(Debug)]
pub(crate) struct Worker {
    id: NodeId,
    life: u32,
    alive: bool,
    draining: bool,
    fence: u64,
    running: BTreeMap<RequestId, Execution>,
    calls: BTreeMap<u64, Call>,
    tombstones: BTreeSet<RequestId>,
    ingresses: BTreeMap<usize, Time>,
}

impl Worker {
    pub(crate) fn is_idle(&self) -> bool {
        self.running.is_empty() && self.calls.is_empty()
    }

    fn new(id: NodeId, life: u32) -> Self {
        Self {
            id,
            life,
            alive: true,
            draining: false,
            fence: 0,
            running: BTreeMap::new(),
            calls: BTreeMap::new(),
            tombstones: BTreeSet::new(),
            ingresses: BTreeMap::new(),
        }
    }

    fn call_of(&self, id: RequestId) -> Option<u64> {
        self.calls.iter().find(|(_, call)| call.ids.contains(&id)).map(|(number, _)| *number)
    }
}

impl World {
    pub(crate) fn add_worker(&mut self) {
        let n = self.workers.len();
        let id = NodeId::parse(&format!("worker-{n}")).expect("a token");
        self.workers.push(Worker::new(id, 0));
        self.start_timers(n);
    }

    fn start_timers(&mut self, worker: usize) {
        let (after, life) = (self.rng.micros(0, 50_000), self.workers[worker].life);
        self.post(after, Happening::Beat { worker, life });
        self.post(after + HELD_EVERY, Happening::Name { worker, life });
    }

    pub(crate) fn kill_worker(&mut self) {
        let victim = self.rng.index(self.workers.len());
        self.stop(victim);
    }

    /// The process ends with all it had; another one comes up in its place.
    fn stop(&mut self, n: usize) {
        let worker = &mut self.workers[n];
        if worker.alive {
            let life = worker.life + 1;
            *worker = Worker { alive: false, ..Worker::new(worker.id.clone(), life) };
            let after = self.rng.millis(200, 8_000);
            self.post(after, Happening::Rise(n));
        }
    }

    /// Under its old name when the operator gave it one.
    fn rise(&mut self, n: usize) {
        let life = self.workers[n].life;
        let id =
            if self.rng.happens(500) { self.workers[n].id.clone() } else { NodeId::parse(&format!("worker-{n}-{life}")).expect("a token") };
        self.workers[n] = Worker::new(id, life);
        self.start_timers(n);
    }

    pub(crate) fn drain_worker(&mut self) {
        let n = self.rng.index(self.workers.len());
        self.workers[n].draining = true;
        self.announce_credit(n);
    }

    fn end_drain(&mut self, n: usize) {
        if self.workers[n].draining && self.workers[n].is_idle() {
            let id = self.workers[n].id.clone();
            self.mail_all(Row::Heartbeat, &Input::Event(Event::WorkerLeft(id)));
            self.stop(n);
        }
    }

    pub(crate) fn handle_worker(&mut self, happening: Happening) {
        match happening {
            Happening::Rise(n) => self.rise(n),
            Happening::Dispatched { worker, dispatch } => {
                if let Some(n) = self.workers.iter().position(|w| w.alive && w.id == worker) {
                    self.dispatched(n, &dispatch);
                }
            }
            Happening::CallSpeaks { worker, call } => self.speak(worker, call),
            Happening::CallEnds { worker, call } => self.end_call(worker, call),
            Happening::Recorded { worker, life, id, exec } if self.lives(worker, life) => self.recorded(worker, id, exec),
            Happening::Beat { worker, life } if self.lives(worker, life) => self.beat(worker),
            Happening::Name { worker, life } if self.lives(worker, life) => self.name(worker),
            Happening::Cancelled { worker, id, exec } if self.workers[worker].alive => self.cancelled(worker, id, exec),
            Happening::IngressHeard { worker, ingress } => {
                self.workers[worker].ingresses.insert(ingress, self.now);
            }
            Happening::Probed(n) if self.workers[n].alive => self.announce_credit(n),
            _ => {} // For a life that has ended.
        }
    }

    fn lives(&self, n: usize, life: u32) -> bool {
        self.workers[n].alive && self.workers[n].life == life
    }

    fn dispatched(&mut self, n: usize, dispatch: &Dispatch) {
        let worker = self.workers[n].id.clone();
        let (scheduler, batch) = (dispatch.scheduler, dispatch.batch);
        let is_taken = self.admits(n, dispatch);
        if is_taken {
            self.take_on(n, dispatch);
        }
        let (row, event) =
            if is_taken { (Row::Accept, Event::Accepted { worker, batch }) } else { (Row::Refuse, Event::Refused { worker, batch }) };
        self.send(row, Happening::Mail { scheduler, input: Input::Event(event) });
    }

    fn admits(&mut self, n: usize, dispatch: &Dispatch) -> bool {
        let concurrency = self.plan.backends.iter().find(|b| b.name == &*dispatch.backend).expect("a backend of this plan").concurrency;
        let worker = &mut self.workers[n];
        if dispatch.items.iter().all(|request| worker.running.contains_key(&request.id)) {
            return true;
        }
        if dispatch.revision < worker.fence {
            return false;
        }
        worker.fence = dispatch.revision;
        let calls = worker.calls.values().filter(|call| call.backend == dispatch.backend).count();
        !worker.draining && calls < concurrency as usize
    }

    fn take_on(&mut self, n: usize, dispatch: &Dispatch) {
        let report = Report { scheduler: dispatch.scheduler, batch: dispatch.batch };
        let mut started = Vec::new();
        for request in &dispatch.items {
            if let Some(execution) = self.workers[n].running.get_mut(&request.id) {
                execution.reports.push(report);
                continue;
            }
            let (exec, since) = (ExecId(self.mint()), self.now);
            let worker = &mut self.workers[n];
            let cancelled = worker.tombstones.contains(&request.id);
            let execution = Execution { exec, request: Rc::clone(request), since, cancelled, reports: vec![report], parts: 0, fault: None };
            worker.running.insert(request.id, execution);
            started.push(Rc::clone(request));
        }
        if !started.is_empty() {
            self.call(n, dispatch.backend.clone(), &started);
        }
    }

    fn call(&mut self, n: usize, backend: Box<str>, requests: &[Request]) {
        let config = *self.plan.backends.iter().find(|b| b.name == &*backend).expect("a backend of this plan");
        let unit = |request: &Request| if self.plan.kind == ModelKind::Array { request.items } else { request.tokens_out };
        let took = config.fixed + config.per_unit * requests.iter().map(unit).sum::<u32>();
        let patience = requests.iter().map(|request| request.deadline).max().expect("a call has requests").since(self.now);
        let number = self.mint().as_u128() as u64;
        self.workers[n].calls.insert(number, Call { backend, ids: requests.iter().map(|request| request.id).collect() });
        self.post(took.min(patience) / 2, Happening::CallSpeaks { worker: n, call: number });
        self.post(took.min(patience), Happening::CallEnds { worker: n, call: number });
        if requests.iter().all(|request| self.workers[n].running[&request.id].cancelled) {
            self.end_call(n, number);
        }
    }

    /// The first part of a stream.
    fn speak(&mut self, n: usize, number: u64) {
        let Some(call) = self.workers[n].calls.get(&number) else { return };
        for id in call.ids.clone() {
            let execution = self.workers[n].running.get_mut(&id).expect("a call's requests run");
            if execution.request.stream && !execution.cancelled {
                execution.parts += 1;
                let (exec, ingress) = (Some(execution.exec), execution.request.ingress);
                self.send(Row::Reply, Happening::Reply { ingress, reply: Reply { id, exec, part: 0, end: None } });
            }
        }
    }

    fn end_call(&mut self, n: usize, number: u64) {
        let Some(call) = self.workers[n].calls.remove(&number) else { return };
        let fault = self.fault(&call.backend);
        call.ids.iter().for_each(|id| self.workers[n].running.get_mut(id).expect("a call's requests run").fault = fault);
        let is_back = |id: &RequestId| self.workers[n].running[id].is_returned(self.now);
        let (back, over): (Vec<RequestId>, Vec<RequestId>) = call.ids.into_iter().partition(is_back);
        over.into_iter().for_each(|id| self.end_here(n, id));
        if let Some(fault) = fault {
            self.give_back(n, &back, fault);
        }
        self.end_drain(n);
    }

    fn end_here(&mut self, n: usize, id: RequestId) {
        if self.workers[n].running[&id].request.lane.is_deferred() {
            self.free(n, id);
        } else {
            self.conclude(n, id);
        }
    }

    /// How a call that ends now fails, if it does.
    fn fault(&mut self, backend: &str) -> Option<Fault> {
        let is_down = |b: &crate::plan::Backend| b.name == backend && b.down.is_some_and(|(from, to)| from <= self.now && self.now < to);
        let fails = self.plan.backends.iter().any(is_down) || self.rng.happens(self.plan.failing);
        fails.then(|| self.rng.pick(&FAULTS))
    }

    /// To everybody who dispatched them, in one message for each batch.
    fn give_back(&mut self, n: usize, back: &[RequestId], fault: Fault) {
        let mut parcels: BTreeMap<(usize, BatchId), Vec<GivenBack>> = BTreeMap::new();
        for id in back {
            let execution = self.workers[n].running.remove(id).expect("a call's requests run");
            let request = &execution.request;
            let item = (!request.lane.is_deferred()).then(|| item(request, self.plan.weights[request.tenant]));
            for Report { scheduler, batch } in execution.reports {
                let published = self.records[id].arrived;
                parcels.entry((scheduler, batch)).or_default().push(GivenBack { id: *id, item: item.clone(), published });
            }
        }
        let worker = self.workers[n].id.clone();
        for ((scheduler, batch), items) in parcels {
            let failure = Box::new(Failure::new(Code::BackendStatus, "as the plan has it"));
            let returned = Returned { worker: worker.clone(), batch, fault, failure, items };
            self.send(Row::Returned, Happening::Mail { scheduler, input: Input::Event(Event::Returned(Box::new(returned))) });
        }
    }

    /// The place of a deferred request is free; its outcome takes a while longer to be on record.
    fn free(&mut self, n: usize, id: RequestId) {
        let worker = &self.workers[n];
        let (life, execution) = (worker.life, &worker.running[&id]);
        let exec = execution.exec;
        self.report(n, execution.reports.clone(), execution.ended(self.now), |worker, batch, items| Event::Freed { worker, batch, items });
        let after = self.rng.millis(1, 50);
        self.post(after, Happening::Recorded { worker: n, life, id, exec });
    }

    fn recorded(&mut self, n: usize, id: RequestId, exec: ExecId) {
        if self.workers[n].running.get(&id).is_some_and(|execution| execution.exec == exec) {
            self.conclude(n, id);
            self.end_drain(n);
        }
    }

    fn conclude(&mut self, n: usize, id: RequestId) {
        let execution = self.workers[n].running.remove(&id).expect("it runs");
        if let Some(outcome) = execution.outcome(self.now) {
            self.answer(&execution, outcome);
        }
        let done = execution.ended(self.now);
        self.report(n, execution.reports, done, |worker, batch, items| Event::Done { worker, batch, items });
    }

    fn report(&mut self, n: usize, reports: Vec<Report>, done: ItemDone, event: impl Fn(NodeId, BatchId, Vec<ItemDone>) -> Event) {
        let worker = self.workers[n].id.clone();
        for Report { scheduler, batch } in reports {
            let input = Input::Event(event(worker.clone(), batch, vec![done]));
            self.send(Row::Done, Happening::Mail { scheduler, input });
        }
    }

    /// A deferred answer is on record before its end is told; an interactive one is on its way.
    fn answer(&mut self, execution: &Execution, outcome: Outcome) {
        let Execution { exec, request, parts, .. } = execution;
        if request.lane.is_deferred() {
            return self.commit(request.id, outcome);
        }
        let reply = Reply { id: request.id, exec: Some(*exec), part: *parts, end: Some(outcome) };
        self.send(Row::Reply, Happening::Reply { ingress: request.ingress, reply });
    }

    fn cancelled(&mut self, n: usize, id: RequestId, exec: Option<ExecId>) {
        let worker = &mut self.workers[n];
        if exec.is_none() {
            worker.tombstones.insert(id);
        }
        if let Some(execution) = worker.running.get_mut(&id).filter(|e| exec.is_none_or(|exec| exec == e.exec)) {
            execution.cancelled = true;
            self.abandon(n, id);
        }
    }

    /// Ends the call that nobody waits for any more.
    fn abandon(&mut self, n: usize, id: RequestId) {
        let worker = &self.workers[n];
        let Some(call) = worker.call_of(id) else { return };
        if worker.calls[&call].ids.iter().all(|id| worker.running[id].cancelled) {
            self.end_call(n, call);
        }
    }

    fn beat(&mut self, n: usize) {
        self.cancel_orphans(n);
        self.announce_credit(n);
        self.post(HEARTBEAT, Happening::Beat { worker: n, life: self.workers[n].life });
        self.end_drain(n);
    }

    fn cancel_orphans(&mut self, n: usize) {
        let (worker, now) = (&mut self.workers[n], self.now);
        let silent: Vec<usize> =
            worker.ingresses.iter().filter(|(_, seen)| now.since(**seen) >= INGRESS_SILENT).map(|(ingress, _)| *ingress).collect();
        worker.ingresses.retain(|ingress, _| !silent.contains(ingress));
        let is_orphan = |e: &Execution| !e.request.lane.is_deferred() && silent.contains(&e.request.ingress);
        let orphans: Vec<RequestId> = worker.running.iter().filter(|(_, e)| is_orphan(e)).map(|(id, _)| *id).collect();
        for id in orphans {
            if let Some(execution) = self.workers[n].running.get_mut(&id) {
                execution.cancelled = true;
                self.abandon(n, id);
            }
        }
    }

    fn announce_credit(&mut self, n: usize) {
        let worker = &self.workers[n];
        let offer = |backend: &crate::plan::Backend| BackendCredit {
            name: backend.name.into(),
            concurrency: if worker.draining { 0 } else { backend.concurrency },
            tokens: backend.tokens,
            shared: backend.shared,
            rest_ms: 0,
        };
        let backends = self.plan.backends.iter().map(offer).collect();
        let running = worker.running.iter().map(|(id, e)| Running { id: *id, exec: e.exec, lane: e.request.lane, begun: false }).collect();
        let heartbeat = Event::Heartbeat { worker: worker.id.clone(), backends, running };
        self.mail_all(Row::Heartbeat, &Input::Event(heartbeat));
    }

    fn name(&mut self, n: usize) {
        let before = self.now.saturating_sub(HELD_EVERY);
        let mut held: BTreeMap<usize, Vec<RequestId>> = BTreeMap::new();
        for (id, execution) in self.workers[n].running.iter().filter(|(_, e)| e.since <= before) {
            held.entry(execution.request.ingress).or_default().push(*id);
        }
        for (ingress, ids) in held {
            self.send(Row::Held, Happening::Held { ingress, ids, passed: None });
        }
        self.post(HELD_EVERY, Happening::Name { worker: n, life: self.workers[n].life });
    }
}
