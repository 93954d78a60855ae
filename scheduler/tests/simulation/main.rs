//! The scheduler's engine in simulated worlds: virtual time, real decisions, lossy messages, and a seed for each world.
//!
//! `SIM_SEEDS=n` tries n seeds, `SIM_SEED=n` only that one, and tells all that happens in it.

mod audit;
mod books;
mod faults;
mod figures;
mod gap;
mod ingresses;
mod lane;
mod owner;
mod plan;
mod rng;
mod schedulers;
mod shares;
mod sweep;
mod tries;
mod workers;
mod world;

use plan::Plan;
use rng::Rng;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use world::World;

const SEEDS: u64 = 2_000;

fn variable<T: FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

/// Lives one world through; returns what tells it from another.
fn live(seed: u64, is_told: bool) -> (shared::clock::Time, usize) {
    let mut rng = Rng::new(seed);
    let plan = Plan::draw(seed, &mut rng);
    if is_told {
        eprintln!("{plan:?}");
    }
    let mut world = World::new(plan, rng, is_told);
    world.run();
    (world.now, world.batches.len())
}

fn live_or_say_how_to_replay(seed: u64, is_told: bool) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| live(seed, is_told))) {
        eprintln!("replay with: SIM_SEED={seed} cargo test -p scheduler --test simulation every_world");
        resume_unwind(panic);
    }
}

/// Whatever is lost, late, killed or stalled: nothing is lost for good, nothing has two outcomes, no limit is broken,
/// and in the end nothing is left over.
#[test]
fn every_world_comes_to_a_good_end() {
    if let Some(seed) = variable("SIM_SEED") {
        return live_or_say_how_to_replay(seed, true);
    }
    let seeds = variable("SIM_SEEDS").unwrap_or(SEEDS);
    let (next, failed) = (AtomicU64::new(0), AtomicBool::new(false));
    let work = || {
        while !failed.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
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

#[test]
fn a_seed_replays() {
    for seed in 0..20 {
        assert_eq!(live(seed, false), live(seed, false));
    }
}
