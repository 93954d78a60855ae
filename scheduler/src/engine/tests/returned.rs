//! What comes back because its call failed.

use super::*;
use shared::error::Failure;
use shared::wire::Fault;

/// The measures that a worker sends along with an interactive item.
fn given_back(rig: &Rig, item: Item) -> GivenBack {
    let id = item.id;
    GivenBack { id, item: (!item.lane.is_deferred()).then_some(item), published: rig.now.saturating_sub(Duration::from_secs(2)) }
}

pub(super) fn returned(rig: &Rig, worker: &str, batch: BatchId, fault: Fault, items: Vec<Item>) -> Event {
    let items = items.into_iter().map(|item| given_back(rig, item)).collect();
    let failure = Box::new(Failure::new(Code::BackendStatus, fault.as_str()));
    Event::Returned(Box::new(Returned { worker: node(worker), batch, fault, failure, items }))
}

/// A worker that announces these backends.
pub(super) fn beat_with(backends: &[&str], running: &[u64]) -> Event {
    let mut beat = beat("worker", 4, running);
    if let Event::Heartbeat { backends: credits, .. } = &mut beat {
        *credits = backends.iter().map(|name| BackendCredit { name: (*name).into(), ..credit(4, 1_000) }).collect();
    }
    beat
}

/// Where batches went, and with which items.
pub(super) fn places(actions: &[Action]) -> Vec<(String, Vec<u128>)> {
    let of = |action: &Action| match action {
        Action::Dispatch { backend, items, .. } => Some((backend.to_string(), items.iter().map(|id| id.0.as_u128()).collect())),
        _ => None,
    };
    actions.iter().filter_map(of).collect()
}

pub(super) fn rig_with(kind: ModelKind, backends: &[&str]) -> Rig {
    let mut rig = Rig::without_workers(kind);
    rig.step([beat_with(backends, &[])]);
    rig
}

/// Sends an item, has it accepted and returned; what follows.
pub(super) fn fail_once(rig: &mut Rig, actions: &[Action], item: &Item, fault: Fault) -> Vec<Action> {
    let batch = batch(actions);
    rig.step([accepted("worker", batch)]);
    rig.step([returned(rig, "worker", batch, fault, vec![item.clone()])])
}

#[test]
fn an_interactive_request_goes_to_a_backend_that_it_has_not_tried() {
    let mut rig = rig_with(ModelKind::Sequence, &["a", "b"]);
    let sent = rig.deliver(vec![item(1)]);
    let first = places(&sent)[0].0.clone();
    let again = fail_once(&mut rig, &sent, &item(1), Fault::Connect);
    assert_eq!(places(&again).len(), 1, "at once: {again:?}");
    assert_ne!(places(&again)[0].0, first);
    let taken = rig.step([accepted("worker", batch(&again))]);
    assert_eq!(taken, [Action::Release(id(1))], "its frame was acked at the first time");
    rig.step([done("worker", batch(&again), &[1])]);
    assert!(rig.is_empty());
}

#[test]
fn where_every_backend_was_tried_it_pauses_and_fails_with_the_last_failure() {
    let mut rig = rig_with(ModelKind::Sequence, &["a"]);
    let mut sent = rig.deliver(vec![item(1)]);
    for _ in 0..2 {
        assert_eq!(fail_once(&mut rig, &sent, &item(1), Fault::ServerError), [], "it rests");
        let wake = rig.engine.wake_at();
        assert!((50..=200).contains(&wake.since(rig.now).as_millis()), "{wake:?}");
        sent = rig.after(wake.since(rig.now), [beat_with(&["a"], &[])]);
        assert_eq!(places(&sent).len(), 1);
    }
    let ended = fail_once(&mut rig, &sent, &item(1), Fault::ServerError);
    let failed =
        |action: &Action| matches!(action, Action::Fail { cause: Cause::Backend(failure), .. } if failure.code == Code::BackendStatus);
    assert!(failed(&ended[0]) && ended[1..] == [Action::Release(id(1))], "{ended:?}");
    assert!(rig.is_empty());
}

#[test]
fn a_deferred_request_stays_in_custody_and_is_told_its_end_on_record() {
    let mut rig = rig_with(ModelKind::Sequence, &["a"]);
    let (frame, delivered) = rig.frame(vec![deferred(1)]);
    let mut sent = rig.step([delivered]);
    for _ in 0..4 {
        fail_once(&mut rig, &sent, &deferred(1), Fault::Connect);
        let wait = rig.engine.wake_at().since(rig.now);
        sent = rig.after(wait, [beat_with(&["a"], &[])]);
        sent.retain(|action| matches!(action, Action::Dispatch { .. }));
        if sent.is_empty() {
            let wait = rig.engine.wake_at().since(rig.now);
            sent = rig.after(wait, [beat_with(&["a"], &[])]);
        }
    }
    let ended = fail_once(&mut rig, &sent, &deferred(1), Fault::Connect);
    assert!(matches!(ended[..], [Action::Fail { cause: Cause::Backend(_), .. }]), "{ended:?}");
    assert_eq!(rig.step([Event::Committed(id(1))]), [Action::Release(id(1)), Action::Ack(frame)]);
}

#[test]
fn a_list_made_before_a_return_does_not_send_the_request_away() {
    for of_lane in [item, deferred] {
        let mut rig = rig_with(ModelKind::Sequence, &["a"]);
        let sent = rig.deliver(vec![of_lane(1)]);
        fail_once(&mut rig, &sent, &of_lane(1), Fault::Unavailable);
        assert_eq!(rig.after(5 * MS, [beat_with(&["a"], &[1])]), [], "it rests here");
        let again = rig.after(rig.engine.wake_at().since(rig.now), [beat_with(&["a"], &[])]);
        assert_eq!(places(&again).len(), 1);
    }
}

#[test]
fn what_would_pass_its_deadline_is_not_tried_again() {
    let mut rig = rig_with(ModelKind::Sequence, &["a"]);
    let hasty = Item { deadline: rig.now + 40 * MS, ..item(1) };
    let sent = rig.deliver(vec![hasty.clone()]);
    let ended = fail_once(&mut rig, &sent, &hasty, Fault::Unavailable);
    assert!(matches!(ended[0], Action::Fail { cause: Cause::Backend(_), .. }), "{ended:?}");
}

#[test]
fn what_was_cancelled_meanwhile_is_let_go() {
    let mut rig = rig_with(ModelKind::Sequence, &["a", "b"]);
    let sent = rig.deliver(vec![item(1)]);
    rig.step([accepted("worker", batch(&sent)), Event::Cancelled(vec![id(1)])]);
    assert_eq!(rig.step([returned(&rig, "worker", batch(&sent), Fault::Timeout, vec![item(1)])]), [Action::Release(id(1))]);
    assert!(rig.is_empty());
}

#[test]
fn what_was_published_again_meanwhile_is_here_once() {
    let mut rig = rig_with(ModelKind::Sequence, &["a"]);
    let sent = rig.deliver(vec![item(1)]);
    assert_eq!(fail_once(&mut rig, &sent, &item(1), Fault::Broken), []);
    let (again, delivered) = rig.frame(vec![item(1)]);
    assert_eq!(rig.step([delivered]), [Action::Ack(again)]);
    assert_eq!(rig.engine.load(Lane::Interactive).0, 1);
}

#[test]
fn a_return_of_a_batch_that_nobody_knows_is_not_taken() {
    let mut rig = rig_with(ModelKind::Sequence, &["a"]);
    assert_eq!(rig.step([returned(&rig, "worker", BatchId(7), Fault::Broken, vec![item(1)])]), [Action::Release(id(1))]);
    assert!(rig.is_empty());
}

#[test]
fn what_may_have_spoilt_a_call_shares_none_with_the_others() {
    let mut rig = rig_with(ModelKind::Array, &["a"]);
    let sent = rig.deliver(vec![item(1), item(2), item(3)]);
    let first = batch(&sent);
    rig.step([accepted("worker", first)]);
    rig.step([done("worker", first, &[3]), returned(&rig, "worker", first, Fault::Malformed, vec![item(1)])]);
    rig.step([returned(&rig, "worker", first, Fault::Connect, vec![item(2)])]);
    let mut again = rig.after(200 * MS, [beat_with(&["a"], &[])]);
    again.extend(rig.deliver(vec![item(4), item(5)]));
    again.extend(rig.after(50 * MS, []));
    let mut together: Vec<Vec<u128>> = places(&again).into_iter().map(|(_, ids)| ids).collect();
    together.sort();
    assert_eq!(together, [vec![1], vec![2], vec![4, 5]]);
}

#[test]
fn no_more_than_the_budget_is_tried_again() {
    let mut rig = rig_with(ModelKind::Sequence, &["a", "b"]);
    let mut ended = 0;
    for n in 0..40 {
        let sent = rig.deliver(vec![item(n)]);
        let again = fail_once(&mut rig, &sent, &item(n), Fault::RateLimited);
        ended += again.iter().filter(|action| matches!(action, Action::Fail { .. })).count();
        let again: Vec<BatchId> = dispatches(&again).into_iter().map(|(batch, ..)| batch).collect();
        again.into_iter().for_each(|batch| drop(rig.step([done("worker", batch, &[n])])));
    }
    assert_eq!(ended, 40 - 30 - 40 / 5, "three a second, and a fifth of the calls so far");
}

#[test]
fn a_late_double_that_fails_is_not_taken_for_the_request() {
    let mut rig = rig_with(ModelKind::Sequence, &["a"]);
    let first = batch(&rig.deliver(vec![item(1)]));
    rig.after(ACCEPT_WAIT, []);
    let second = batch(&rig.step([beat("other", 1, &[])]));
    rig.step([accepted("other", second), done("other", second, &[1])]);
    let back = rig.step([returned(&rig, "worker", first, Fault::Timeout, vec![item(1)])]);
    assert_eq!(back, [Action::Release(id(1))], "it was answered");
    assert!(rig.is_empty());
}
