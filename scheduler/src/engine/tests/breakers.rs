//! Backends that fail altogether.

use super::returned::{beat_with, fail_once, places, returned, rig_with};
use super::*;
use shared::wire::Fault;

/// The end of a request that is not tried again.
fn failed(batch: BatchId, n: u64, fault: Fault) -> Event {
    let items = vec![ItemDone { id: id(n), end: ItemEnd::Failed, usage: Usage::default(), fault: Some(fault) }];
    Event::Done { worker: node("worker"), batch, items }
}

/// Five requests that fail at the first backend, one after the other; what goes elsewhere is answered.
fn fail_five(rig: &mut Rig) {
    let mut left = 5;
    for n in 1_000.. {
        if left == 0 {
            return;
        }
        let sent = rig.deliver(vec![item(n)]);
        if places(&sent)[0].0 == "a" {
            left -= 1;
            rig.step([accepted("worker", batch(&sent)), failed(batch(&sent), n, Fault::ServerError)]);
        } else {
            rig.step([accepted("worker", batch(&sent)), done("worker", batch(&sent), &[n])]);
        }
    }
}

fn is_shut(rig: &Rig, backend: &str) -> bool {
    rig.engine.breakers().any(|(name, _, state)| name == backend && state != Breaker::Closed)
}

/// The backends of the next so many requests, which are answered.
fn next_places(rig: &mut Rig, from: u64, count: u64) -> Vec<String> {
    let mut all = Vec::new();
    for n in from..from + count {
        let sent = rig.deliver(vec![item(n)]);
        all.extend(places(&sent).into_iter().map(|(backend, _)| backend));
        rig.step([accepted("worker", batch(&sent)), done("worker", batch(&sent), &[n])]);
    }
    all
}

#[test]
fn a_backend_that_fails_five_times_is_left_alone_and_tried_a_second_later() {
    let mut rig = rig_with(ModelKind::Sequence, &["a", "b"]);
    fail_five(&mut rig);
    assert!(is_shut(&rig, "a") && !is_shut(&rig, "b"));
    assert_eq!(next_places(&mut rig, 100, 5), ["b"; 5]);
    rig.after(1_000 * MS, [beat_with(&["a", "b"], &[]), Event::IngressSeen(node("ingress"))]);
    let trial = rig.deliver(vec![item(200)]);
    assert_eq!(places(&trial)[0].0, "a", "the trial");
    let beside = rig.deliver(vec![item(201), item(202)]);
    assert!(places(&beside).iter().all(|(backend, _)| backend == "b"), "and nobody else: {beside:?}");
    rig.step([accepted("worker", batch(&trial)), done("worker", batch(&trial), &[200])]);
    assert!(!is_shut(&rig, "a"));
}

#[test]
fn a_rejection_says_that_the_backend_is_well() {
    let mut rig = rig_with(ModelKind::Sequence, &["a"]);
    for n in 0..20 {
        let sent = rig.deliver(vec![item(n)]);
        rig.step([failed(batch(&sent), n, Fault::Rejected)]);
    }
    assert!(!is_shut(&rig, "a"));
}

#[test]
fn one_request_that_fails_wherever_it_goes_is_no_evidence_but_once() {
    let mut rig = rig_with(ModelKind::Sequence, &["a"]);
    for n in 0..4 {
        let mut sent = rig.deliver(vec![item(n)]);
        for _ in 0..3 {
            fail_once(&mut rig, &sent, &item(n), Fault::ServerError);
            sent = rig.after(200 * MS, [beat_with(&["a"], &[]), Event::IngressSeen(node("ingress"))]);
        }
    }
    assert!(!is_shut(&rig, "a"), "twelve failures of four requests");
}

#[test]
fn where_all_are_shut_callers_wait_two_seconds_for_a_trial_and_no_longer() {
    let mut rig = rig_with(ModelKind::Sequence, &["a"]);
    fail_five(&mut rig);
    assert_eq!(rig.deliver(vec![item(10)]), [], "a second is waited for");
    let mut open = Duration::from_secs(1);
    for _ in 0..2 {
        let trial = rig.after(open, [beat_with(&["a"], &[]), Event::IngressSeen(node("ingress"))]);
        rig.step([accepted("worker", batch(&trial))]);
        rig.step([returned(&rig, "worker", batch(&trial), Fault::Connect, vec![item(10)])]);
        open *= 2;
    }
    let failed = rig.deliver(vec![item(11)]);
    assert!(matches!(failed[0], Action::Fail { cause: Cause::Down(wait), .. } if wait == Duration::from_secs(4)), "{failed:?}");
}

#[test]
fn a_trial_that_streams_closes_the_breaker_long_before_its_end() {
    let mut rig = rig_with(ModelKind::Sequence, &["a"]);
    fail_five(&mut rig);
    rig.deliver(vec![item(10)]);
    let trial = rig.after(Duration::from_secs(1), [beat_with(&["a"], &[]), Event::IngressSeen(node("ingress"))]);
    rig.step([accepted("worker", batch(&trial))]);
    rig.after(500 * MS, [beat_with(&["a"], &[10])]);
    assert!(is_shut(&rig, "a"), "nothing has come yet");
    let mut begun = beat_with(&["a"], &[10]);
    if let Event::Heartbeat { running, .. } = &mut begun {
        running.iter_mut().for_each(|run| run.begun = true);
    }
    rig.after(500 * MS, [begun]);
    assert!(!is_shut(&rig, "a"));
}

#[test]
fn what_is_deferred_waits_for_as_long_as_it_takes() {
    let mut rig = rig_with(ModelKind::Sequence, &["a"]);
    fail_five(&mut rig);
    let (frame, delivered) = rig.frame(vec![deferred(10)]);
    rig.step([delivered]);
    for _ in 0..20 {
        let wait = rig.engine.wake_at().since(rig.now);
        let trial = rig.after(wait, [beat_with(&["a"], &[]), Event::IngressSeen(node("ingress"))]);
        for (batch, ..) in dispatches(&trial) {
            rig.step([accepted("worker", batch), returned(&rig, "worker", batch, Fault::Connect, vec![deferred(10)])]);
        }
    }
    assert_eq!(rig.engine.load(Lane::Async).0, 1, "however many trials it was");
    let trial = rig.after(Duration::from_secs(30), [beat_with(&["a"], &[])]);
    let ended = rig.step([done("worker", batch(&trial), &[10])]);
    assert_eq!(ended.last(), Some(&Action::Ack(frame)));
}

#[test]
fn a_backend_that_says_when_is_not_called_before() {
    let mut rig = rig_with(ModelKind::Sequence, &["a", "b"]);
    let sent = rig.deliver(vec![item(1)]);
    let (busy, other) = if places(&sent)[0].0 == "a" { ("a", "b") } else { ("b", "a") };
    let mut limited = returned(&rig, "worker", batch(&sent), Fault::RateLimited, vec![item(1)]);
    if let Event::Returned(returned) = &mut limited {
        returned.failure.retry_after_ms = Some(5_000);
    }
    let again = rig.step([accepted("worker", batch(&sent)), limited]);
    assert_eq!(places(&again)[0].0, other);
    rig.step([done("worker", batch(&again), &[1])]);
    assert_eq!(next_places(&mut rig, 10, 5), [other; 5]);
    rig.after(5_000 * MS, [beat_with(&["a", "b"], &[]), Event::IngressSeen(node("ingress"))]);
    assert!(next_places(&mut rig, 20, 5).iter().any(|backend| backend == busy));
    assert!(!is_shut(&rig, busy), "one that is busy is not ill");
}

#[test]
fn a_trial_whose_worker_dies_is_followed_by_another() {
    let mut rig = rig_with(ModelKind::Sequence, &["a"]);
    fail_five(&mut rig);
    rig.after(1_000 * MS, [beat_with(&["a"], &[]), Event::IngressSeen(node("ingress"))]);
    let trial = rig.deliver(vec![deferred(10)]);
    rig.step([accepted("worker", batch(&trial)), Event::WorkerLeft(node("worker"))]);
    let again = rig.step([beat_with(&["a"], &[])]);
    assert_eq!(places(&again).len(), 1);
}

#[test]
fn a_backend_that_is_given_too_much_is_given_less() {
    let mut rig = rig_with(ModelKind::Sequence, &["a"]);
    let sent = dispatches(&rig.deliver((1..=4).map(item).collect()));
    assert_eq!(sent.len(), 4);
    rig.step([failed(sent[0].0, 1, Fault::RateLimited), failed(sent[1].0, 2, Fault::RateLimited)]);
    assert_eq!(rig.engine.limits(rig.now).collect::<Vec<_>>(), [("a", 2)], "0.7 of four, once");
    assert_eq!(rig.deliver(vec![item(5)]), [], "two are out");
}

#[test]
fn a_backend_whose_rate_limit_is_used_up_is_left_alone_as_long_as_its_worker_says() {
    let mut rig = rig_with(ModelKind::Sequence, &["a"]);
    let resting = BackendCredit { name: "a".into(), rest_ms: 700, ..credit(4, 1_000) };
    rig.step([Event::Heartbeat { worker: node("worker"), backends: vec![resting], running: Vec::new() }]);
    assert_eq!(places(&rig.deliver(vec![item(1)])), []);
    assert_eq!(places(&rig.after(699 * MS, [beat_with(&["a"], &[])])), [], "its next word says nothing of it");
    assert_eq!(places(&rig.after(MS, [])).len(), 1);
}
