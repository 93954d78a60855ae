//! What batches are worth: the real engine against costs, loads and lengths, beside what could be had at best.
//!
//! `cargo test -p scheduler --test simulation -- --ignored --nocapture tables` prints the tables of
//! `docs/PERFORMANCE.md`.

mod bench;
mod cost;
mod steps;
mod tables;

use bench::{Load, Seen, Setting, run};
use cost::{Cost, Lengths, best_in_arrival_order, best_limit, bound, in_arrival_order};
use shared::clock::Time;

const fn s(seconds: u64) -> Time {
    Time::from_millis(seconds * 1_000)
}

/// A model that pads, on a processor, on an accelerator with a costly call, and between them.
pub(crate) const PADDING: [(&str, Cost); 3] =
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
            let ratio = seen.texts / best_in_arrival_order(&cost, Lengths::Mixed, callers).0;
            assert!(ratio >= 1.25, "{name}, {callers} callers: {ratio:.2}");
            assert!(seen.texts >= 0.45 * bound(&cost, Lengths::Mixed, 64), "{name}, {callers} callers: {seen:?}");
        }
    }
}

/// A tenth of what calls of one text would come to: whoever finds the accelerator idle goes at once, and others wait for
/// one call and hardly more.
#[test]
fn at_low_load_batches_cost_nothing() {
    for (name, cost) in PADDING {
        let seen = run(mixed(Load::Rate(0.1 * in_arrival_order(&cost, Lengths::Mixed, 1)), cost));
        assert!(seen.added_p50 < 0.01, "{name}: {seen:?}");
        assert!(seen.added_p99 <= cost.of(&[cost::LONGEST]) + 2.0, "{name}: {seen:?}");
    }
}

/// To take a backend that does not pad for one that does.
#[test]
fn padding_that_is_not_there_costs_little() {
    let cost = Cost { padded: false, ..Cost::padding(5.0, 0.02) };
    let [right, wrong] = [false, true].map(|padded| run(Setting { padded, ..mixed(Load::Callers(256), cost) }).texts);
    eprintln!("taken to pad: {wrong:.0} texts/s; not: {right:.0}");
    assert!(wrong >= 0.85 * right, "{wrong:.0} of {right:.0} texts/s");
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
        assert!(part_of_best(&seen, &cost) >= 0.9, "{name}: {:.3} of the best", part_of_best(&seen, &cost));
    }
}

/// What a backend costs from minute to minute, and how long a limit may take to follow.
const CHANGES: [(&str, Cost); 5] = [("small", SMALL), ("knee", KNEE), ("large", LARGE), ("slow", SLOW), ("small again", SMALL)];
const MINUTE: u64 = 60;
const FOLLOWS_WITHIN: u64 = 25;

/// The fifth minute of a changing backend, say, once the limit has followed.
fn minute_of_change(n: u64) -> Setting {
    let costs = (0..).map(|n| s(n * MINUTE)).zip(CHANGES.map(|(_, cost)| cost)).collect();
    limited(costs, (s(n * MINUTE + FOLLOWS_WITHIN), s((n + 1) * MINUTE)))
}

#[test]
fn the_limit_follows_when_the_backend_changes() {
    for (n, (name, cost)) in (0..).zip(CHANGES) {
        let part = part_of_best(&run(minute_of_change(n)), &cost);
        assert!(part >= 0.9, "{name}: {part:.3} of the best");
    }
}

#[test]
#[ignore = "prints tables"]
fn tables() {
    tables::print();
}
