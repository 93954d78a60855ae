//! core: the tables of `docs/PERFORMANCE.md` about batches, written to standard error as Markdown.

use super::bench::{Load, Seen, Setting, run};
use super::cost::{Cost, Lengths, best_in_arrival_order, bound, in_arrival_order};
use super::steps::measure;
use super::{CHANGES, KNEE, LARGE, PADDING, SMALL, limited, minute_of_change, mixed, part_of_best, s};
use shared::clock::Time;

pub(super) fn print() {
    lengths();
    loads();
    limits();
    steps();
}

/// Costs and callers: what is had, in arrival order, and at best.
fn lengths() {
    eprintln!(
        "| ms of a call of x padded tokens | callers | texts/s | one by one | best fixed batch | ratio | of the bound | padding | texts a call |"
    );
    eprintln!("|---|---|---|---|---|---|---|---|---|");
    for (name, cost) in PADDING {
        for callers in [16, 64, 256] {
            let seen = run(mixed(Load::Callers(callers), cost));
            let alone = in_arrival_order(&cost, Lengths::Mixed, 1);
            let (best, size) = best_in_arrival_order(&cost, Lengths::Mixed, callers);
            let (ratio, of_bound) = (seen.texts / best, seen.texts / bound(&cost, Lengths::Mixed, 64));
            eprintln!(
                "| {name} | {callers} | {:.0} | {alone:.0} | {best:.0} (of {size}) | {ratio:.2} | {of_bound:.2} | {:.0} % | {:.1} |",
                seen.texts,
                seen.padding * 100.0,
                texts_a_call(&seen),
            );
        }
    }
}

/// Offered load against costs and lengths.
fn loads() {
    eprintln!("\n| ms of a call of x tokens | lengths | offered, of the bound | answered/s | texts a call | added p50 ms | added p99 ms |");
    eprintln!("|---|---|---|---|---|---|---|");
    for (name, cost) in PADDING {
        for (of, lengths) in [("mixed", Lengths::Mixed), ("all 36", Lengths::All(36))] {
            for load in [0.02, 0.1, 0.3, 0.6] {
                let offered = load * bound(&cost, lengths, 64);
                let seen = run(Setting { lengths, ..mixed(Load::Rate(offered), cost) });
                eprintln!(
                    "| {name} | {of} | {load} = {offered:.0}/s | {:.0} | {:.1} | {:.2} | {:.1} |",
                    seen.texts,
                    texts_a_call(&seen),
                    seen.added_p50,
                    seen.added_p99
                );
            }
        }
    }
}

/// The adaptive limit beside the best fixed one.
fn limits() {
    eprintln!("\n| backend | tokens/s | of the best fixed limit | p95 of a call, ms |");
    eprintln!("|---|---|---|---|");
    for (name, cost) in [("small", SMALL), ("large", LARGE), ("knee", KNEE)] {
        limit(name, &cost, limited(vec![(Time::ZERO, cost)], (s(20), s(60))));
    }
    for (n, (name, cost)) in (0..).zip(CHANGES) {
        limit(&format!("changing, minute {}: {name}", n + 1), &cost, minute_of_change(n));
    }
}

fn limit(name: &str, cost: &Cost, setting: Setting) {
    let seen = run(setting);
    eprintln!("| {name} | {:.0} | {:.3} | {:.0} |", seen.tokens, part_of_best(&seen, cost), seen.call_p95);
}

fn steps() {
    eprintln!("\n| requests waiting | tenants | padded | texts a call | µs of the step that forms one |");
    eprintln!("|---|---|---|---|---|");
    for (tenants, padded) in [(1, false), (64, false), (1, true), (64, true)] {
        let (took, texts) = measure(padded, tenants);
        eprintln!("| 8,192 | {tenants} | {padded} | {texts:.1} | {took:.0} |");
    }
}

fn texts_a_call(seen: &Seen) -> f64 {
    let seconds = 30.0; // Of the window of `mixed`.
    seen.texts * seconds / seen.calls as f64
}
