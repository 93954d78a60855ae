//! What happens when messages are lost or late, workers die, and owners change.

use super::*;

#[test]
fn what_nobody_accepts_goes_back_and_to_another_worker() {
    let mut rig = Rig::new(ModelKind::Sequence, 1);
    let first = batch(&rig.deliver(vec![item(1)]));
    assert_eq!(rig.engine.wake_at(), rig.now + ACCEPT_WAIT);
    assert_eq!(rig.after(ACCEPT_WAIT, []), [], "its worker is suspect");
    assert_eq!((rig.engine.depth(Lane::Interactive), rig.engine.credit(rig.now).1), (1, 0));
    let again = rig.step([beat("other", 1, &[])]);
    assert_eq!(dispatches(&again)[0].1, "other");
    assert_ne!(batch(&again), first);
}

#[test]
fn what_is_refused_goes_back_at_once_and_its_tenant_is_not_charged() {
    let mut rig = Rig::new(ModelKind::Sequence, 1);
    let mine = |n| Item { tenant: "mine".into(), ..item(n) };
    let theirs = |n| Item { tenant: "theirs".into(), ..item(n) };
    let sent = rig.deliver(vec![mine(1), theirs(2), mine(3)]);
    let first = dispatches(&sent)[0].2.clone();
    rig.step([Event::Refused { worker: node("worker"), batch: batch(&sent) }]);
    assert_eq!(rig.engine.depth(Lane::Interactive), 3);
    let again = rig.step([beat("worker", 1, &[])]);
    assert_eq!(dispatches(&again)[0].2, first, "it is its turn as before");
}

#[test]
fn a_late_accept_counts_wherever_the_item_is_by_then() {
    let mut rig = Rig::new(ModelKind::Sequence, 1);
    let first = batch(&rig.deliver(vec![item(1)]));
    rig.after(ACCEPT_WAIT, []);
    let second = batch(&rig.step([beat("other", 1, &[])]));
    let taken = rig.after(10 * MS, [accepted("worker", first)]);
    assert_eq!(taken, [Action::Release(id(1)), Action::Ack(FrameKey { lane: Lane::Interactive, epoch: 1, sequence: 1 })]);
    assert_eq!(rig.after(10 * MS, [Event::Refused { worker: node("other"), batch: second }]), [], "it is not sent a third time");
    rig.step([done("worker", first, &[1])]);
    assert!(rig.is_empty());
}

#[test]
fn what_a_worker_lists_before_its_accept_is_missed_is_not_taken_back() {
    let mut rig = Rig::new(ModelKind::Sequence, 1);
    let first = batch(&rig.deliver(vec![item(1)]));
    let taken = rig.step([beat("worker", 1, &[1])]);
    assert_eq!(taken, [Action::Release(id(1)), Action::Ack(FrameKey { lane: Lane::Interactive, epoch: 1, sequence: 1 })]);
    assert_eq!(dispatches(&rig.after(ACCEPT_WAIT, [beat("other", 1, &[])])), []);
    rig.step([done("worker", first, &[1])]);
    assert!(rig.is_empty());
}

#[test]
fn a_lost_accept_is_told_by_the_answer_or_by_the_heartbeat() {
    let mut answered = Rig::new(ModelKind::Sequence, 1);
    let first = batch(&answered.deliver(vec![item(1)]));
    answered.after(ACCEPT_WAIT, []);
    answered.step([done("worker", first, &[1])]);
    assert!(answered.is_empty());

    let mut listed = Rig::new(ModelKind::Sequence, 1);
    let first = batch(&listed.deliver(vec![item(1)]));
    listed.after(ACCEPT_WAIT, []);
    assert_eq!(dispatches(&listed.step([beat("worker", 1, &[1])])), []);
    assert_eq!(listed.engine.credit(listed.now), (0, 1), "and its credit is occupied");
    listed.step([done("worker", first, &[1])]);
    assert!(listed.is_empty());
}

#[test]
fn a_lost_done_is_told_by_the_heartbeat() {
    let mut rig = Rig::new(ModelKind::Sequence, 1);
    let first = batch(&rig.deliver(vec![item(1)]));
    rig.step([accepted("worker", first)]);
    rig.after(999 * MS, [beat("worker", 1, &[])]);
    assert!(!rig.is_empty(), "it may have left before the batch came");
    rig.after(MS, [beat("worker", 1, &[])]);
    assert!(rig.is_empty());
}

#[test]
fn a_redelivered_frame_is_acked_again_when_its_ack_was_lost() {
    let mut rig = Rig::new(ModelKind::Sequence, 1);
    let (frame, delivered) = rig.frame(vec![item(1)]);
    let first = batch(&rig.step([delivered.clone()]));
    assert_eq!(rig.step([delivered.clone()]), [], "it is here");
    rig.step([accepted("worker", first)]);
    assert_eq!(rig.step([delivered]), [Action::Ack(frame), Action::Release(id(1))]);
}

#[test]
fn what_is_published_again_is_not_taken_twice() {
    let mut rig = Rig::new(ModelKind::Sequence, 1);
    let first = batch(&rig.deliver(vec![item(1)]));
    let (again, delivered) = rig.frame(vec![item(1)]);
    assert_eq!(rig.step([delivered]), [Action::Ack(again)], "while it is here");
    rig.step([accepted("worker", first)]);
    let (again, delivered) = rig.frame(vec![item(1)]);
    assert_eq!(rig.step([delivered]), [Action::Ack(again), Action::Release(id(1))], "nor while it runs");
    rig.now = rig.now + HEARTBEAT_STALE;
    rig.step([beat("other", 1, &[]), Event::IngressSeen(node("ingress"))]);
    assert_eq!(dispatches(&rig.deliver(vec![item(1)]))[0].1, "other", "but when its worker is silent");
}

#[test]
fn a_new_owner_leaves_alone_what_workers_run() {
    let mut rig = Rig::without_workers(ModelKind::Sequence);
    rig.step([beat("worker", 1, &[1])]);
    let (frame, delivered) = rig.frame(vec![item(1)]);
    assert_eq!(rig.step([delivered]), [Action::Ack(frame), Action::Release(id(1))]);

    let mut rig = Rig::without_workers(ModelKind::Sequence);
    let (frame, delivered) = rig.frame(vec![item(1)]);
    rig.step([delivered]);
    assert_eq!(rig.step([beat("worker", 1, &[1])]), [Action::Release(id(1)), Action::Ack(frame)]);
}

#[test]
fn a_surrendered_engine_gives_everything_back() {
    let mut rig = Rig::without_workers(ModelKind::Sequence);
    let (frame, delivered) = rig.frame(vec![item(1)]);
    rig.step([delivered]);
    let mut actions = Vec::new();
    rig.engine.surrender(&mut actions);
    assert_eq!(actions, [Action::Nak(frame, Duration::ZERO), Action::Release(id(1))]);
    assert_eq!(dispatches(&rig.step([beat("worker", 1, &[])])), []);
    assert!(rig.is_empty());
}

#[test]
fn batches_of_a_later_ownership_have_numbers_of_their_own() {
    let mut rig = Rig::new(ModelKind::Sequence, 1);
    let first = batch(&rig.deliver(vec![item(1)]));
    rig.engine = Engine::new(EngineConfig { dispatch_from: rig.now, ..rig.engine.config });
    let second = batch(&{
        rig.step([beat("worker", 1, &[]), Event::IngressSeen(node("ingress"))]);
        rig.deliver(vec![item(2)])
    });
    assert_ne!(first, second);
    rig.step([accepted("worker", first)]);
    assert_eq!(rig.engine.load(Lane::Interactive).0, 1, "an answer to the earlier one is not taken for the later one's");
}

#[test]
fn a_worker_that_left_has_nothing_any_more_whatever_it_said_before() {
    let mut rig = Rig::new(ModelKind::Sequence, 1);
    let first = batch(&rig.deliver(vec![item(1)]));
    rig.after(ACCEPT_WAIT, []);
    rig.step([Event::WorkerLeft(node("worker")), accepted("worker", first)]);
    assert_eq!(rig.engine.credit(rig.now).1, 0);
    assert_eq!(dispatches(&rig.step([beat("other", 1, &[])])).len(), 1);
}
