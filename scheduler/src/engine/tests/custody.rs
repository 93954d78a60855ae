//! Deferred items, which stay in custody until their outcome is on record.

use super::*;

/// An engine whose worker runs one deferred item.
fn running() -> (Rig, FrameKey, BatchId) {
    let mut rig = Rig::new(ModelKind::Sequence, 1);
    let (frame, delivered) = rig.frame(vec![deferred(1)]);
    let batch = batch(&rig.step([delivered]));
    assert_eq!(rig.step([accepted("worker", batch)]), []);
    (rig, frame, batch)
}

#[test]
fn a_frame_is_renewed_while_its_items_run_and_acked_when_the_last_has_ended() {
    let mut rig = Rig::new(ModelKind::Array, 9);
    let (frame, delivered) = rig.frame((1..=5).map(deferred).collect());
    let sent = dispatches(&rig.step([delivered]));
    rig.step([accepted("worker", sent[0].0), accepted("worker", sent[1].0)]);
    let renewed = rig.after(4_000 * MS, [beat("worker", 9, &[1, 2, 3, 4, 5])]);
    assert_eq!(renewed, [Action::Renew(frame)]);
    assert_eq!(rig.step([done("worker", sent[1].0, &[5])]), [Action::Release(id(5))]);
    let ended = rig.step([done("worker", sent[0].0, &[1, 2, 3, 4])]);
    assert_eq!(ended.last(), Some(&Action::Ack(frame)));
    assert!(rig.is_empty());
}

#[test]
fn what_a_dead_worker_ran_goes_to_another_without_a_redelivery() {
    for silence in [HEARTBEAT_GONE, Duration::ZERO] {
        let (mut rig, frame, _) = running();
        let gone = if silence.is_zero() { vec![Event::WorkerLeft(node("worker"))] } else { Vec::new() };
        rig.after(silence, gone);
        let again = rig.step([beat("other", 1, &[])]);
        let second = batch(&again);
        rig.step([accepted("other", second)]);
        assert_eq!(rig.step([done("other", second, &[1])]), [Action::Release(id(1)), Action::Ack(frame)]);
        assert!(rig.is_empty());
    }
}

#[test]
fn what_a_worker_no_longer_lists_is_queued_again_in_its_place() {
    let (mut rig, ..) = running();
    rig.deliver(vec![deferred(2)]);
    let sent = rig.after(1_000 * MS, [beat("worker", 1, &[])]);
    assert_eq!(dispatches(&sent)[0].2, [1]);
}

#[test]
fn a_place_is_free_when_the_call_has_ended_and_the_frame_when_its_outcome_is_on_record() {
    let (mut rig, frame, first) = running();
    let (_, next) = rig.frame(vec![deferred(2)]);
    assert_eq!(rig.step([next]), []);
    let sent = rig.step([freed("worker", first, &[1])]);
    assert_eq!(dispatches(&sent)[0].2, [2], "into the place of the one that goes on record");
    assert_eq!(rig.after(1_000 * MS, [beat("worker", 1, &[1, 2])]), []);
    assert_eq!(rig.step([done("worker", first, &[1])]), [Action::Release(id(1)), Action::Ack(frame)]);
    rig.step([done("worker", batch(&sent), &[2])]);
    assert!(rig.is_empty());
}

#[test]
fn what_is_not_on_record_when_its_worker_goes_is_run_again() {
    for gone in [Event::WorkerLeft(node("worker")), beat("worker", 0, &[])] {
        let (mut rig, frame, first) = running();
        assert_eq!(rig.step([freed("worker", first, &[1])]), []);
        rig.after(1_000 * MS, [gone]);
        let second = batch(&rig.step([beat("other", 1, &[])]));
        rig.step([accepted("other", second)]);
        assert_eq!(rig.step([done("other", second, &[1])]), [Action::Release(id(1)), Action::Ack(frame)]);
        assert!(rig.is_empty());
    }
}

#[test]
fn what_two_workers_have_stays_with_the_one_that_is_left() {
    let mut rig = Rig::new(ModelKind::Sequence, 1);
    let (frame, delivered) = rig.frame(vec![deferred(1)]);
    let first = batch(&rig.step([delivered]));
    rig.after(ACCEPT_WAIT, []);
    let second = batch(&rig.step([beat("other", 1, &[])]));
    rig.step([accepted("other", second), accepted("worker", first)]);
    assert_eq!(rig.step([Event::WorkerLeft(node("other")), beat("third", 1, &[])]), []);
    assert_eq!(rig.step([done("worker", first, &[1])]), [Action::Release(id(1)), Action::Ack(frame)]);
    assert!(rig.is_empty());
}

#[test]
fn the_first_end_counts_though_another_worker_runs_it_still() {
    let mut rig = Rig::new(ModelKind::Sequence, 1);
    let (frame, delivered) = rig.frame(vec![deferred(1)]);
    let first = batch(&rig.step([delivered]));
    rig.after(ACCEPT_WAIT, []);
    let second = batch(&rig.step([beat("other", 1, &[])]));
    rig.step([accepted("other", second)]);
    assert_eq!(rig.step([done("worker", first, &[1])]), [Action::Release(id(1)), Action::Ack(frame)]);
    assert_eq!(rig.engine.credit(rig.now).1, 1, "the other call holds its credit");
    assert_eq!(rig.step([done("other", second, &[1])]), []);
    assert!(rig.is_empty());
}

#[test]
fn the_end_that_a_worker_tells_after_it_was_taken_for_dead_counts() {
    let (mut rig, frame, first) = running();
    rig.after(HEARTBEAT_GONE, []);
    assert_eq!(rig.engine.depth(Lane::Async), 1);
    assert_eq!(rig.step([done("worker", first, &[1])]), [Action::Release(id(1)), Action::Ack(frame)]);
    assert!(rig.is_empty());
}

#[test]
fn a_frame_of_which_something_runs_for_another_owner_comes_back_later() {
    let later = |frame| Action::Nak(frame, RUNS_ELSEWHERE_WAIT);
    let mut before = Rig::without_workers(ModelKind::Sequence);
    before.step([beat("worker", 1, &[1])]);
    let (frame, delivered) = before.frame(vec![deferred(1), deferred(2)]);
    assert_eq!(before.step([delivered.clone()]), [later(frame), Action::Release(id(1)), Action::Release(id(2))]);
    let sent = before.after(HEARTBEAT_GONE, [beat("other", 1, &[]), delivered]);
    assert_eq!(dispatches(&sent).len(), 1, "and is taken when its worker is dead");

    let mut after = Rig::without_workers(ModelKind::Sequence);
    let (frame, delivered) = after.frame(vec![deferred(1), deferred(2)]);
    after.step([delivered]);
    let given_back = after.step([beat("worker", 1, &[1])]);
    assert_eq!(given_back, [Action::Release(id(1)), Action::Release(id(2)), later(frame)], "also when the heartbeat comes second");
    assert!(after.is_empty());
}

#[test]
fn a_frame_that_was_published_again_waits_for_the_end_of_the_first() {
    let mut rig = Rig::without_workers(ModelKind::Sequence);
    rig.deliver(vec![deferred(1)]);
    let (again, delivered) = rig.frame(vec![deferred(1)]);
    assert_eq!(rig.step([delivered]), [Action::Nak(again, RUNS_ELSEWHERE_WAIT)]);
}

#[test]
fn a_deadline_is_on_record_before_its_frame_is_acked() {
    let mut rig = Rig::without_workers(ModelKind::Sequence);
    let deadline = rig.now + 500 * MS;
    let (frame, delivered) = rig.frame(vec![Item { deadline, ..deferred(1) }]);
    rig.step([delivered]);
    let failed = Action::Fail { id: id(1), ingress: node("ingress"), cause: Cause::Here(Code::DeadlineExceeded) };
    assert_eq!(rig.after(500 * MS, []), [failed]);
    assert_eq!(dispatches(&rig.step([beat("worker", 1, &[])])), [], "it is not sent any more");
    assert_eq!(rig.step([Event::Committed(id(1))]), [Action::Release(id(1)), Action::Ack(frame)]);
    assert!(rig.is_empty());
}

#[test]
fn a_deadline_that_passes_at_a_worker_is_the_workers_to_tell() {
    let mut rig = Rig::new(ModelKind::Sequence, 1);
    let (_, delivered) = rig.frame(vec![Item { deadline: rig.now + 500 * MS, ..deferred(1) }]);
    let first = batch(&rig.step([delivered]));
    rig.step([accepted("worker", first)]);
    assert_eq!(rig.after(600 * MS, [beat("worker", 1, &[1])]), []);
    let failed = rig.step([Event::WorkerLeft(node("worker"))]);
    assert!(
        matches!(failed[..], [Action::Fail { cause: Cause::Here(Code::DeadlineExceeded), .. }]),
        "unless it cannot any more: {failed:?}"
    );
}

#[test]
fn a_cancelled_item_that_runs_is_ended_by_its_worker_or_not_run_again() {
    let (mut told, frame, batch) = running();
    assert_eq!(told.step([Event::Cancelled(vec![id(1)])]), []);
    let ended = vec![ItemDone { id: id(1), end: ItemEnd::Cancelled, usage: Usage::default(), fault: None }];
    let done = Event::Done { worker: node("worker"), batch, items: ended };
    assert_eq!(told.step([done]), [Action::Release(id(1)), Action::Ack(frame)]);

    let (mut died, frame, _) = running();
    died.step([Event::Cancelled(vec![id(1)])]);
    assert_eq!(died.step([Event::WorkerLeft(node("worker"))]), [Action::Release(id(1)), Action::Ack(frame)]);
}

#[test]
fn a_surrendered_engine_gives_back_what_runs_too() {
    let (mut rig, frame, batch) = running();
    let mut actions = Vec::new();
    rig.engine.surrender(&mut actions);
    assert_eq!(actions, [Action::Nak(frame, Duration::ZERO), Action::Release(id(1))]);
    assert_eq!(rig.step([done("worker", batch, &[1])]), []);
    assert!(rig.is_empty());
}
