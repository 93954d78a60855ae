//! What lanes and tenants get of a model when more is asked for than it can do, and what interactive callers feel of it.

use crate::faults::Faults;
use crate::figures::{ARRAY, SEQUENCE, live, plan};
use crate::plan::{Backend, Pace, Plan, Traffic};
use crate::world::{Outcome, World};
use shared::clock::Time;
use shared::domain::{Lane, ModelKind};
use std::time::Duration;

const LOAD: Time = Time::from_millis(20_000);

/// From here on everybody has work waiting, or is known to come.
const SETTLED: Time = Time::from_millis(4_000);

/// Callers of one tenant in one lane, more than any share of the model serves at once.
const BACKLOG: u64 = 120;

/// A full call takes 58 ms.
const SLOW: Backend = Backend { fixed: Duration::from_millis(20), per_unit: Duration::from_micros(600), ..ARRAY };

fn backlog(lane: Lane, tenant: usize, tokens_out: (u64, u64)) -> Traffic {
    let pace = Pace::Callers { count: BACKLOG, think: (Duration::ZERO, Duration::ZERO) };
    Traffic { lanes: vec![lane], ..Traffic::plain(pace, LOAD, tenant, tokens_out) }
}

fn stream(gap: Duration, tokens_out: (u64, u64)) -> Traffic {
    Traffic::plain(Pace::Bursts { size: 1, gap }, LOAD, 0, tokens_out)
}

fn world(kind: ModelKind, backend: Backend, traffic: Vec<Traffic>) -> World {
    live(Plan { weights: vec![1, 2], faults: Faults::none(LOAD), ..plan(kind, backend, traffic) })
}

/// Tokens of what was answered between the two, by lane.
fn served(world: &World, (from, to): (Time, Time), is_counted: impl Fn(usize) -> bool) -> [f64; 3] {
    let mut tokens = [0.0; 3];
    for record in world.records.values() {
        if let Some((Outcome::Answered, at)) = record.outcome
            && (from..to).contains(&at)
            && is_counted(record.request.tenant)
        {
            tokens[record.request.lane.index()] += f64::from(record.request.tokens_in + 2 * record.request.tokens_out);
        }
    }
    tokens
}

fn assert_near(part: f64, due: f64, what: &str) {
    assert!((part / due - 1.0).abs() <= 0.1, "{what}: {part:.4}, of {due:.4}");
}

/// The part of each lane while all wait, and of the tenants in each: an array backend knows no ceilings.
#[test]
fn lanes_share_16_to_4_to_1_and_tenants_by_weight() {
    let traffic = Lane::ALL.into_iter().flat_map(|lane| [0, 1].map(|tenant| backlog(lane, tenant, (0, 0)))).collect();
    let world = world(ModelKind::Array, SLOW, traffic);
    let window = (SETTLED, LOAD);
    let (all, first) = (served(&world, window, |_| true), served(&world, window, |tenant| tenant == 0));
    let sum: f64 = all.iter().sum();
    for (lane, due) in [(Lane::Interactive, 16.0 / 21.0), (Lane::Async, 4.0 / 21.0), (Lane::Bulk, 0.05)] {
        eprintln!(
            "{lane:?}: {:.4} of the tokens, {:.4} of them the lighter tenant's",
            all[lane.index()] / sum,
            first[lane.index()] / all[lane.index()]
        );
        assert_near(all[lane.index()] / sum, due, lane.as_str());
        assert_near(first[lane.index()] / all[lane.index()], 1.0 / 3.0, "the lighter tenant's part");
    }
}

/// Interactive work alone would fill the backend: ceilings would leave the others nothing.
#[test]
fn floors_hold_in_any_ten_seconds_on_a_saturated_sequence_backend() {
    let world = world(ModelKind::Sequence, SEQUENCE, Lane::ALL.map(|lane| backlog(lane, 0, (100, 200))).to_vec());
    for from in (4_000..=10_000).step_by(1_000).map(Time::from_millis) {
        let had = served(&world, (from, from + Duration::from_secs(10)), |_| true);
        let sum: f64 = had.iter().sum();
        let (of_async, of_bulk) = (had[1] / sum, had[2] / sum);
        assert!(of_async >= 0.095 && of_bulk >= 0.0475, "{of_async:.4} async and {of_bulk:.4} bulk from {from:?} on");
    }
}

/// Ages in the order of their latencies, of the interactive requests that came after things have settled.
fn latency(world: &World, percent: usize) -> Duration {
    let interactive = world.records.values().filter(|r| r.request.lane == Lane::Interactive && r.arrived > SETTLED);
    let mut latencies: Vec<Duration> = interactive.map(|r| r.outcome.expect("answered").1.since(r.arrived)).collect();
    latencies.sort();
    assert!(latencies.len() >= 100, "{} requests say too little", latencies.len());
    latencies[latencies.len() * percent / 100]
}

/// 60 requests a second of the 320 that the backend takes.
#[test]
fn bulk_at_full_load_costs_interactive_calls_of_a_sequence_model_little() {
    let calls = || stream(Duration::from_micros(16_667), (100, 200));
    let alone = world(ModelKind::Sequence, SEQUENCE, vec![calls()]);
    let beside =
        world(ModelKind::Sequence, SEQUENCE, vec![calls(), backlog(Lane::Bulk, 1, (100, 200)), backlog(Lane::Async, 1, (100, 200))]);
    for percent in [50, 99] {
        let (alone, beside) = (latency(&alone, percent), latency(&beside, percent));
        eprintln!("sequence backend: p{percent} {alone:?} alone, {beside:?} beside bulk and async at full load");
        assert!(beside <= alone.mul_f64(1.25), "p{percent}: {beside:?}, {alone:?} alone");
    }
}

/// 20 requests a second, each of which waits for the call that runs and goes with the next.
#[test]
fn bulk_at_full_load_costs_interactive_calls_of_an_array_model_two_batches_at_most() {
    let calls = || stream(Duration::from_millis(50), (0, 0));
    let alone = world(ModelKind::Array, SLOW, vec![calls()]);
    let beside = world(ModelKind::Array, SLOW, vec![calls(), backlog(Lane::Bulk, 1, (0, 0))]);
    let batch = SLOW.fixed + SLOW.per_unit * 64;
    let (p99_alone, p99) = (latency(&alone, 99), latency(&beside, 99));
    eprintln!("array backend: p99 {p99_alone:?} alone, {p99:?} beside bulk at full load; a full batch takes {batch:?}");
    assert!(p99 <= p99_alone + batch * 2);
    let (bound, had) =
        (64.0 / batch.as_secs_f64(), beside.batches.iter().filter(|(at, _)| (SETTLED..LOAD).contains(at)).map(|(_, n)| n).sum::<usize>());
    let rate = had as f64 / LOAD.since(SETTLED).as_secs_f64();
    eprintln!("array backend: {rate:.0} inputs a second, of {bound:.0} in full batches back to back");
    assert!(rate >= 0.9 * bound);
}

/// Without interactive work there is nothing to be kept free for.
#[test]
fn bulk_alone_fills_the_backends() {
    let world = world(ModelKind::Sequence, SEQUENCE, vec![backlog(Lane::Bulk, 0, (100, 200))]);
    let rate = served(&world, (SETTLED, LOAD), |_| true)[2] / LOAD.since(SETTLED).as_secs_f64();
    let bound = 64.0 * (40.0 + 300.0) / 0.2;
    assert!(rate >= 0.95 * bound, "{rate:.0} of {bound:.0} tokens a second");
}
