//! core: the backends of a world: how long a call takes there, and whether it fails.

use crate::plan::DAWN;
use crate::rng::Rng;
use crate::world::World;
use shared::clock::Time;
use shared::domain::ModelKind;
use shared::wire::Fault;
use std::time::Duration;
use workers::simulated::Job;

/// What befalls calls. Another try may cure it.
const FAULTS: [Fault; 9] = [
    Fault::Connect,
    Fault::Broken,
    Fault::RateLimited,
    Fault::Unavailable,
    Fault::ServerError,
    Fault::Timeout,
    Fault::Malformed,
    Fault::Missing,
    Fault::Denied,
];

/// What a server that has too much to do asks for: the last is more than a caller on the line waits.
const RETRY_AFTER_MS: [Option<u32>; 4] = [None, Some(50), Some(1_000), Some(4_000)];

/// How a call fails, if it does, and what of `Retry-After` is said.
pub(crate) type Fate = Option<(Fault, Option<u32>)>;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Backend {
    pub(crate) name: &'static str,
    pub(crate) concurrency: u32,
    pub(crate) shared: bool,
    /// What a call takes before its first item or token,
    fixed: Duration,
    /// and for each input (array) or output token (sequence).
    per_unit: Duration,
    /// Of a thousand calls that begin during the trouble: those that fail for no item's fault.
    failing: u32,
    /// Nobody is there from the one to the other.
    dead: (Time, Time),
}

impl Backend {
    pub(crate) fn draw(rng: &mut Rng, kind: ModelKind, name: &'static str) -> Self {
        let (concurrency, shared) = (u32::try_from(rng.between(1, 4)).expect("small"), rng.happens(500));
        let (failing, dead) = (rng.pick(&[0, 0, 0, 50, 300]), (DAWN, DAWN));
        let (concurrency, fixed, per_unit) = match kind {
            ModelKind::Array => (concurrency, rng.micros(1_000, 30_000), rng.micros(50, 1_000)),
            ModelKind::Sequence => (concurrency * 3, rng.millis(1, 80), rng.micros(10, 2_000)),
        };
        Self { name, concurrency, shared, fixed, per_unit, failing, dead }
    }

    /// It goes away for a while, and is back before `until`.
    pub(crate) fn die(&mut self, rng: &mut Rng, until: Time) {
        let from = rng.between(DAWN.as_micros(), until.as_micros());
        self.dead = (Time(from), Time(rng.between(from, until.as_micros())));
    }

    fn is_dead(&self, now: Time) -> bool {
        self.dead.0 <= now && now < self.dead.1
    }

    /// Some of its calls fail, whatever is in them.
    pub(crate) fn fails(&self) -> bool {
        self.failing > 0 || self.dead.0 < self.dead.1
    }

    fn takes(&self, units: u32, fault: Option<Fault>) -> Duration {
        let usual = self.fixed + self.per_unit * units;
        match fault {
            Some(Fault::Connect | Fault::RateLimited | Fault::Unavailable | Fault::Missing | Fault::Denied | Fault::Rejected) => self.fixed,
            Some(Fault::Timeout) => usual * 3,
            Some(Fault::Broken | Fault::ServerError | Fault::Malformed) | None => usual,
        }
    }
}

impl World {
    /// What a call that begins now comes to, and how long it takes.
    pub(crate) fn fate(&mut self, backend: usize, jobs: &[Job]) -> (Fate, Duration) {
        let (backend, now) = (self.plan.backends[backend], self.now);
        let fault = match () {
            () if backend.is_dead(now) => Some(Fault::Connect),
            () if jobs.iter().any(|job| self.audit.spec(job.id).guilty) => Some(self.plan.spoils),
            () if now < self.plan.faults.until && self.rng.happens(backend.failing) => Some(self.rng.pick(&FAULTS)),
            () => None,
        };
        let unit = |job: &Job| if self.plan.kind == ModelKind::Array { job.envelope.items } else { job.envelope.tokens_out };
        let took = backend.takes(jobs.iter().map(unit).sum(), fault);
        let retry_after_ms = self.rng.pick(&RETRY_AFTER_MS);
        let breaks = backend.dead.0 > now && backend.dead.0 <= now + took;
        let fault = fault.or(breaks.then_some(Fault::Broken));
        (fault.map(|fault| (fault, retry_after_ms)), took)
    }
}
