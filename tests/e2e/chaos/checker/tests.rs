//! That the checker can fail: logs in which one thing is wrong.

use super::*;
use crate::chaos::journal::{Entry, Line};

const SEED: u64 = 7;

/// A log of these entries, a second apart.
fn log(entries: Vec<Entry>) -> Vec<Line> {
    let begun = [Entry::Began { seed: SEED, backends: 4 }];
    begun.into_iter().chain(entries).zip(0..).map(|(entry, second)| Line { ms: second * 1_000, entry }).collect()
}

fn asked(call: u64, kind: Kind) -> Entry {
    Entry::Asked { call, kind, why: Why::Load, ingress: 0, told: String::new() }
}

fn ended(call: u64, outcome: Outcome) -> Entry {
    Entry::Ended { call, outcome }
}

fn accepted(call: u64) -> Entry {
    Entry::Accepted { id: "job_1".into(), calls: vec![call] }
}

fn billed(request: &str) -> Entry {
    Entry::Billed { request: request.into(), end: "answered".into(), tokens: 20 }
}

/// The answer that a backend gives to the prompt of `of`.
fn answer(of: u64, kind: Kind, backend: usize) -> Outcome {
    let digest = oracle::right(kind, backend, &oracle::prompt_of(SEED, of, ""));
    Outcome::Answered { digest, request: format!("req_{of}") }
}

fn refused(status: u16, code: &str) -> Outcome {
    Outcome::Refused { status, code: code.into() }
}

fn kill(who: &str) -> Entry {
    Entry::Injected { id: 0, class: format!("kill {}", who.split('-').next().unwrap()), targets: vec![who.into()] }
}

fn broken(entries: Vec<Entry>) -> Vec<Promise> {
    violations(&Book::of(&log(entries))).into_iter().map(|violation| violation.promise).collect()
}

#[test]
fn a_run_that_keeps_its_promises_passes() {
    let kinds = [Kind::Chat, Kind::Stream, Kind::Embed, Kind::Job];
    let calls = kinds
        .into_iter()
        .zip(0..)
        .flat_map(|(kind, call)| [asked(call, kind), accepted(call), ended(call, answer(call, kind, 3)), billed(&format!("req_{call}"))]);
    let failed = [asked(9, Kind::Chat), ended(9, refused(502, "backend_status")), Entry::Healed];
    let again = [ended(3, answer(3, Kind::Job, 3)), Entry::Reserved { tenant: "first".into(), open: 0 }];
    assert_eq!(broken(calls.chain(failed).chain(again).collect()), []);
}

#[test]
fn a_call_without_an_end_is_lost() {
    assert_eq!(broken(vec![asked(1, Kind::Chat)]), [Promise::NothingLost]);
    assert_eq!(broken(vec![asked(1, Kind::Chat), ended(1, Outcome::Forgotten)]), [Promise::NothingLost]);
    let job = vec![asked(1, Kind::Job), accepted(1), ended(1, refused(0, "lost"))];
    assert_eq!(broken(job), [Promise::NothingLost]);
}

#[test]
fn two_ends_are_one_too_many() {
    let one = answer(1, Kind::Chat, 0);
    assert_eq!(broken(vec![asked(1, Kind::Chat), ended(1, one.clone()), ended(1, one), billed("req_1")]), [Promise::OneOutcome]);
    let changed =
        vec![asked(1, Kind::Job), accepted(1), ended(1, answer(1, Kind::Job, 0)), billed("req_1"), ended(1, refused(0, "poison"))];
    assert_eq!(broken(changed), [Promise::OneOutcome]);
    let of_another = vec![asked(1, Kind::Job), ended(1, answer(1, Kind::Job, 0)), billed("req_1"), ended(1, answer(1, Kind::Job, 2))];
    assert_eq!(broken(of_another), [Promise::OneOutcome]);
}

#[test]
fn an_answer_to_another_prompt_is_crossed() {
    for kind in [Kind::Chat, Kind::Stream, Kind::Embed, Kind::Job, Kind::ChatRow, Kind::EmbedRow] {
        let crossed = vec![asked(1, kind), ended(1, answer(2, kind, 0)), billed("req_2")];
        assert_eq!(broken(crossed), [Promise::OwnAnswer], "{kind:?}");
    }
}

#[test]
fn a_stream_of_two_executions_is_nobodys() {
    let prompt = oracle::prompt_of(SEED, 1, "");
    let [one, other] = [0, 1].map(|backend| oracle::text(&oracle::key(backend), &prompt, oracle::tokens(Kind::Stream)));
    let mixed =
        |at: usize| Outcome::Answered { digest: oracle::of_text(&format!("{}{}", &one[..at], &other[at..])), request: String::new() };
    assert_eq!(broken(vec![asked(1, Kind::Stream), ended(1, mixed(0))]), []);
    assert_eq!(broken(vec![asked(1, Kind::Stream), ended(1, mixed(one.len() / 2))]), [Promise::OwnAnswer]);
}

#[test]
fn an_error_says_what_happened() {
    for dishonest in
        [refused(502, ""), refused(500, "internal"), refused(404, "model_not_found"), Outcome::Interrupted { code: String::new() }]
    {
        assert_eq!(broken(vec![asked(1, Kind::Stream), ended(1, dishonest)]), [Promise::HonestError]);
    }
}

#[test]
fn a_connection_breaks_only_with_its_ingress() {
    let cut = |before: Vec<Entry>| broken([before, vec![asked(1, Kind::Stream), ended(1, Outcome::Cut)]].concat());
    assert_eq!(cut(vec![]), [Promise::NoBrokenConnection]);
    assert_eq!(cut(vec![kill("ingress-1")]), [Promise::NoBrokenConnection], "the other one");
    assert_eq!(cut(vec![kill("ingress-0")]), []);
}

#[test]
fn accepted_work_that_ends_late_is_late() {
    let late = |healed_to_end_s: u64| {
        let mut lines = log(vec![asked(1, Kind::Job), accepted(1), Entry::Healed]);
        let ms = lines.last().unwrap().ms + healed_to_end_s * 1_000;
        lines.extend([ended(1, answer(1, Kind::Job, 0)), billed("req_1")].map(|entry| Line { ms, entry }));
        violations(&Book::of(&lines)).len()
    };
    assert_eq!((late(59), late(61)), (0, 1));
}

#[test]
fn the_books_are_closed_at_the_end() {
    assert_eq!(broken(vec![Entry::Reserved { tenant: "first".into(), open: 2 }]), [Promise::NothingReserved]);
    let unbilled = [asked(1, Kind::Chat), ended(1, answer(1, Kind::Chat, 0))];
    assert_eq!(broken(unbilled.to_vec()), [Promise::Billed]);
    assert_eq!(broken([unbilled.to_vec(), vec![kill("worker-1")]].concat()), [], "its worker took it along");
    let twice = Book::of(&log([unbilled.to_vec(), vec![billed("req_1"), billed("req_1")]].concat()));
    assert_eq!((violations(&twice).len(), answered_again(&twice)), (0, 1));
    let spent = |tokens| {
        broken([unbilled.to_vec(), vec![billed("req_1"), billed("req_1"), Entry::Spent { tenant: "first".into(), tokens }]].concat())
    };
    assert_eq!((spent(20), spent(40)), (vec![], vec![Promise::BilledOnce]));
    assert_eq!(broken(vec![Entry::KeptBack { behind: 7 }]), [Promise::Billed]);
}

#[test]
fn a_process_that_ends_by_itself_is_noticed() {
    let died = |after_ms| broken(vec![Entry::Died { who: "worker-1".into(), after_ms }]);
    assert_eq!((died(1_000), died(60_000)), (vec![], vec![Promise::NobodyDies]));
}
