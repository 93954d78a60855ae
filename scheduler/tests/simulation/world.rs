//! core: a world: virtual time, an agenda of what is going to happen, and everybody it happens to. No threads, no
//! clock, no chance but the seed's.

use crate::faults::{Blow, Row};
use crate::ingresses::{Ingress, Reply};
use crate::lane::WorkQueue;
use crate::owner::Input;
use crate::plan::{Pace, Plan, Request};
use crate::rng::Rng;
use crate::schedulers::{Lease, Scheduler};
use crate::workers::{Dispatch, Worker};
use scheduler::engine::FrameKey;
use shared::broker::ack_wait;
use shared::clock::Time;
use shared::domain::{ExecId, Lane, NodeId, RequestId};
use std::collections::BTreeMap;
use std::time::Duration;
use uuid::Uuid;

/// After the trouble, every world must come to rest within this: two deferred ack waits, the leases and the backlog.
const REST_WITHIN: Duration = Duration::from_secs(120);

/// A world that looks at rest is watched so long before it is judged: what is owed by heartbeats must have come.
const REST_FOR: u32 = 4;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Answered,
    /// The backend's failure, passed on.
    Failed,
    Expired,
    /// The quota's word.
    Refused,
    /// Its workers died, again and again.
    Poisoned,
    /// Its caller left.
    Left,
    /// A stream that had begun ended with an error event.
    Cut,
    /// Published again too often.
    Lost,
    /// Its ingress died, and nobody waits for it.
    Orphaned,
}

#[derive(Debug)]
pub(crate) enum Happening {
    Arrive(usize),
    Publish { ingress: usize, message: u64 },
    PublishAgain { ingress: usize, message: u64 },
    Stored { ingress: usize, message: u64, at: (u64, u64) },
    Leave { ingress: usize, id: RequestId, outcome: Outcome },
    Pulse(usize),
    Reply { ingress: usize, reply: Reply },
    Held { ingress: usize, ids: Vec<RequestId>, passed: Option<(u64, u64)> },
    Round(usize),
    Announce { scheduler: usize, revision: u64 },
    Pull { scheduler: usize, lane: Lane },
    Mail { scheduler: usize, input: Input },
    Step(usize),
    Dispatched { worker: NodeId, dispatch: Dispatch },
    CallSpeaks { worker: usize, call: u64 },
    CallEnds { worker: usize, call: u64 },
    Recorded { worker: usize, life: u32, id: RequestId, exec: ExecId },
    Beat { worker: usize, life: u32 },
    Name { worker: usize, life: u32 },
    Rise(usize),
    Cancelled { worker: usize, id: RequestId, exec: Option<ExecId> },
    IngressHeard { worker: usize, ingress: usize },
    Probed(usize),
    Ack(FrameKey),
    Renew(FrameKey),
    Nak(FrameKey, Duration),
    Due(Lane),
    Blow(Blow),
}

/// What became of one request.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) request: Request,
    pub(crate) arrived: Time,
    /// The broker's word has reached a living ingress.
    pub(crate) is_stored: bool,
    pub(crate) outcome: Option<(Outcome, Time)>,
}

impl Record {
    /// Its outcome is in the results: whoever left has only cancelled.
    pub(crate) fn is_settled(&self) -> bool {
        self.outcome.is_some_and(|(outcome, _)| outcome != Outcome::Left)
    }
}

pub(crate) struct World {
    pub(crate) now: Time,
    pub(crate) plan: Plan,
    pub(crate) rng: Rng,
    agenda: BTreeMap<(Time, u64), Happening>,
    serial: u64,
    pub(crate) lanes: [WorkQueue; 3],
    pub(crate) lease: Lease,
    pub(crate) schedulers: Vec<Scheduler>,
    pub(crate) workers: Vec<Worker>,
    pub(crate) ingresses: Vec<Ingress>,
    pub(crate) records: BTreeMap<RequestId, Record>,
    /// Requests that their ingress took for lost.
    pub(crate) republished: usize,
    /// Requests of each dispatched batch, and when it went out.
    pub(crate) batches: Vec<(Time, usize)>,
    is_told: bool,
}

impl World {
    /// `is_told`: everything that happens is written to standard error.
    pub(crate) fn new(plan: Plan, rng: Rng, is_told: bool) -> Self {
        let mut world = Self {
            now: Time::ZERO,
            agenda: BTreeMap::new(),
            serial: 0,
            lanes: Lane::ALL.map(WorkQueue::new),
            lease: Lease::default(),
            schedulers: Vec::new(),
            workers: Vec::new(),
            ingresses: Vec::new(),
            records: BTreeMap::new(),
            republished: 0,
            batches: Vec::new(),
            plan,
            rng,
            is_told,
        };
        world.populate();
        world
    }

    fn populate(&mut self) {
        (0..self.plan.ingresses).for_each(|_| self.add_ingress());
        (0..self.plan.workers).for_each(|_| self.add_worker());
        (0..self.plan.schedulers).for_each(|_| self.add_scheduler());
        for (at, blow) in self.plan.faults.blows.clone() {
            self.post(at.since(Time::ZERO), Happening::Blow(blow));
        }
        for n in 0..self.plan.traffic.len() {
            let arrivals = match self.plan.traffic[n].pace {
                Pace::Bursts { .. } => 1,
                Pace::Callers { count, .. } => count,
            };
            for _ in 0..arrivals {
                let after = self.rng.micros(0, 1_000);
                self.post(after, Happening::Arrive(n));
            }
        }
    }

    /// Lets everything happen until the world is at rest, and judges it.
    ///
    /// # Panics
    /// When an invariant does not hold.
    pub(crate) fn run(&mut self) {
        let mut rested = 0;
        let mut look_at = self.plan.faults.until;
        while let Some(((at, _), happening)) = self.agenda.pop_first() {
            self.now = at;
            self.tell(&happening);
            self.handle(happening);
            if self.now >= look_at {
                look_at = self.now + Duration::from_secs(1);
                rested = if self.is_at_rest() { rested + 1 } else { 0 };
                if rested == REST_FOR {
                    return self.judge();
                }
                assert!(self.now.since(self.plan.faults.until) < REST_WITHIN, "never at rest: {}", self.remains());
            }
        }
    }

    fn handle(&mut self, happening: Happening) {
        match happening {
            Happening::Arrive(traffic) => self.arrive(traffic),
            Happening::Publish { ingress, message } => self.store(ingress, message),
            Happening::PublishAgain { ingress, message } => self.publish(ingress, message),
            Happening::Stored { ingress, message, at } => self.stored(ingress, message, at),
            Happening::Leave { ingress, id, outcome } => self.leave(ingress, id, outcome),
            Happening::Pulse(ingress) => self.pulse(ingress),
            Happening::Reply { ingress, reply } => self.hear(ingress, &reply),
            Happening::Held { ingress, ids, passed } => self.named(ingress, &ids, passed),
            Happening::Blow(blow) => self.strike(blow),
            Happening::Ack(key) => self.lanes[key.lane.index()].ack(key),
            Happening::Renew(key) => self.reschedule(key, ack_wait(key.lane)),
            Happening::Nak(key, delay) => self.reschedule(key, delay),
            Happening::Due(lane) => self.ring(lane),
            Happening::Round(_) | Happening::Announce { .. } | Happening::Pull { .. } | Happening::Mail { .. } | Happening::Step(_) => {
                self.handle_scheduler(happening)
            }
            _ => self.handle_worker(happening),
        }
    }

    fn reschedule(&mut self, key: FrameKey, wait: Duration) {
        self.lanes[key.lane.index()].reschedule(key, self.now + wait);
        self.post(wait, Happening::Due(key.lane));
    }

    fn strike(&mut self, blow: Blow) {
        match blow {
            Blow::KillScheduler => self.kill_scheduler(),
            Blow::StallScheduler => self.stall_scheduler(),
            Blow::Surrender => self.surrender(),
            Blow::KillWorker => self.kill_worker(),
            Blow::DrainWorker => self.drain_worker(),
            Blow::KillIngress => self.kill_ingress(),
            Blow::LoseStream => self.lose_stream(),
        }
    }

    pub(crate) fn post(&mut self, after: Duration, happening: Happening) {
        self.serial += 1;
        self.agenda.insert((self.now + after, self.serial), happening);
    }

    /// Sends a message, which may be lost or late.
    pub(crate) fn send(&mut self, row: Row, happening: Happening) {
        if self.plan.faults.loses(&mut self.rng, self.now, row) {
            return;
        }
        let delay = self.plan.faults.delay(&mut self.rng, self.now);
        self.post(delay, happening);
    }

    pub(crate) fn mint(&mut self) -> Uuid {
        self.serial += 1;
        Uuid::from_u128(u128::from(self.serial))
    }

    /// The one end of an interactive request.
    pub(crate) fn end(&mut self, id: RequestId, outcome: Outcome) {
        let record = self.records.get_mut(&id).expect("only what arrived ends");
        assert!(record.outcome.is_none(), "{id} ends twice: {:?}, {outcome:?}", record.outcome);
        record.outcome = Some((outcome, self.now));
        let traffic = record.request.traffic;
        self.ask_again(traffic);
    }

    /// The end of a deferred request: the first writer wins.
    pub(crate) fn commit(&mut self, id: RequestId, outcome: Outcome) {
        if self.records[&id].outcome.is_none() {
            self.end(id, outcome);
        }
    }

    fn ask_again(&mut self, traffic: usize) {
        if let Pace::Callers { think: (least, most), .. } = self.plan.traffic[traffic].pace {
            let think = self.rng.micros(least.as_micros() as u64, most.as_micros() as u64);
            self.post(think, Happening::Arrive(traffic));
        }
    }

    fn is_at_rest(&self) -> bool {
        self.records.values().all(|record| record.outcome.is_some())
            && self.lanes.iter().all(|lane| lane.len() == 0)
            && self.workers.iter().all(Worker::is_idle)
            && self.schedulers.iter().all(Scheduler::is_empty)
    }

    fn remains(&self) -> String {
        let open: Vec<_> = self.records.values().filter(|r| r.outcome.is_none()).map(|r| &r.request).take(3).collect();
        let frames = self.lanes.each_ref().map(WorkQueue::len);
        let owners: Vec<String> = self.schedulers.iter().filter_map(Scheduler::describe).collect();
        let busy = self.workers.iter().filter(|worker| !worker.is_idle()).count();
        format!("requests {open:?}, frames {frames:?}, busy workers {busy}, owners {owners:?}")
    }

    fn judge(&self) {
        assert!(self.republished == 0 || !self.plan.faults.are_none(), "{} requests are taken for lost, and nothing was", self.republished);
        for record in self.records.values() {
            let (outcome, _) = record.outcome.expect("a world at rest has no open request");
            assert!(self.is_fair_end(&record.request, outcome), "{outcome:?} is no end for {:?}", record.request);
        }
    }

    fn is_fair_end(&self, request: &Request, outcome: Outcome) -> bool {
        match outcome {
            Outcome::Answered => true,
            Outcome::Failed => self.plan.has_failures(),
            Outcome::Expired => !request.patient,
            Outcome::Refused => self.plan.quota != crate::plan::Quota::AtOnce && !request.lane.is_deferred(),
            Outcome::Poisoned => request.lane.is_deferred() && !self.plan.faults.are_none(),
            Outcome::Left => self.plan.traffic[request.traffic].fickle > 0,
            Outcome::Cut => request.stream && !self.plan.faults.are_none(),
            Outcome::Orphaned => !self.ingresses[request.ingress].alive,
            Outcome::Lost => false,
        }
    }

    fn tell(&self, happening: &Happening) {
        if self.is_told {
            eprintln!("{:>10} {happening:?}", self.now.as_micros());
        }
    }
}
