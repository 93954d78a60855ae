//! What batches are worth: the real engine against costs, loads and lengths, beside what could be had at best.
//!
//! `cargo test --release -p scheduler --test simulation -- --ignored --nocapture tables` prints the tables of
//! `docs/PERFORMANCE.md`.

mod bench;
mod cost;

use bench::{Load, Seen, Setting, run};
use cost::{Cost, Lengths, best_in_arrival_order, best_limit, bound, in_arrival_order};
use shared::clock::Time;

const fn s(seconds: u64) -> Time {
    Time::from_millis(seconds * 1_000)
}

/// A model that pads, on a processor, on an accelerator with a costly call, and between them.
const PADDING: [(&str, Cost); 3] =
    [("2 + 0.1 x", Cost::padding(2.0, 0.1)), ("5 + 0.02 x", Cost::padding(5.0, 0.02)), ("10 + 0.005 x", Cost::padding(10.0, 0.005))];

fn mixed(load: Load, cost: Cost) -> Setting {
    Setting {
        load,
        lengths: Lengths::Mixed,
        padded: true,
        max_items: 64,
        max_tokens: 16_384,
        objective: 200.0,
        costs: vec![(Time::ZERO, cost)],
        window: (s(10), s(40)),
    }
}

/// P9. The baselines have no road to travel and never wait for an arrival.
#[test]
fn similar_lengths_together_beat_any_batch_in_arrival_order() {
    for (name, cost) in PADDING {
        for callers in [64, 256] {
            let seen = run(mixed(Load::Callers(callers), cost));
            let (best, size) = best_in_arrival_order(&cost, Lengths::Mixed);
            let ratio = seen.texts / best;
            eprintln!(
                "{name}, {callers} callers: {:.0} texts/s, {ratio:.2} of {best:.0} in calls of {size}; {:.0} % padding",
                seen.texts,
                seen.padding * 100.0
            );
            assert!(ratio >= 1.25, "{name}, {callers} callers: {ratio:.2}");
        }
    }
}

/// Texts of one length, more than the accelerator can take: only the limit decides.
fn limited(costs: Vec<(Time, Cost)>, window: (Time, Time)) -> Setting {
    Setting {
        load: Load::Callers(1_500),
        lengths: Lengths::All(64),
        padded: false,
        max_items: 2_048,
        max_tokens: 65_536,
        objective: 200.0,
        costs,
        window,
    }
}

const SMALL: Cost = Cost { fixed: 1.0, per_token: 0.004, knee: None, padded: false, noise: 0.05 };
const LARGE: Cost = Cost { fixed: 60.0, ..SMALL };
const KNEE: Cost = Cost { fixed: 8.0, knee: Some((8_000.0, 6.0)), ..SMALL };
const SLOW: Cost = Cost { per_token: 0.016, ..SMALL };

/// Tokens a second, as a part of what the best fixed limit would give.
fn part_of_best(seen: &Seen, cost: &Cost) -> f64 {
    seen.tokens / best_limit(cost, 200.0, 65_536.0)
}

#[test]
fn the_limit_finds_what_the_best_fixed_one_would_give() {
    for (name, cost) in [("small", SMALL), ("large", LARGE), ("knee", KNEE)] {
        let seen = run(limited(vec![(Time::ZERO, cost)], (s(20), s(60))));
        let part = part_of_best(&seen, &cost);
        eprintln!("{name}: {part:.3} of the best, calls up to {:.0} ms", seen.call_p95);
        assert!(part >= 0.9, "{name}: {part:.3}");
    }
}

#[test]
fn the_limit_follows_when_the_backend_changes() {
    let order = [SMALL, KNEE, LARGE, SLOW, SMALL];
    let costs: Vec<(Time, Cost)> = (0..).map(|n| s(n * 60)).zip(order).collect();
    for (from, cost) in &costs {
        let seen = run(limited(costs.clone(), (*from + std::time::Duration::from_secs(25), *from + std::time::Duration::from_secs(60))));
        let part = part_of_best(&seen, cost);
        eprintln!("after {from:?}: {part:.3} of the best, calls up to {:.0} ms", seen.call_p95);
        assert!(part >= 0.9, "after {from:?}: {part:.3}");
    }
}
