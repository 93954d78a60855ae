//! core: the workers of a world: around the real table, what their intake and their heartbeats do.

use crate::calls::Call;
use crate::faults::Row;
use crate::happening::Happening;
use crate::mutations::Mutation;
use crate::tasks::Process;
use crate::world::World;
use bytes::Bytes;
use scheduler::engine::Event;
use shared::clock::Time;
use shared::domain::{ExecId, NodeId, RequestId};
use shared::wire::{BackendCredit, Cancel, Dispatch, Held, Resend, ToIngress, ToScheduler};
use std::collections::BTreeMap;
use std::time::Duration;
use uuid::Uuid;
use workers::simulated::{Spoken, Table, accept};

const HEARTBEAT: Duration = Duration::from_millis(500);

const HELD_EVERY: Duration = Duration::from_secs(1);

pub(crate) struct Worker {
    pub(crate) id: NodeId,
    pub(crate) alive: bool,
    pub(crate) stalled_until: Time,
    pub(crate) table: Table,
    pub(crate) calls: BTreeMap<u64, Call>,
    pub(crate) spoken: Spoken,
}

impl Worker {
    pub(crate) fn is_idle(&self) -> bool {
        self.table.executions() == 0 && self.calls.is_empty()
    }
}

impl World {
    pub(crate) fn add_worker(&mut self, name: &str) {
        let n = self.workers.len();
        let id = NodeId::parse(name).expect("a token");
        let (table, calls, spoken) = Default::default();
        self.workers.push(Worker { id, alive: true, stalled_until: Time::ZERO, table, calls, spoken });
        let after = self.rng.micros(0, 50_000);
        self.post(after, Happening::Beat(n));
        self.post(after + HELD_EVERY, Happening::Name(n));
    }

    fn living(&self) -> Vec<usize> {
        (0..self.workers.len()).filter(|n| self.workers[*n].alive).collect()
    }

    pub(crate) fn kill_worker(&mut self) {
        let living = self.living();
        if !living.is_empty() {
            let victim = living[self.rng.index(living.len())];
            self.stop(victim);
        }
    }

    pub(crate) fn stall_worker(&mut self) {
        let victim = self.rng.index(self.workers.len());
        let until = self.now + self.rng.millis(100, 8_000);
        let stalled = &mut self.workers[victim].stalled_until;
        *stalled = until.max(*stalled);
    }

    /// The process ends with all it had; another one comes up in its place.
    fn stop(&mut self, n: usize) {
        let worker = &mut self.workers[n];
        if worker.alive {
            worker.alive = false;
            (worker.table, worker.calls, worker.spoken) = Default::default();
            self.tasks.die(Process::Worker(n));
            let after = self.rng.millis(200, 8_000);
            self.post(after, Happening::Rise(n));
        }
    }

    /// Under its old name when the operator gave it one.
    fn rise(&mut self, n: usize) {
        let name = if self.rng.happens(500) { self.workers[n].id.to_string() } else { format!("worker-{}", self.workers.len()) };
        self.add_worker(&name);
    }

    pub(crate) fn drain_worker(&mut self) {
        let n = self.rng.index(self.workers.len());
        if self.workers[n].alive {
            self.workers[n].table.drain();
            self.announce_credit(n);
        }
    }

    pub(crate) fn end_drain(&mut self, n: usize) {
        if self.workers[n].table.is_draining() && self.workers[n].is_idle() {
            let id = self.workers[n].id.clone();
            self.tell_schedulers(Row::Heartbeat, &Event::WorkerLeft(id));
            self.stop(n);
        }
    }

    pub(crate) fn handle_worker(&mut self, happening: Happening) {
        let n = match &happening {
            Happening::Rise(n) => return self.rise(*n),
            Happening::ToWorker { worker, .. } | Happening::Resend { worker, .. } => {
                match self.workers.iter().position(|one| one.alive && one.id == *worker) {
                    Some(n) => n,
                    None => return,
                }
            }
            Happening::Begun { worker: n, .. }
            | Happening::Speak { worker: n, .. }
            | Happening::Ends { worker: n, .. }
            | Happening::Committed { worker: n, .. }
            | Happening::Cancelled { worker: n, .. }
            | Happening::IngressHeard { worker: n, .. }
            | Happening::Crash(n)
            | Happening::Beat(n)
            | Happening::Name(n)
            | Happening::Probed(n) => *n,
            _ => return,
        };
        if !self.workers[n].alive {
            return;
        }
        if let Some(idle) = self.postpones(Process::Worker(n)) {
            return self.post(idle, happening);
        }
        match happening {
            Happening::ToWorker { dispatch, body, .. } => self.dispatched(n, &dispatch, &body),
            Happening::Begun { call, over, .. } => self.begun(n, call, &over),
            Happening::Speak { call, turn, .. } => self.speak(n, call, turn),
            Happening::Ends { call, turn, .. } => self.end_turn(n, call, turn),
            Happening::Committed { call, .. } => self.committed(n, call),
            Happening::Cancelled { cancel, .. } => self.cancelled(n, &cancel),
            Happening::Resend { resend, .. } => self.resend(n, resend),
            Happening::IngressHeard { ingress, .. } => self.workers[n].table.ingress_seen(self.now, ingress),
            Happening::Crash(_) => self.stop(n),
            Happening::Beat(_) => self.beat(n),
            Happening::Name(_) => self.name(n),
            _ => self.announce_credit(n),
        }
    }

    fn dispatched(&mut self, n: usize, dispatch: &Dispatch, body: &Bytes) {
        let base = self.mint().as_u128() << 16;
        let backend = self.plan.backends.iter().position(|one| one.name == &*dispatch.backend).expect("a backend of this plan");
        let (now, concurrency) = (self.now, self.plan.backends[backend].concurrency * self.boast());
        let mut minted = base;
        let mint = || {
            minted += 1;
            ExecId(Uuid::from_u128(minted))
        };
        let accepted = accept(&mut self.workers[n].table, dispatch, body, concurrency, now, mint);
        let (worker, model, batch) = (self.workers[n].id.clone(), self.model.clone(), dispatch.batch);
        let message = match &accepted {
            Ok(_) => ToScheduler::Accept { worker, model, batch },
            Err(reason) => ToScheduler::Refuse { worker, model, batch, reason: *reason },
        };
        self.report(&dispatch.scheduler, &message);
        if let Some(jobs) = accepted.ok().filter(|jobs| !jobs.is_empty()) {
            self.take_on(n, backend, jobs);
        }
    }

    /// How many times what its backends take a worker believes that they do.
    fn boast(&self) -> u32 {
        if self.has(Mutation::CreditDoubled) { 2 } else { 1 }
    }

    pub(crate) fn report(&mut self, scheduler: &NodeId, message: &ToScheduler) {
        let to = || Happening::ToScheduler { scheduler: scheduler.clone(), message: message.clone(), body: Bytes::new() };
        self.send(Row::Report, to);
    }

    fn cancelled(&mut self, n: usize, cancel: &Cancel) {
        self.workers[n].table.cancel(self.now, &cancel.ids, cancel.exec);
        self.abandon(n);
    }

    fn resend(&mut self, n: usize, Resend { exec, from }: Resend) {
        for (ingress, reply, body) in self.workers[n].spoken.since(exec, from) {
            self.post_reply(&ingress, reply, &body);
        }
    }

    fn beat(&mut self, n: usize) {
        self.workers[n].table.cancel_orphans(self.now);
        self.abandon(n);
        self.announce_credit(n);
        self.post(HEARTBEAT, Happening::Beat(n));
        self.end_drain(n);
    }

    fn announce_credit(&mut self, n: usize) {
        let worker = &self.workers[n];
        let (is_draining, boast) = (worker.table.is_draining(), self.boast());
        let offer = |backend: &crate::backends::Backend| BackendCredit {
            name: backend.name.into(),
            concurrency: if is_draining { 0 } else { backend.concurrency * boast },
            tokens: 1 << 30,
            shared: backend.shared,
            rest_ms: 0,
        };
        let backends = self.plan.backends.iter().map(offer).collect();
        let mut running = worker.table.running(&self.model);
        running.sort_by_key(|run| run.id);
        let heartbeat = Event::Heartbeat { worker: worker.id.clone(), backends, running };
        self.tell_schedulers(Row::Heartbeat, &heartbeat);
    }

    fn name(&mut self, n: usize) {
        let (worker, before) = (&self.workers[n], self.now.saturating_sub(HELD_EVERY));
        let held: BTreeMap<NodeId, Vec<RequestId>> = worker.table.held(before).into_iter().collect();
        let from = worker.id.clone();
        for (ingress, mut ids) in held {
            ids.sort_unstable();
            let message = ToIngress::Held(Held { from: from.clone(), ids, passed: Vec::new() });
            self.send(Row::Held, || Happening::ToIngress { ingress: ingress.clone(), message: message.clone(), body: Bytes::new() });
        }
        self.workers[n].spoken.forget(self.now);
        self.post(HELD_EVERY, Happening::Name(n));
    }
}
