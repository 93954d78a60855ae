//! core: a world: virtual time, an agenda of what is going to happen, and everybody it happens to. No threads, no clock, no chance but
//! the seed's.

use crate::audit::Audit;
use crate::batches::{Drive, Ordered};
use crate::faults::{Blow, Row};
use crate::happening::Happening;
use crate::ingresses::Ingress;
use crate::mutations::Mutation;
use crate::plan::{DAWN, Plan};
use crate::rng::Rng;
use crate::schedulers::Scheduler;
use crate::tasks::{Process, Tasks};
use crate::turns::{Turns, rests};
use crate::workers::Worker;
use shared::broker::Broker;
use shared::broker::memory::MemoryBroker;
use shared::clock::Time;
use shared::domain::{Lane, Token};
use shared::quota::memory::MemoryLedger;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;
use uuid::Uuid;

/// After the trouble every world must come to rest within this: two deferred ack waits, the sweeper's patience, the leases of
/// reservations and the backlog.
const REST_WITHIN: Duration = Duration::from_secs(150);

/// How soon whoever waits for something looks again.
const REST: Duration = Duration::from_millis(20);

/// A world that looks at rest is watched so long before it is judged, in seconds: what is owed by heartbeats must have come.
const REST_FOR: u32 = 4;

pub(crate) struct World {
    pub(crate) now: Time,
    pub(crate) plan: Plan,
    pub(crate) rng: Rng,
    pub(crate) clock: Arc<AtomicU64>,
    agenda: BTreeMap<(Time, u64), Happening>,
    serial: u64,
    pub(crate) tasks: Tasks,
    /// The broker itself, and as the roles reach it.
    pub(crate) stored: Arc<MemoryBroker>,
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) ledger: MemoryLedger,
    pub(crate) model: Token,
    pub(crate) schedulers: Vec<Scheduler>,
    pub(crate) workers: Vec<Worker>,
    pub(crate) ingresses: Vec<Ingress>,
    pub(crate) audit: Audit,
    pub(crate) batches: Vec<Ordered>,
    pub(crate) drives: BTreeMap<(usize, Token), Drive>,
    /// A request that kills its workers has been drawn: one of them is enough for a world.
    pub(crate) is_deadly: bool,
    planted: Option<Mutation>,
    is_told: bool,
}

impl World {
    /// `is_told`: everything that happens is written to standard error.
    pub(crate) fn new(plan: Plan, rng: Rng, planted: Option<Mutation>, is_told: bool) -> Self {
        let clock = Arc::new(AtomicU64::new(DAWN.as_micros()));
        let stored = MemoryBroker::told(Arc::clone(&clock));
        let unix = Arc::clone(&clock);
        let mut world = Self {
            now: DAWN,
            plan,
            rng,
            agenda: BTreeMap::new(),
            serial: 0,
            tasks: Tasks::default(),
            broker: Arc::new(Turns::new(Arc::clone(&stored), Arc::clone(&clock))),
            audit: Audit::new(&stored),
            stored,
            clock,
            ledger: MemoryLedger::with_clock(Arc::new(move || unix.load(Ordering::Relaxed) / 1_000)),
            model: Token::of_model(crate::plan::MODEL),
            schedulers: Vec::new(),
            workers: Vec::new(),
            ingresses: Vec::new(),
            batches: Vec::new(),
            drives: BTreeMap::new(),
            is_deadly: false,
            planted,
            is_told,
        };
        world.populate();
        world
    }

    fn populate(&mut self) {
        (0..self.plan.ingresses).for_each(|_| self.add_ingress());
        (0..self.plan.workers).for_each(|n| self.add_worker(&format!("worker-{n}")));
        (0..self.plan.schedulers).for_each(|_| self.add_scheduler());
        for (at, blow) in self.plan.faults.blows.clone() {
            self.post(at.since(self.now), Happening::Blow(blow));
        }
        for n in 0..self.plan.traffic.len() {
            let after = self.rng.micros(0, 1_000);
            self.post(after, Happening::Arrive(n));
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
            self.clock.store(at.as_micros(), Ordering::Relaxed);
            self.tell(&happening);
            self.handle(happening);
            if self.now >= look_at {
                look_at = self.now + Duration::from_secs(1);
                self.audit.check_due(self.now, self.plan.faults.until);
                rested = if self.is_at_rest() { rested + 1 } else { 0 };
                if rested == REST_FOR {
                    return self.judge();
                }
                assert!(self.now.since(self.plan.faults.until) < REST_WITHIN, "never at rest: {}", self.remains());
            }
        }
    }

    /// When it came to its end, and how much had happened.
    pub(crate) const fn signature(&self) -> (Time, u64) {
        (self.now, self.serial)
    }

    fn handle(&mut self, happening: Happening) {
        match happening {
            Happening::Turn(task) => self.turn(task),
            Happening::Blow(blow) => self.strike(blow),
            Happening::Ack(token) => self.at_once(|broker| Box::pin(async move { broker.ack(&token).await })),
            Happening::Renew(token) => self.at_once(|broker| Box::pin(async move { broker.renew(&token).await })),
            Happening::Nak(token, delay) => self.at_once(|broker| Box::pin(async move { broker.nak(&token, delay).await })),
            Happening::Arrive(_)
            | Happening::Publish { .. }
            | Happening::PublishAgain { .. }
            | Happening::Stored { .. }
            | Happening::Leave { .. }
            | Happening::Pulse(_)
            | Happening::ToIngress { .. } => self.handle_ingress(happening),
            Happening::Submit { .. }
            | Happening::Submitted { .. }
            | Happening::CancelJob(_)
            | Happening::CalledOff { .. }
            | Happening::Sweep(_)
            | Happening::Nothing => self.handle_job(happening),
            Happening::Drive(_)
            | Happening::Driving { .. }
            | Happening::KeepDriving { .. }
            | Happening::Renewed { .. }
            | Happening::Driven { .. }
            | Happening::CancelBatch(_) => self.handle_batch(happening),
            Happening::Round(_)
            | Happening::Tenure { .. }
            | Happening::Announce { .. }
            | Happening::Pull { .. }
            | Happening::Pulled { .. }
            | Happening::ToScheduler { .. }
            | Happening::Hear { .. }
            | Happening::Step(_)
            | Happening::Recorded { .. } => self.handle_scheduler(happening),
            _ => self.handle_worker(happening),
        }
    }

    /// What the broker does as soon as it hears of it.
    fn at_once<T>(&self, call: impl FnOnce(Arc<MemoryBroker>) -> futures::future::LocalBoxFuture<'static, T>) {
        use futures::FutureExt;
        drop(call(Arc::clone(&self.stored)).now_or_never().expect("the broker waits for nobody"));
    }

    fn turn(&mut self, task: u64) {
        let Some(of) = self.tasks.of(task) else { return };
        let idle = self.stalled_until(of).since(self.now);
        if !idle.is_zero() {
            return self.post(idle, Happening::Turn(task));
        }
        let turned = self.tasks.turn(task);
        self.audit.follow(self.now);
        match turned {
            Poll::Ready(happening) => self.handle(happening),
            Poll::Pending => {
                let delay = if rests() { REST } else { self.plan.faults.delay(&mut self.rng, self.now) };
                self.post(delay, Happening::Turn(task));
            }
        }
        self.call_off_rows();
    }

    /// Lets a process begin something at the broker. What it ends with happens to the process.
    pub(crate) fn begin(&mut self, of: Process, doing: impl Future<Output = Happening> + 'static) -> u64 {
        let task = self.tasks.begin(of, Box::pin(doing));
        self.post(Duration::ZERO, Happening::Turn(task));
        task
    }

    fn strike(&mut self, blow: Blow) {
        match blow {
            Blow::KillScheduler => self.kill_scheduler(),
            Blow::StallScheduler => self.stall_scheduler(),
            Blow::Surrender => self.surrender(),
            Blow::StealLease => self.steal_lease(),
            Blow::KillWorker => self.kill_worker(),
            Blow::StallWorker => self.stall_worker(),
            Blow::DrainWorker => self.drain_worker(),
            Blow::KillIngress => self.kill_ingress(),
            Blow::StallIngress => self.stall_ingress(),
            Blow::LoseStream => self.stored.lose_stream(Lane::Interactive),
            Blow::LoseTail(lane) => {
                let frames = self.rng.between(1, 4);
                self.stored.lose_tail(lane, frames);
            }
            Blow::ForgetIds => Lane::ALL.into_iter().for_each(|lane| self.stored.forget_ids(lane)),
        }
    }

    fn stalled_until(&self, process: Process) -> Time {
        match process {
            Process::Ingress(n) => self.ingresses[n].stalled_until,
            Process::Scheduler(n) => self.schedulers[n].stalled_until,
            Process::Worker(n) => self.workers[n].stalled_until,
        }
    }

    /// Whether a process does nothing now; what happens to it then happens later.
    pub(crate) fn postpones(&self, process: Process) -> Option<Duration> {
        let idle = self.stalled_until(process).since(self.now);
        (!idle.is_zero()).then_some(idle)
    }

    pub(crate) fn post(&mut self, after: Duration, happening: Happening) {
        self.serial += 1;
        self.agenda.insert((self.now + after, self.serial), happening);
    }

    /// Sends a message, which may be lost, late, or come twice. `again` makes it once more.
    pub(crate) fn send(&mut self, row: Row, message: impl Fn() -> Happening) {
        if self.plan.faults.loses(&mut self.rng, self.now, row) {
            return;
        }
        let copies = if self.plan.faults.doubles(&mut self.rng, self.now) { 2 } else { 1 };
        for _ in 0..copies {
            let delay = self.plan.faults.delay(&mut self.rng, self.now);
            self.post(delay, message());
        }
    }

    pub(crate) fn mint(&mut self) -> Uuid {
        self.serial += 1;
        Uuid::from_u128(u128::from(self.serial))
    }

    /// Whether this world has that bug.
    pub(crate) fn has(&self, bug: Mutation) -> bool {
        self.planted == Some(bug)
    }

    /// Milliseconds since 1970, as everybody's clock has them.
    pub(crate) const fn unix_ms(&self) -> u64 {
        self.now.as_micros() / 1_000
    }

    fn is_at_rest(&self) -> bool {
        self.audit.is_settled()
            && Lane::ALL.into_iter().all(|lane| self.stored.stored(lane) == 0)
            && self.workers.iter().all(Worker::is_idle)
            && self.schedulers.iter().all(Scheduler::is_empty)
            && self.open_reservations() == 0
            && self.ingresses.iter().all(|ingress| self.now >= ingress.stalled_until)
    }

    fn open_reservations(&self) -> u64 {
        (0..self.plan.quotas.len()).map(|n| self.ledger.look(&tenant(n), &[]).tenant.open).sum()
    }

    fn remains(&self) -> String {
        let frames = Lane::ALL.map(|lane| self.stored.stored(lane));
        let owners: Vec<String> = self.schedulers.iter().filter_map(Scheduler::describe).collect();
        let busy = self.workers.iter().filter(|worker| !worker.is_idle()).count();
        let reserved = self.open_reservations();
        format!("{}, frames {frames:?}, busy workers {busy}, reserved {reserved}, owners {owners:?}", self.audit.remains())
    }

    fn judge(&self) {
        self.audit.judge_batches(&self.stored, &self.plan);
        self.audit.judge(&self.plan, |ingress| self.ingresses[ingress].alive);
        assert!(self.ingresses.iter().all(Ingress::is_empty), "an ingress waits for what has ended");
    }

    fn tell(&self, happening: &Happening) {
        if self.is_told && !matches!(happening, Happening::Turn(_)) {
            eprintln!("{:>10} {happening:?}", self.now.as_micros());
        }
    }
}

pub(crate) fn tenant(n: usize) -> String {
    format!("tenant-{n}")
}
