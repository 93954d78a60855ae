//! The whole system in simulated worlds: the real engine, the tables of ingress and worker, jobs, quota and the in-process
//! broker, under virtual time and with faults that a seed draws.
//!
//! `SIM_SEEDS=n` tries n seeds, `SIM_FROM=n` begins elsewhere, `SIM_SEED=n` lives only that one and tells all that happens in it.

mod arrivals;
mod audit;
mod backends;
mod batches;
mod books;
mod calls;
mod ends;
mod faults;
mod frames;
mod happening;
mod ingresses;
mod jobs;
mod mutations;
mod owner;
mod plan;
mod reader;
mod returns;
#[path = "../../scheduler/tests/simulation/rng.rs"]
mod rng;
mod schedulers;
mod settled;
mod spec;
mod tasks;
mod tries;
mod turns;
mod workers;
mod world;

use mutations::Mutation;
use plan::Plan;
use rng::Rng;
use shared::clock::Time;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use world::World;

/// Worlds of the usual run.
const SEEDS: u64 = 2_000;

/// Worlds of the long one.
const SEEDS_LONG: u64 = 200_000;

fn variable<T: FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

/// Lives one world through; returns what tells it from another.
fn live(seed: u64, planted: Option<Mutation>, is_told: bool) -> (Time, u64) {
    let mut rng = Rng::new(seed);
    let plan = Plan::draw(seed, &mut rng);
    if is_told {
        eprintln!("{plan:?}");
    }
    let mut world = World::new(plan, rng, planted, is_told);
    world.run();
    world.signature()
}

fn live_or_say_how_to_replay(seed: u64, is_told: bool) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| live(seed, None, is_told))) {
        eprintln!("replay with: SIM_SEED={seed} cargo test -p tidemill --test simulation every_world");
        resume_unwind(panic);
    }
}

fn live_all(seeds: u64) {
    if let Some(seed) = variable("SIM_SEED") {
        return live_or_say_how_to_replay(seed, true);
    }
    let from = variable("SIM_FROM").unwrap_or(0);
    let (next, failed) = (AtomicU64::new(from), AtomicBool::new(false));
    let work = || {
        while !failed.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= from + seeds {
                return;
            }
            let lived = catch_unwind(AssertUnwindSafe(|| live_or_say_how_to_replay(seed, false)));
            failed.fetch_or(lived.is_err(), Ordering::Relaxed);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    assert!(!failed.into_inner(), "a world came to a bad end");
}

/// Whatever is lost, late, doubled, killed, stalled or forgotten: nothing accepted is lost, nothing has two outcomes, nobody gets
/// another's answer, no limit is broken, and when the trouble ends everything comes to its end and nothing is left over.
#[test]
fn every_world_comes_to_a_good_end() {
    live_all(variable("SIM_SEEDS").unwrap_or(SEEDS));
}

#[test]
#[ignore = "a quarter of an hour"]
fn every_world_of_many_comes_to_a_good_end() {
    live_all(variable("SIM_SEEDS").unwrap_or(SEEDS_LONG));
}

#[test]
fn a_seed_replays() {
    for seed in 0..20 {
        assert_eq!(live(seed, None, false), live(seed, None, false), "seed {seed}");
    }
}
