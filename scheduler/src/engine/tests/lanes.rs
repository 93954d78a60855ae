//! What the lanes do to each other.

use super::*;
use shared::quota::{Reason, Refusal, Standing, Whose};

fn bulk(n: u64) -> Item {
    Item { lane: Lane::Bulk, ..item(n) }
}

fn ids(actions: &[Action]) -> Vec<Vec<u128>> {
    dispatches(actions).into_iter().map(|(.., ids)| ids).collect()
}

#[test]
fn bulk_leaves_room_while_interactive_work_comes_and_fills_it_after_that() {
    let mut rig = Rig::new(ModelKind::Sequence, 10);
    rig.deliver(vec![item(1)]);
    assert_eq!(ids(&rig.deliver((2..=20).map(bulk).collect())).len(), 6, "seven of ten slots are taken");
    assert!(rig.engine.wake_at() <= rig.now + 10_000 * MS);
    let mut later = rig.after(10_000 * MS, [beat("other", 3, &[])]);
    later.extend(rig.after(MS, []));
    assert_eq!(ids(&later).len(), 3);
}

#[test]
fn an_idle_backend_takes_bulk_however_small_it_is() {
    let mut rig = Rig::new(ModelKind::Sequence, 1);
    let first = batch(&rig.deliver(vec![item(1)]));
    rig.deliver(vec![bulk(2)]);
    assert_eq!(ids(&rig.step([done("worker", first, &[1])])), [[2]]);
}

#[test]
fn bulk_fills_what_interactive_leaves_of_an_array_call() {
    let mut rig = Rig::new(ModelKind::Array, 1);
    let (_, interactive) = rig.frame(vec![item(1)]);
    let (_, of_bulk) = rig.frame((2..=9).map(bulk).collect());
    assert_eq!(ids(&rig.step([interactive, of_bulk])), [[1, 2, 3, 4]]);
}

#[test]
fn what_finds_no_room_lets_the_more_urgent_go_past_and_nobody_else() {
    let mut rig = Rig::without_workers(ModelKind::Sequence);
    let large = Item { tokens_in: 995, ..deferred(2) };
    let frames = [vec![large], vec![bulk(3)], vec![item(1)]].map(|items| rig.frame(items).1);
    rig.step(frames);
    let credit = Event::Heartbeat { worker: node("worker"), backends: vec![credit(9, 1_000)], running: Vec::new() };
    rig.deliver(vec![item(4)]);
    let sent = rig.step([credit]);
    assert_eq!(ids(&sent), [[1], [4]]);
}

#[test]
fn the_oldest_of_those_who_wait_too_long_is_ordered_one_lane_up() {
    let mut rig = Rig::without_workers(ModelKind::Sequence);
    rig.deliver((1..=3).map(deferred).collect());
    rig.after(59_000 * MS, []);
    assert_eq!(rig.engine.depth(Lane::Async), 3);
    rig.after(2_000 * MS, []);
    rig.after(2_000 * MS, []);
    assert_eq!((rig.engine.depth(Lane::Interactive), rig.engine.depth(Lane::Async)), (1, 2), "one at a time");
    assert_eq!(ids(&rig.step([beat("worker", 1, &[])])), [[1]]);
}

#[test]
fn what_has_aged_into_a_lane_goes_before_its_tenants_own_backlog_there() {
    let mut rig = Rig::without_workers(ModelKind::Sequence);
    rig.deliver(vec![Item { deadline: Time::from_millis(86_400_000), ..deferred(1) }]);
    rig.after(61_000 * MS, []);
    rig.deliver(vec![item(2), item(3)]);
    rig.after(MS, [Event::IngressSeen(node("ingress"))]);
    assert_eq!(ids(&rig.step([beat("worker", 1, &[])])), [[1]]);
}

#[test]
fn what_has_aged_into_a_lane_keeps_nobody_there_from_ageing() {
    let mut rig = Rig::without_workers(ModelKind::Sequence);
    let late = Time::from_millis(86_400_000);
    rig.deliver(vec![Item { deadline: late, ..bulk(1) }]);
    rig.after(901_000 * MS, []);
    rig.deliver(vec![Item { deadline: late, ..deferred(2) }]);
    assert_eq!((rig.engine.depth(Lane::Async), rig.engine.depth(Lane::Bulk)), (2, 0));
    rig.after(61_000 * MS, []);
    rig.after(MS, []);
    assert_eq!((rig.engine.depth(Lane::Interactive), rig.engine.depth(Lane::Async)), (1, 1));
    assert_eq!(ids(&rig.step([beat("worker", 1, &[])])), [[2]]);
}

#[test]
fn what_may_have_killed_its_worker_runs_alone_and_fails_after_the_third() {
    let mut rig = Rig::new(ModelKind::Array, 9);
    let (frame, delivered) = rig.frame(vec![deferred(1), deferred(2)]);
    let first = batch(&rig.step([delivered]));
    rig.step([accepted("worker", first)]);
    for worker in ["second", "third"] {
        rig.after(HEARTBEAT_GONE, []);
        let sent = rig.step([beat(worker, 9, &[])]);
        assert_eq!(ids(&sent), [[1], [2]], "each alone");
        dispatches(&sent).iter().for_each(|(batch, ..)| drop(rig.step([accepted(worker, *batch)])));
    }
    let failed = rig.after(HEARTBEAT_GONE, []);
    let poison = |n| Action::Fail { id: id(n), ingress: node("ingress"), cause: Cause::Here(Code::Poison) };
    assert!(failed.contains(&poison(1)) && failed.contains(&poison(2)), "{failed:?}");
    let recorded = rig.step([Event::Committed(id(1)), Event::Committed(id(2))]);
    assert_eq!(recorded.last(), Some(&Action::Ack(frame)));
}

#[test]
fn a_worker_that_takes_its_leave_has_not_crashed() {
    let mut rig = Rig::new(ModelKind::Array, 9);
    let (_, delivered) = rig.frame(vec![deferred(1), deferred(2)]);
    let first = batch(&rig.step([delivered]));
    rig.step([accepted("worker", first)]);
    assert_eq!(ids(&rig.step([Event::WorkerLeft(node("worker")), beat("other", 9, &[])])), [[1, 2]]);
}

const fn refusal(reason: Reason, retry_after_ms: Option<u32>) -> Refusal {
    Refusal { reason, whose: Whose::Tenant, retry_after_ms, standing: Standing { requests: None, tokens: None } }
}

fn once(rig: &mut Rig, events: impl IntoIterator<Item = Event>) -> Vec<Action> {
    let mut actions = Vec::new();
    rig.engine.step(rig.now, events, &mut actions);
    actions
}

#[test]
fn what_the_quota_refuses_of_deferred_work_waits_and_asks_again() {
    let mut rig = Rig::new(ModelKind::Sequence, 9);
    let (_, delivered) = rig.frame(vec![deferred(1), deferred(2)]);
    assert_eq!(once(&mut rig, [delivered]), [Action::Reserve(id(1)), Action::Reserve(id(2))]);
    let refused = [1, 2].map(|n| Event::QuotaRefused { id: id(n), refusal: refusal(Reason::Requests, Some(600)) });
    assert_eq!(once(&mut rig, refused), []);
    let (_, delivered) = rig.frame(vec![deferred(3)]);
    assert_eq!(once(&mut rig, [delivered]), [], "it would be refused as well");
    assert_eq!(rig.engine.wake_at(), rig.now + 600 * MS);
    rig.now = rig.now + 600 * MS;
    assert_eq!(once(&mut rig, []), [Action::Reserve(id(1))], "one asks for all");
    assert_eq!(once(&mut rig, [Event::Reserved(id(1))])[..2], [Action::Reserve(id(2)), Action::Reserve(id(3))]);
}

#[test]
fn what_no_limit_will_ever_allow_fails() {
    let mut rig = Rig::new(ModelKind::Sequence, 9);
    let (_, delivered) = rig.frame(vec![deferred(1)]);
    once(&mut rig, [delivered]);
    let failed = once(&mut rig, [Event::QuotaRefused { id: id(1), refusal: refusal(Reason::Tokens, None) }]);
    assert!(matches!(failed[..], [Action::Fail { cause: Cause::Here(Code::OverLimit), .. }]), "{failed:?}");
}

#[test]
fn a_used_up_budget_is_tried_again_until_the_deadline() {
    let mut rig = Rig::new(ModelKind::Sequence, 9);
    let deadline = rig.now + 90_000 * MS;
    let (_, delivered) = rig.frame(vec![Item { deadline, ..deferred(1) }]);
    let used_up = || Event::QuotaRefused { id: id(1), refusal: refusal(Reason::UsdPerDay, Some(3_600_000)) };
    once(&mut rig, [delivered]);
    once(&mut rig, [used_up()]);
    rig.now = rig.now + 60_000 * MS;
    assert!(once(&mut rig, []).contains(&Action::Reserve(id(1))));
    once(&mut rig, [used_up()]);
    rig.now = deadline;
    let failed = Action::Fail { id: id(1), ingress: node("ingress"), cause: Cause::Here(Code::DeadlineExceeded) };
    assert!(once(&mut rig, []).contains(&failed));
}

#[test]
fn what_is_larger_than_a_whole_budget_fails_and_holds_nobody_up() {
    let mut rig = Rig::new(ModelKind::Sequence, 9);
    let (_, delivered) = rig.frame(vec![deferred(1)]);
    once(&mut rig, [delivered]);
    let failed = Action::Fail { id: id(1), ingress: node("ingress"), cause: Cause::Here(Code::OverLimit) };
    assert!(once(&mut rig, [Event::QuotaRefused { id: id(1), refusal: refusal(Reason::UsdPerDay, None) }]).contains(&failed));
    let (_, delivered) = rig.frame(vec![deferred(2)]);
    assert!(once(&mut rig, [delivered]).contains(&Action::Reserve(id(2))));
}
