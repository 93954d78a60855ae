//! core: what a world is made of: its model, backends, tenants, processes, load and faults. A seed draws one.

use crate::faults::Faults;
use crate::rng::Rng;
use shared::clock::Time;
use shared::domain::{Lane, ModelKind, RequestId};
use std::rc::Rc;
use std::time::Duration;

/// How long load arrives and faults happen: several lease lives and interactive ack waits.
const TROUBLE: Time = Time::from_millis(9_000);

/// Requests of a drawn world: what its backends can answer soon after the trouble ends.
const REQUESTS_MAX: usize = 300;

/// Tokens that no backend runs out of.
const ROOMY: u32 = 1 << 30;

const NAMES: [&str; 4] = ["first", "second", "third", "fourth"];

/// Worlds of a thousand in which every backend but the first is down for a while.
const TRYING: u32 = 300;

/// One world in so many has no faults: there the service gap is measured, too.
const CALM_EVERY: u64 = 8;

/// What an ingress accepted.
#[derive(Debug)]
pub(crate) struct Spec {
    pub(crate) id: RequestId,
    pub(crate) traffic: usize,
    pub(crate) tenant: usize,
    pub(crate) lane: Lane,
    pub(crate) tokens_in: u32,
    pub(crate) tokens_out: u32,
    pub(crate) items: u32,
    pub(crate) longest: u32,
    pub(crate) bytes: usize,
    pub(crate) compat: u64,
    pub(crate) ingress: usize,
    pub(crate) deadline: Time,
    /// Its deadline lies beyond the end of the world: only an answer will do.
    pub(crate) patient: bool,
    pub(crate) stream: bool,
}

pub(crate) type Request = Rc<Spec>;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Backend {
    pub(crate) name: &'static str,
    pub(crate) concurrency: u32,
    pub(crate) tokens: u32,
    pub(crate) shared: bool,
    /// What a call costs before its first item or token,
    pub(crate) fixed: Duration,
    /// and for each input (array) or output token (sequence).
    pub(crate) per_unit: Duration,
    /// Every call that ends from then until then fails.
    pub(crate) down: Option<(Time, Time)>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// Bursts of up to so many requests at one ingress, so far apart on average.
    Bursts { size: u64, gap: Duration },
    /// So many callers, each of whom asks again so long after it has been answered.
    Callers { count: u64, think: (Duration, Duration) },
}

/// One kind of load.
#[derive(Clone, Debug)]
pub(crate) struct Traffic {
    pub(crate) pace: Pace,
    pub(crate) until: Time,
    /// Any of them.
    pub(crate) tenants: Vec<usize>,
    pub(crate) lanes: Vec<Lane>,
    pub(crate) tokens_in: (u64, u64),
    pub(crate) tokens_out: (u64, u64),
    pub(crate) items: (u64, u64),
    pub(crate) compats: u64,
    /// Of a thousand: those with a short deadline, those whose caller leaves, those that stream.
    pub(crate) hasty: u32,
    pub(crate) fickle: u32,
    pub(crate) streams: u32,
}

impl Traffic {
    /// Interactive single inputs of one tenant, all alike in kind.
    pub(crate) fn plain(pace: Pace, until: Time, tenant: usize, tokens_out: (u64, u64)) -> Self {
        Self {
            pace,
            until,
            tenants: vec![tenant],
            lanes: vec![Lane::Interactive],
            tokens_in: (20, 60),
            tokens_out,
            items: (1, 1),
            compats: 1,
            hasty: 0,
            fickle: 0,
            streams: 0,
        }
    }
}

/// How the quota answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quota {
    AtOnce,
    /// After a round trip; so many of a thousand are refused.
    Asked {
        refused: u32,
    },
}

#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) kind: ModelKind,
    pub(crate) max_items: u32,
    pub(crate) max_tokens: u32,
    pub(crate) padded: bool,
    /// What one array call should take at most.
    pub(crate) objective: Duration,
    /// By tenant.
    pub(crate) weights: Vec<u32>,
    pub(crate) backends: Vec<Backend>,
    pub(crate) schedulers: usize,
    pub(crate) workers: usize,
    pub(crate) ingresses: usize,
    /// Requests an owner holds.
    pub(crate) window: usize,
    pub(crate) quota: Quota,
    /// Calls of a thousand that fail.
    pub(crate) failing: u32,
    pub(crate) traffic: Vec<Traffic>,
    pub(crate) requests_max: usize,
    pub(crate) faults: Faults,
}

impl Plan {
    pub(crate) fn draw(seed: u64, rng: &mut Rng) -> Self {
        let kind = rng.pick(&[ModelKind::Array, ModelKind::Sequence]);
        let is_calm = seed.is_multiple_of(CALM_EVERY);
        let max_items = u32::try_from(rng.pick(&[1, 4, 16, 64])).expect("small");
        let is_trying = !is_calm && rng.happens(TRYING);
        let weights = (0..rng.between(1, 4)).map(|_| rng.pick(&[1, 1, 2, 5])).collect::<Vec<u32>>();
        Self {
            kind,
            max_items,
            max_tokens: rng.pick(&[200, 1_000, 20_000]),
            padded: rng.happens(500),
            objective: rng.millis(5, 200),
            backends: (0..rng.index(4) + 1).map(|n| backend(rng, kind, NAMES[n], is_trying && n > 0)).collect(),
            schedulers: rng.index(2) + 1,
            workers: rng.index(4) + 1,
            ingresses: rng.index(3) + 1,
            window: rng.pick(&[128, 8_192]),
            quota: rng.pick(&[Quota::AtOnce, Quota::AtOnce, Quota::Asked { refused: 0 }, Quota::Asked { refused: 30 }]),
            failing: rng.pick(&[0, 0, 50]),
            traffic: (0..rng.between(1, 3)).map(|_| traffic(rng, kind, max_items, weights.len(), is_calm)).collect(),
            weights,
            requests_max: REQUESTS_MAX,
            faults: if is_calm { Faults::none(TROUBLE) } else { Faults::draw(rng, TROUBLE) },
        }
    }

    /// Every request costs what it was estimated at, and nobody rides in batches of a lane or a kind that is not theirs:
    /// then service follows the order and nothing else.
    pub(crate) fn has_fair_order(&self) -> bool {
        let rides = |traffic: &Traffic| self.kind == ModelKind::Array && (traffic.compats > 1 || traffic.lanes.len() > 1);
        let is_exact = |traffic: &Traffic| traffic.hasty + traffic.fickle == 0 && !rides(traffic);
        self.faults.are_none() && !self.has_failures() && self.traffic.iter().all(is_exact)
    }

    /// Backends fail calls.
    pub(crate) fn has_failures(&self) -> bool {
        self.failing > 0 || self.backends.iter().any(|backend| backend.down.is_some())
    }

    pub(crate) fn is_roomy(&self) -> bool {
        self.backends.iter().all(|backend| backend.tokens >= ROOMY)
    }
}

fn backend(rng: &mut Rng, kind: ModelKind, name: &'static str, down: bool) -> Backend {
    let (concurrency, shared) = (u32::try_from(rng.between(1, 4)).expect("small"), rng.happens(500));
    let down =
        down.then(|| (rng.millis(0, 5_000), rng.millis(500, 9_000))).map(|(from, span)| (Time::ZERO + from, Time::ZERO + from + span));
    match kind {
        ModelKind::Array => {
            let (fixed, per_unit) = (rng.micros(1_000, 30_000), rng.micros(50, 1_000));
            Backend { name, concurrency, tokens: ROOMY, shared, fixed, per_unit, down }
        }
        ModelKind::Sequence => {
            let (tokens, fixed, per_unit) = (rng.pick(&[ROOMY, 300, 1_000]), rng.millis(1, 80), rng.micros(10, 2_000));
            Backend { name, concurrency: concurrency * 3, tokens, shared, fixed, per_unit, down }
        }
    }
}

fn traffic(rng: &mut Rng, kind: ModelKind, max_items: u32, tenants: usize, is_calm: bool) -> Traffic {
    let is_array = kind == ModelKind::Array;
    let lanes: [&[Lane]; 4] = [&[Lane::Interactive], &[Lane::Interactive], &Lane::ALL, &[Lane::Async, Lane::Bulk]];
    let pace = match rng.index(3) {
        0 => Pace::Callers { count: rng.between(1, 20), think: (Duration::ZERO, Duration::from_millis(500)) },
        _ => Pace::Bursts { size: rng.pick(&[1, 5, 40]), gap: rng.millis(100, 1_000) },
    };
    Traffic {
        pace,
        until: TROUBLE,
        tenants: (0..tenants).collect(),
        lanes: rng.pick(&lanes).to_vec(),
        tokens_in: (1, rng.pick(&[50, 300])),
        tokens_out: if is_array { (0, 0) } else { (1, rng.pick(&[20, 200])) },
        items: if is_array { (1, rng.pick(&[1, 1, 3, u64::from(max_items) * 2])) } else { (1, 1) },
        compats: rng.between(1, 3),
        hasty: if is_calm { 0 } else { rng.pick(&[0, 200]) },
        fickle: if is_calm { 0 } else { rng.pick(&[0, 100]) },
        streams: if is_array { 0 } else { rng.pick(&[0, 500]) },
    }
}
