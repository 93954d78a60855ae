//! core: judges a run by its log alone. What it finds is what was promised and not kept; how well the run went otherwise is for
//! the report.

mod tests;

use super::book::{Book, Call};
use super::journal::{Kind, Outcome, Why};
use super::oracle;
use serde::Serialize;
use std::collections::BTreeMap;

/// Time for everything accepted to come to its end once nothing is wrong any more.
pub(super) const ENDS_WITHIN_MS: u64 = 60_000;
/// Ended calls gather at a worker for 50 ms before they are billed, longer while the broker is away: a worker that is killed within this
/// time takes its last ones with it.
const UNBILLED_MS: u64 = 30_000;
/// A process that ends sooner than this was still starting: it gives up when it finds no broker.
const STARTING_MS: u64 = 25_000;

/// A promise that was not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Promise {
    /// Whatever was asked has an end that its caller sees.
    NothingLost,
    /// Of two ends that were seen, both are the same.
    OneOutcome,
    /// An answer is its own prompt's, whole, and one backend's.
    OwnAnswer,
    /// A failure has a code that says what happened, and is not the caller's fault.
    HonestError,
    /// A connection breaks only with its ingress.
    NoBrokenConnection,
    /// Accepted work has ended in time once all is well.
    EndsInTime,
    /// Nothing stays reserved.
    NothingReserved,
    /// What was answered is billed.
    Billed,
    /// And billed once, however often it ran.
    BilledOnce,
    /// No process ends that nobody killed.
    NobodyDies,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Violation {
    pub(super) promise: Promise,
    pub(super) what: String,
}

pub(super) fn violations(book: &Book) -> Vec<Violation> {
    let of_calls = book.calls.iter().flat_map(|(id, call)| of_call(book, *id, call));
    let dead = book.died.iter().filter(|death| death.after_ms >= STARTING_MS);
    let dead = dead.map(|death| violation(Promise::NobodyDies, format!("{} ended at {} ms", death.who, death.at_ms)));
    let reserved = book.reserved.iter().filter(|(_, open)| **open > 0);
    let reserved = reserved.map(|(tenant, open)| violation(Promise::NothingReserved, format!("{tenant} has {open} reservations")));
    let spent = book.spent.filter(|spent| *spent != book.due);
    let spent = spent.map(|spent| violation(Promise::BilledOnce, format!("{spent} tokens were billed, and {} are due", book.due)));
    let kept_back = book.kept_back.iter();
    let kept_back = kept_back.map(|behind| violation(Promise::Billed, format!("the records behind {behind} were not shown")));
    of_calls.chain(dead).chain(reserved).chain(spent).chain(kept_back).collect()
}

/// Requests that were answered more than once: each counts but the first.
pub(super) fn answered_again(book: &Book) -> u32 {
    book.billed.values().map(|times| times.saturating_sub(1)).sum()
}

fn of_call(book: &Book, id: u64, call: &Call) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut broken = |promise, what: &str| {
        found.push(violation(promise, format!("call {id} ({:?}, asked at {} ms): {what}: {:?}", call.kind, call.asked_ms, call.ends)));
    };
    if call.ends.is_empty() {
        broken(Promise::NothingLost, "has no end");
    }
    if !has_one_outcome(call) {
        broken(Promise::OneOutcome, "has several ends");
    }
    if call.accepted && is_late(book, call) {
        broken(Promise::EndsInTime, "ended late");
    }
    let prompt = oracle::prompt_of(book.seed, id, &call.told);
    if call.answers().any(|(digest, _)| oracle::backend_of(digest, call.kind, &prompt, book.backends).is_none()) {
        broken(Promise::OwnAnswer, "has an answer that no backend gave to its prompt");
    }
    if call.answers().any(|(_, request)| is_unbilled(book, call, request)) {
        broken(Promise::Billed, "was answered and is not billed");
    }
    for (ms, outcome) in &call.ends {
        if let Some(promise) = broken_by(book, call, *ms, outcome) {
            broken(promise, "ended as it may not");
        }
    }
    found
}

/// A job is looked at again at the end; nothing else may end twice, not even alike.
fn has_one_outcome(call: &Call) -> bool {
    match call.kind {
        Kind::Job => call.ends.iter().all(|(_, outcome)| *outcome == call.ends[0].1),
        _ => call.ends.len() <= 1,
    }
}

fn is_late(book: &Book, call: &Call) -> bool {
    book.healed_ms.zip(call.ended_ms()).is_some_and(|(healed, ended)| ended > healed.max(call.asked_ms) + ENDS_WITHIN_MS)
}

/// Rows are billed under ids of their own, which nobody is told. The flood is another tenant's, whose books are not read.
fn is_unbilled(book: &Book, call: &Call, request: &str) -> bool {
    if request.is_empty() || call.why == Why::Flood {
        return false;
    }
    let ended = call.ended_ms().unwrap_or_default();
    // A job's end is seen by polling, after it was billed; the worker may have been killed in between.
    let asked = if call.kind == Kind::Job { call.asked_ms } else { ended };
    let is_on_record = book.billed.get(request).is_some_and(|times| *times > 0);
    !is_on_record && !book.worker_was_killed(asked.saturating_sub(1_000), ended + UNBILLED_MS)
}

fn broken_by(book: &Book, call: &Call, ended_ms: u64, outcome: &Outcome) -> Option<Promise> {
    let ingress_was_down = || book.was_down(&format!("ingress-{}", call.ingress), call.asked_ms, ended_ms);
    match outcome {
        Outcome::Forgotten => Some(Promise::NothingLost),
        Outcome::Cut | Outcome::NoConnection { .. } => (!ingress_was_down()).then_some(Promise::NoBrokenConnection),
        Outcome::Refused { code, .. } if code == "lost" && call.accepted => Some(Promise::NothingLost),
        Outcome::Refused { status, code } => (!is_honest(call, *status, code)).then_some(Promise::HonestError),
        Outcome::Interrupted { code } => code.is_empty().then_some(Promise::HonestError),
        Outcome::Answered { .. } | Outcome::Left => None,
    }
}

/// A sound request may fail for what is the system's, and say so. Only a prompt that makes backends reject it is rejected.
fn is_honest(call: &Call, status: u16, code: &str) -> bool {
    let is_known = !code.is_empty() && code != "internal";
    let is_ours = matches!(status, 0 | 429 | 502..=504) || code == "poison";
    is_known && (is_ours || call.why == Why::Poison)
}

fn violation(promise: Promise, what: String) -> Violation {
    Violation { promise, what }
}

/// How many of each.
pub(super) fn by_promise(violations: &[Violation]) -> BTreeMap<Promise, usize> {
    violations.iter().fold(BTreeMap::new(), |mut counts, one| {
        *counts.entry(one.promise).or_default() += 1;
        counts
    })
}
