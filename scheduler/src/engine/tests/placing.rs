//! What goes where, with whom and when, while nothing is lost.

use super::returned::{places, rig_with};
use super::*;
use shared::quota::{Reason, Refusal, Standing, Whose};

#[test]
fn a_request_goes_its_road_and_leaves_nothing_behind() {
    let mut rig = Rig::new(ModelKind::Array, 1);
    let (frame, delivered) = rig.frame(vec![item(1), item(2)]);
    let sent = rig.step([delivered]);
    assert_eq!(dispatches(&sent)[0].2, [1, 2], "one frame, one batch");
    let batch = batch(&sent);
    let taken = rig.step([accepted("worker", batch)]);
    assert_eq!(taken, [Action::Release(id(1)), Action::Release(id(2)), Action::Ack(frame)]);
    assert_eq!(rig.step([done("worker", batch, &[1, 2])]), []);
    assert!(rig.is_empty());
}

#[test]
fn nothing_goes_before_the_workers_have_said_what_they_run() {
    let mut rig = Rig::new(ModelKind::Array, 1);
    rig.engine = Engine::new(EngineConfig { dispatch_from: rig.now + 250 * MS, ..rig.engine.config });
    let (_, delivered) = rig.frame(vec![item(1)]);
    assert_eq!(dispatches(&rig.step([beat("worker", 1, &[]), delivered])), []);
    assert_eq!(rig.engine.wake_at(), rig.now + 250 * MS);
    assert_eq!(dispatches(&rig.after(250 * MS, [])).len(), 1);
}

#[test]
fn nothing_goes_without_credit() {
    let mut rig = Rig::new(ModelKind::Sequence, 1);
    assert_eq!(dispatches(&rig.deliver(vec![item(1), item(2)])).len(), 1);
    let mut silent = Rig::new(ModelKind::Sequence, 1);
    silent.now = silent.now + HEARTBEAT_STALE;
    silent.step([Event::IngressSeen(node("ingress"))]);
    assert_eq!(dispatches(&silent.deliver(vec![item(1)])), [], "stale credit is none");
    assert_eq!(dispatches(&silent.step([beat("worker", 1, &[])])).len(), 1);
}

#[test]
fn workers_of_a_shared_backend_share_its_slots() {
    let mut rig = Rig::without_workers(ModelKind::Sequence);
    let shared = |worker| {
        let backends = vec![BackendCredit { shared: true, ..credit(1, 1_000) }];
        Event::Heartbeat { worker: node(worker), backends, running: Vec::new() }
    };
    rig.step([shared("one"), shared("other")]);
    assert_eq!(dispatches(&rig.deliver(vec![item(1), item(2)])).len(), 1);
}

#[test]
fn a_batch_keeps_its_limits() {
    let sizes = |items: Vec<Item>| {
        let sent = Rig::new(ModelKind::Array, 9).deliver(items);
        dispatches(&sent).iter().map(|(_, _, ids)| ids.len()).collect::<Vec<_>>()
    };
    assert_eq!(sizes((1..=6).map(item).collect()), [4, 2], "items");
    assert_eq!(sizes((1..=3).map(|n| Item { tokens_in: 60, ..item(n) }).collect()), [1, 1, 1], "tokens");
    assert_eq!(sizes((1..=3).map(|n| Item { bytes: 300 * 1024, ..item(n) }).collect()), [2, 1], "bytes");
    assert_eq!(sizes((1..=4).map(|n| Item { compat: n % 2, ..item(n) }).collect()), [2, 2], "kinds of call");
    assert_eq!(sizes(vec![Item { items: 9, tokens_in: 900, ..item(1) }, item(2)]), [1, 1], "what is too large goes alone");
}

#[test]
fn a_large_request_goes_to_the_backend_that_has_room_for_it() {
    let mut rig = Rig::without_workers(ModelKind::Sequence);
    let backends = vec![credit(9, 50), BackendCredit { name: "roomy".into(), ..credit(9, 500) }];
    rig.step([Event::Heartbeat { worker: node("worker"), backends, running: Vec::new() }]);
    rig.deliver(vec![item(1), item(2), item(3)]);
    let sent = rig.deliver(vec![Item { tokens_in: 100, ..item(4) }]);
    assert!(matches!(&sent[..], [Action::Dispatch { backend, .. }] if &**backend == "roomy"), "{sent:?}");
}

#[test]
fn what_no_backend_has_room_for_waits_for_an_idle_one() {
    let mut rig = Rig::new(ModelKind::Sequence, 9);
    let first = batch(&rig.deliver(vec![item(1)]));
    assert_eq!(dispatches(&rig.deliver(vec![Item { tokens_in: 1_001, ..item(2) }])), []);
    let sent = rig.step([done("worker", first, &[1])]);
    assert_eq!(dispatches(&sent)[0].2, [2]);
}

#[test]
fn a_dead_ingresss_interactive_work_is_dropped_and_its_deferred_work_is_not() {
    let mut rig = Rig::without_workers(ModelKind::Sequence);
    let (frame, delivered) = rig.frame(vec![item(1)]);
    rig.step([delivered]);
    rig.deliver(vec![deferred(2)]);
    let actions = rig.after(INGRESS_SILENT, [beat("worker", 9, &[])]);
    assert_eq!(dispatches(&actions)[0].2, [2]);
    assert!(actions.contains(&Action::Ack(frame)), "{actions:?}");
}

#[test]
fn a_deadline_that_passes_while_waiting_fails_the_request_on_time() {
    let mut rig = Rig::without_workers(ModelKind::Sequence);
    let deadline = rig.now + 500 * MS;
    let (frame, delivered) = rig.frame(vec![Item { deadline, ..item(1) }]);
    rig.step([delivered]);
    assert_eq!(rig.engine.wake_at(), deadline);
    let failed = Action::Fail { id: id(1), ingress: node("ingress"), cause: Cause::Here(Code::DeadlineExceeded) };
    assert_eq!(rig.after(500 * MS, [beat("worker", 1, &[])]), [failed, Action::Release(id(1)), Action::Ack(frame)]);
}

#[test]
fn what_was_cancelled_is_not_sent_whenever_the_cancel_comes() {
    let mut waiting = Rig::without_workers(ModelKind::Sequence);
    let (frame, delivered) = waiting.frame(vec![item(1)]);
    waiting.step([delivered]);
    assert_eq!(waiting.step([Event::Cancelled(vec![id(1)])]), [Action::Release(id(1)), Action::Ack(frame)]);

    let mut early = Rig::new(ModelKind::Sequence, 1);
    early.step([Event::Cancelled(vec![id(1)])]);
    assert_eq!(dispatches(&early.deliver(vec![item(1)])), []);

    let mut sent = Rig::new(ModelKind::Sequence, 1);
    sent.deliver(vec![item(1)]);
    sent.step([Event::Cancelled(vec![id(1)])]);
    sent.after(ACCEPT_WAIT, []);
    assert_eq!(dispatches(&sent.step([beat("other", 1, &[])])), []);
    assert!(sent.is_empty());
}

#[test]
fn what_the_quota_refuses_goes_back_to_its_ingress() {
    let mut rig = Rig::new(ModelKind::Sequence, 1);
    let (frame, delivered) = rig.frame(vec![item(1)]);
    let mut actions = Vec::new();
    rig.engine.step(rig.now, [delivered], &mut actions);
    assert_eq!(actions, [Action::Reserve(id(1))], "nothing else happens before the quota has answered");
    let refusal = Refusal { reason: Reason::Tokens, whose: Whose::Key, retry_after_ms: Some(600), standing: Standing::default() };
    let refused = Action::Refuse { id: id(1), ingress: node("ingress"), refusal };
    assert_eq!(rig.step([Event::QuotaRefused { id: id(1), refusal }]), [refused, Action::Release(id(1)), Action::Ack(frame)]);
}

#[test]
fn what_waits_is_renewed_and_what_was_handed_over_is_not() {
    let mut rig = Rig::without_workers(ModelKind::Sequence);
    let (frame, delivered) = rig.frame(vec![item(1)]);
    rig.step([delivered]);
    assert_eq!(rig.after(1_000 * MS, []), [Action::Renew(frame)]);
    let first = batch(&rig.step([beat("worker", 1, &[]), Event::IngressSeen(node("ingress"))]));
    rig.step([accepted("worker", first)]);
    assert_eq!(rig.after(1_000 * MS, []), []);
}

#[test]
fn equal_backends_take_turns() {
    let mut rig = rig_with(ModelKind::Sequence, &["a", "b", "c"]);
    let mut turns = Vec::new();
    for n in 0..6 {
        rig.after(MS, []);
        let sent = rig.deliver(vec![item(n)]);
        turns.extend(places(&sent).into_iter().map(|(backend, _)| backend));
        rig.step([accepted("worker", batch(&sent)), done("worker", batch(&sent), &[n])]);
    }
    assert_eq!(turns, ["a", "b", "c", "a", "b", "c"]);
}
