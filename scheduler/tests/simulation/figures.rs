//! The figures that fair share and batching are for, in worlds without faults.

use crate::faults::Faults;
use crate::plan::{Backend, Pace, Plan, Quota, Traffic};
use crate::rng::Rng;
use crate::world::{Outcome, World};
use shared::clock::Time;
use shared::domain::ModelKind;
use std::time::Duration;

pub(crate) const LOAD: Time = Time::from_millis(3_000);

pub(crate) const ARRAY: Backend = Backend {
    name: "only",
    concurrency: 1,
    tokens: 1 << 30,
    shared: true,
    fixed: Duration::from_millis(5),
    per_unit: Duration::from_micros(150),
    down: None,
};

/// 64 calls at once of a fifth of a second each: 320 requests a second.
pub(crate) const SEQUENCE: Backend = Backend {
    name: "only",
    concurrency: 64,
    tokens: 1 << 30,
    shared: true,
    fixed: Duration::from_millis(50),
    per_unit: Duration::from_millis(1),
    down: None,
};

pub(crate) fn plan(kind: ModelKind, backend: Backend, traffic: Vec<Traffic>) -> Plan {
    Plan {
        kind,
        max_items: 64,
        max_tokens: 16_384,
        padded: false,
        objective: Duration::from_millis(200),
        weights: vec![1, 1],
        backends: vec![backend],
        schedulers: 1,
        workers: 1,
        ingresses: 2,
        window: 8_192,
        quota: Quota::AtOnce,
        failing: 0,
        traffic,
        requests_max: usize::MAX,
        faults: Faults::none(LOAD),
    }
}

pub(crate) fn live(plan: Plan) -> World {
    let mut world = World::new(plan, Rng::new(1), false);
    world.run();
    world
}

/// The 95th percentile of a tenant's latency, among requests that came after the first half second.
fn p95(world: &World, tenant: usize) -> Duration {
    let settled = world.records.values().filter(|r| r.request.tenant == tenant && r.arrived > Time::from_millis(500));
    let mut latencies: Vec<Duration> = settled
        .map(|record| match record.outcome {
            Some((Outcome::Answered, at)) => at.since(record.arrived),
            other => panic!("{other:?} in a world without faults"),
        })
        .collect();
    latencies.sort();
    assert!(latencies.len() >= 50, "{} requests say too little", latencies.len());
    latencies[latencies.len() * 95 / 100]
}

/// A tenant alone, and beside another that sends 50 times as much: its p95 in each world.
fn beside_a_loud_one(kind: ModelKind, backend: Backend, quiet_every: Duration, tokens_out: (u64, u64)) -> (Duration, Duration) {
    let of = |tenant, gap| Traffic::plain(Pace::Bursts { size: 1, gap }, LOAD, tenant, tokens_out);
    let alone = live(plan(kind, backend, vec![of(0, quiet_every)]));
    let beside = live(plan(kind, backend, vec![of(0, quiet_every), of(1, quiet_every / 50)]));
    (p95(&alone, 0), p95(&beside, 0))
}

/// 100 requests a second beside 5,000, which is more than the backend's 4,380.
#[test]
fn a_quiet_tenant_waits_two_batches_at_most_beside_one_that_overloads_an_array_backend() {
    let (alone, beside) = beside_a_loud_one(ModelKind::Array, ARRAY, Duration::from_millis(10), (0, 0));
    let batch = ARRAY.fixed + ARRAY.per_unit * 64;
    eprintln!("array backend: p95 {alone:?} alone, {beside:?} beside 50 times the load (two full batches: {:?})", batch * 2);
    assert!(beside <= alone + batch * 2);
}

/// 4 requests a second beside 200, of the 320 that the backend takes.
#[test]
fn a_quiet_tenant_feels_little_of_a_loud_one_on_a_sequence_backend_with_headroom() {
    let (alone, beside) = beside_a_loud_one(ModelKind::Sequence, SEQUENCE, Duration::from_millis(40), (100, 200));
    eprintln!("sequence backend: p95 {alone:?} alone, {beside:?} beside 50 times the load");
    assert!(beside <= alone.mul_f64(1.3));
}

fn callers(count: u64, think: Duration) -> World {
    let traffic = Traffic::plain(Pace::Callers { count, think: (Duration::ZERO, think) }, LOAD, 0, (0, 0));
    live(plan(ModelKind::Array, ARRAY, vec![traffic]))
}

#[test]
fn sixty_four_callers_in_a_loop_fill_their_batches() {
    let world = callers(64, Duration::from_micros(300));
    let settled: Vec<usize> =
        world.batches.iter().filter(|(at, _)| (Time::from_millis(1_000)..LOAD).contains(at)).map(|(_, size)| *size).collect();
    let mean = settled.iter().sum::<usize>() as f64 / settled.len() as f64;
    eprintln!("64 callers: {mean:.1} requests in a batch, {} batches in 2 s", settled.len());
    assert!(mean >= 58.0);
}

/// Its latency is the call's and the messages', a fifth of a millisecond each at most, and nothing else.
#[test]
fn a_lone_caller_never_waits_for_company() {
    let world = callers(1, Duration::from_millis(3));
    let slowest = world.records.values().filter(|r| r.arrived > Time::from_millis(500));
    let slowest = slowest.map(|r| r.outcome.expect("answered").1.since(r.arrived)).max().expect("some came");
    eprintln!("a lone caller: {slowest:?} at most");
    assert!(slowest <= ARRAY.fixed + ARRAY.per_unit + Duration::from_micros(5 * 200 + 20));
}
