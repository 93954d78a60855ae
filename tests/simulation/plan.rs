//! core: what a world is made of: its model, backends, tenants, processes, load and faults. A seed draws one.

use crate::backends::Backend;
use crate::faults::Faults;
use crate::rng::Rng;
use shared::clock::Time;
use shared::domain::{Lane, ModelKind, Operation};
use shared::quota::Quota;
use shared::wire::Fault;
use std::sync::Arc;
use std::time::Duration;

/// When a world begins: an epoch of zero would mean that there is no stream.
pub(crate) const DAWN: Time = Time::from_millis(1_000);

/// How long load arrives and faults happen: several lease lives and interactive ack waits.
const TROUBLE: Duration = Duration::from_secs(9);

/// Requests of a drawn world: what its backends can answer soon after the trouble ends.
const REQUESTS_MAX: usize = 120;

/// One world in so many has no faults: there nothing is taken for lost, and no backend sees more than it takes.
const CALM_EVERY: u64 = 8;

pub(crate) const MODEL: &str = "model";

/// One kind of load: bursts of up to so many requests at one ingress, so far apart on average.
#[derive(Clone, Debug)]
pub(crate) struct Traffic {
    pub(crate) size: u64,
    pub(crate) gap: Duration,
    pub(crate) lane: Lane,
    pub(crate) tokens_out: (u64, u64),
    pub(crate) compats: u64,
    /// Of a thousand: those with a short deadline, those whose caller leaves, those that stream.
    pub(crate) hasty: u32,
    pub(crate) fickle: u32,
    pub(crate) streams: u32,
}

#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) kind: ModelKind,
    pub(crate) max_items: u32,
    pub(crate) padded: bool,
    pub(crate) backends: Vec<Backend>,
    pub(crate) schedulers: usize,
    pub(crate) workers: usize,
    pub(crate) ingresses: usize,
    /// By tenant; the weights are 1, 2, ….
    pub(crate) quotas: Vec<Arc<Quota>>,
    /// Of a thousand requests: those that spoil every call they are in, and until there is one, those that kill every worker.
    pub(crate) guilty: u32,
    pub(crate) deadly: u32,
    /// How the calls of the guilty fail.
    pub(crate) spoils: Fault,
    pub(crate) traffic: Vec<Traffic>,
    pub(crate) requests_max: usize,
    pub(crate) faults: Faults,
}

impl Plan {
    pub(crate) fn draw(seed: u64, rng: &mut Rng) -> Self {
        let kind = rng.pick(&[ModelKind::Array, ModelKind::Sequence]);
        let is_calm = seed.is_multiple_of(CALM_EVERY);
        let until = DAWN + TROUBLE;
        Self {
            kind,
            max_items: rng.pick(&[1, 4, 16]),
            padded: rng.happens(500),
            backends: backends(rng, kind, until),
            schedulers: rng.index(2) + 1,
            workers: rng.index(3) + 1,
            ingresses: rng.index(3) + 1,
            quotas: (0..rng.index(3) + 1).map(|_| quota(rng)).collect(),
            guilty: rng.pick(&[0, 0, 50]),
            deadly: if is_calm { 0 } else { rng.pick(&[0, 0, 0, 10]) },
            spoils: rng.pick(&[Fault::Rejected, Fault::Rejected, Fault::Broken, Fault::ServerError, Fault::Malformed]),
            traffic: (0..rng.between(1, 4)).map(|_| traffic(rng, kind, is_calm)).collect(),
            requests_max: REQUESTS_MAX,
            faults: if is_calm { Faults::none(rng, until) } else { Faults::draw(rng, DAWN, until) },
        }
    }

    pub(crate) const fn op(&self) -> Operation {
        match self.kind {
            ModelKind::Array => Operation::Embeddings,
            ModelKind::Sequence => Operation::Chat,
        }
    }

    /// Calls fail for no item's fault.
    pub(crate) fn fails(&self) -> bool {
        self.backends.iter().any(Backend::fails)
    }

    pub(crate) fn has_limits(&self) -> bool {
        self.quotas.iter().any(|quota| !quota.is_unlimited())
    }
}

fn quota(rng: &mut Rng) -> Arc<Quota> {
    Arc::new(Quota { concurrency: rng.pick(&[None, None, Some(2), Some(8)]), ..Quota::default() })
}

/// Of which one may be away for a while.
fn backends(rng: &mut Rng, kind: ModelKind, until: Time) -> Vec<Backend> {
    let mut backends: Vec<Backend> = (0..rng.index(2) + 1).map(|n| Backend::draw(rng, kind, ["first", "second"][n])).collect();
    if rng.happens(300) {
        let victim = rng.index(backends.len());
        backends[victim].die(rng, until);
    }
    backends
}

fn traffic(rng: &mut Rng, kind: ModelKind, is_calm: bool) -> Traffic {
    let is_array = kind == ModelKind::Array;
    Traffic {
        size: rng.pick(&[1, 5, 20]),
        gap: rng.millis(100, 1_000),
        lane: rng.pick(&[Lane::Interactive, Lane::Interactive, Lane::Async, Lane::Async, Lane::Bulk]),
        tokens_out: if is_array { (0, 0) } else { (1, rng.pick(&[20, 200])) },
        compats: rng.between(1, 2),
        hasty: if is_calm { 0 } else { rng.pick(&[0, 200]) },
        fickle: if is_calm { 0 } else { rng.pick(&[0, 100]) },
        streams: if is_array { 0 } else { rng.pick(&[0, 500]) },
    }
}
