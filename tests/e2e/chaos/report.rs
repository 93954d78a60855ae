//! core: how a run went: what was asked and what came of it, and for each class of fault how available the system was and how long
//! it took to recover.

use super::book::{Book, Call, Done};
use super::checker::{self, Promise, Violation};
use super::journal::{Kind, Outcome, Why};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// Calls asked for so long after a fault still count as its.
const AFTERMATH_MS: u64 = 5_000;
/// Violations that a report spells out: the first ones tell.
const SHOWN_MAX: usize = 40;

#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) seed: u64,
    pub(super) seconds: u64,
    pub(super) injections: usize,
    pub(super) calls: BTreeMap<Kind, Ends>,
    pub(super) classes: BTreeMap<String, Class>,
    /// Processes that ended while they were starting, because there was no broker, and were started again.
    pub(super) started_again: usize,
    pub(super) answered_again: u32,
    pub(super) broken: BTreeMap<Promise, usize>,
    pub(super) violations: Vec<Violation>,
}

/// What became of the calls of one kind.
#[derive(Debug, Default, Serialize)]
pub(super) struct Ends {
    pub(super) asked: usize,
    pub(super) answered: usize,
    /// By code.
    pub(super) failed: BTreeMap<String, usize>,
    pub(super) p50_ms: u64,
    pub(super) p99_ms: u64,
}

/// What callers who wait saw of one class of fault, its aftermath included. Faults overlap: a failed call counts for each of them.
#[derive(Debug, Default, Serialize)]
pub(super) struct Class {
    pub(super) injections: usize,
    pub(super) asked: usize,
    pub(super) answered: usize,
    /// From the end of the fault to that of the last call that failed for it, at worst.
    pub(super) recovered_ms: u64,
}

impl Report {
    pub(super) fn of(book: &Book) -> Self {
        let violations = checker::violations(book);
        Self {
            seed: book.seed,
            seconds: book.length_ms / 1_000,
            injections: book.faults.len(),
            calls: calls(book),
            classes: classes(book),
            started_again: book.died.len(),
            answered_again: checker::answered_again(book),
            broken: checker::by_promise(&violations),
            violations,
        }
    }
}

fn calls(book: &Book) -> BTreeMap<Kind, Ends> {
    let mut kinds: BTreeMap<Kind, (Ends, Vec<u64>)> = BTreeMap::new();
    for call in book.calls.values().filter(|call| call.why == Why::Load) {
        let (ends, took) = kinds.entry(call.kind).or_default();
        ends.asked += 1;
        match call.ends.first() {
            Some((ms, Outcome::Answered { .. })) => {
                ends.answered += 1;
                took.push(ms - call.asked_ms);
            }
            other => *ends.failed.entry(name(other)).or_default() += 1,
        }
    }
    kinds.into_iter().map(|(kind, (ends, took))| (kind, with_percentiles(ends, took))).collect()
}

fn with_percentiles(ends: Ends, mut took: Vec<u64>) -> Ends {
    took.sort_unstable();
    let at = |percent: usize| took.get(took.len().saturating_sub(1) * percent / 100).copied().unwrap_or_default();
    Ends { p50_ms: at(50), p99_ms: at(99), ..ends }
}

fn name(end: Option<&(u64, Outcome)>) -> String {
    match end.map(|(_, outcome)| outcome) {
        None | Some(Outcome::Forgotten) => "no end".into(),
        Some(Outcome::Refused { code, .. }) => code.clone(),
        Some(Outcome::Interrupted { code }) => format!("begun, then {code}"),
        Some(Outcome::Cut) => "cut".into(),
        Some(Outcome::NoConnection { .. }) => "no connection".into(),
        Some(Outcome::Left) => "left".into(),
        Some(Outcome::Answered { .. }) => "answered".into(),
    }
}

fn classes(book: &Book) -> BTreeMap<String, Class> {
    let mut classes: BTreeMap<String, Class> = BTreeMap::new();
    for fault in &book.faults {
        let class = classes.entry(fault.class.clone()).or_default();
        class.injections += 1;
        for call in book.calls.values().filter(|call| meets(call, fault)) {
            class.asked += 1;
            class.answered += usize::from(call.is_answered());
            let ended = call.ended_ms().filter(|_| !call.is_answered()).unwrap_or_default();
            class.recovered_ms = class.recovered_ms.max(ended.saturating_sub(fault.over_ms));
        }
    }
    classes
}

fn meets(call: &Call, fault: &Done) -> bool {
    let span = fault.at_ms..=fault.over_ms + AFTERMATH_MS;
    call.kind.is_interactive() && call.why == Why::Load && span.contains(&call.asked_ms)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, seconds, injections, started_again, answered_again, .. } = self;
        writeln!(f, "seed {seed}: {injections} injections in {seconds} s")?;
        writeln!(f, "{:<10} {:>7} {:>9} {:>8} {:>8}  failed", "kind", "asked", "answered", "p50 ms", "p99 ms")?;
        for (kind, ends) in &self.calls {
            let Ends { asked, answered, failed, p50_ms, p99_ms } = ends;
            writeln!(f, "{:<10} {asked:>7} {answered:>9} {p50_ms:>8} {p99_ms:>8}  {failed:?}", format!("{kind:?}"))?;
        }
        writeln!(f, "{:<30} {:>10} {:>7} {:>13} {:>13}", "fault", "injections", "asked", "available", "recovered")?;
        for (class, Class { injections, asked, answered, recovered_ms }) in &self.classes {
            let available = 100.0 * *answered as f64 / (*asked).max(1) as f64;
            writeln!(f, "{class:<30} {injections:>10} {asked:>7} {available:>11.1} % {recovered_ms:>10} ms")?;
        }
        writeln!(f, "started again: {started_again}; answered again: {answered_again}; promises broken: {:?}", self.broken)?;
        self.violations.iter().take(SHOWN_MAX).try_for_each(|one| writeln!(f, "{:?}: {}", one.promise, one.what))
    }
}
