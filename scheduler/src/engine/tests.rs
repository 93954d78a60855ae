//! The engine's behaviours, one by one. What they come to together is shown by `tests/simulation`.

use super::*;
use shared::wire::{ItemEnd, Usage};
use uuid::Uuid;

const MS: Duration = Duration::from_millis(1);

/// An engine with one worker that was just heard, at 10 s: past the settling of a new owner.
struct Rig {
    engine: Engine,
    now: Time,
    frames: u64,
}

fn node(name: &str) -> NodeId {
    NodeId::parse(name).unwrap()
}

fn id(n: u64) -> RequestId {
    RequestId(Uuid::from_u128(u128::from(n)))
}

fn item(n: u64) -> Item {
    Item {
        id: id(n),
        tenant: "t".into(),
        lane: Lane::Interactive,
        tokens_in: 10,
        tokens_out: 0,
        items: 1,
        bytes: 100,
        compat: 0,
        deadline: Time::from_millis(600_000),
        ingress: node("ingress"),
    }
}

fn deferred(n: u64) -> Item {
    Item { lane: Lane::Async, ..item(n) }
}

fn credit(concurrency: u32, tokens: u32) -> BackendCredit {
    BackendCredit { name: "backend".into(), concurrency, tokens, shared: false }
}

fn beat(worker: &str, concurrency: u32, running: &[u64]) -> Event {
    let running = running.iter().map(|n| Running { id: id(*n), exec: shared::domain::ExecId(Uuid::nil()), lane: Lane::Interactive });
    Event::Heartbeat { worker: node(worker), backends: vec![credit(concurrency, 1_000)], running: running.collect() }
}

fn done(worker: &str, batch: BatchId, ids: &[u64]) -> Event {
    let usage = Usage { input: 10, output: 0 };
    let items = ids.iter().map(|n| ItemDone { id: id(*n), end: ItemEnd::Answered, usage }).collect();
    Event::Done { worker: node(worker), batch, items }
}

fn accepted(worker: &str, batch: BatchId) -> Event {
    Event::Accepted { worker: node(worker), batch }
}

impl Rig {
    fn without_workers(kind: ModelKind) -> Self {
        let config = EngineConfig { kind, max_items: 4, max_tokens: 100, weights: HashMap::new(), dispatch_from: Time::ZERO };
        let mut rig = Self { engine: Engine::new(config), now: Time::from_millis(10_000), frames: 0 };
        rig.step([Event::IngressSeen(node("ingress"))]);
        rig
    }

    fn new(kind: ModelKind, concurrency: u32) -> Self {
        let mut rig = Self::without_workers(kind);
        rig.step([beat("worker", concurrency, &[])]);
        rig
    }

    /// One round of the loop, with a quota that allows everything.
    fn step(&mut self, events: impl IntoIterator<Item = Event>) -> Vec<Action> {
        let (mut events, mut all): (Vec<Event>, Vec<Action>) = (events.into_iter().collect(), Vec::new());
        loop {
            let mut actions = Vec::new();
            self.engine.step(self.now, events.drain(..), &mut actions);
            events.extend(actions.iter().filter_map(|a| if let Action::Reserve(id) = a { Some(Event::Reserved(*id)) } else { None }));
            all.extend(actions.into_iter().filter(|a| !matches!(a, Action::Reserve(_))));
            if events.is_empty() {
                return all;
            }
        }
    }

    fn after(&mut self, wait: Duration, events: impl IntoIterator<Item = Event>) -> Vec<Action> {
        self.now = self.now + wait;
        self.step(events)
    }

    /// A frame that the lane hands out for the first time.
    fn frame(&mut self, items: Vec<Item>) -> (FrameKey, Event) {
        self.frames += 1;
        let frame = FrameKey { lane: items[0].lane, epoch: 1, sequence: self.frames };
        (frame, Event::Delivered { frame, items })
    }

    fn deliver(&mut self, items: Vec<Item>) -> Vec<Action> {
        let (_, event) = self.frame(items);
        self.step([event])
    }

    fn is_empty(&self) -> bool {
        self.engine.load() == (0, 0) && self.engine.credit(self.now).1 == 0
    }
}

/// The dispatches among actions: batch, worker, and the numbers of the items.
fn dispatches(actions: &[Action]) -> Vec<(BatchId, String, Vec<u128>)> {
    let of = |action: &Action| match action {
        Action::Dispatch { batch, worker, items, .. } => {
            Some((*batch, worker.to_string(), items.iter().map(|id| id.0.as_u128()).collect()))
        }
        _ => None,
    };
    actions.iter().filter_map(of).collect()
}

fn batch(actions: &[Action]) -> BatchId {
    let sent = dispatches(actions);
    assert_eq!(sent.len(), 1, "{actions:?}");
    sent[0].0
}

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
fn what_two_workers_have_is_not_sent_to_a_third_when_one_of_them_leaves() {
    let mut rig = Rig::new(ModelKind::Sequence, 1);
    let (frame, delivered) = rig.frame(vec![deferred(1)]);
    let first = batch(&rig.step([delivered.clone()]));
    rig.after(ACCEPT_WAIT, []);
    let second = batch(&rig.step([beat("other", 1, &[])]));
    rig.step([accepted("other", second), accepted("worker", first)]);
    assert_eq!(rig.step([Event::WorkerLeft(node("other"))]), [Action::Nak(frame)]);
    assert_eq!(rig.step([beat("third", 1, &[]), delivered]), [Action::Close(frame), Action::Release(id(1))]);
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
fn a_new_owner_never_acks_a_deferred_frame_that_a_worker_runs() {
    let mut rig = Rig::without_workers(ModelKind::Sequence);
    rig.step([beat("worker", 1, &[1])]);
    let (frame, delivered) = rig.frame(vec![deferred(1)]);
    assert_eq!(rig.step([delivered.clone()]), [Action::Close(frame), Action::Release(id(1))]);
    let sent = rig.after(HEARTBEAT_GONE, [beat("other", 1, &[]), delivered]);
    assert_eq!(dispatches(&sent).len(), 1, "and takes it when it comes back from a dead one");

    let mut rig = Rig::without_workers(ModelKind::Sequence);
    let (frame, delivered) = rig.frame(vec![deferred(1)]);
    rig.step([delivered.clone()]);
    assert_eq!(rig.step([beat("worker", 1, &[1])]), [Action::Release(id(1)), Action::Close(frame)]);
    let sent = rig.after(HEARTBEAT_GONE, [beat("other", 1, &[]), delivered]);
    assert_eq!(dispatches(&sent).len(), 1, "also when the heartbeat came after the frame");
}

#[test]
fn a_deferred_frame_is_its_workers_to_ack_and_comes_back_when_that_dies() {
    let mut rig = Rig::new(ModelKind::Sequence, 1);
    let (frame, delivered) = rig.frame(vec![deferred(1)]);
    let first = batch(&rig.step([delivered.clone()]));
    assert_eq!(rig.step([accepted("worker", first)]), [Action::Release(id(1))]);
    assert_eq!(rig.step([Event::WorkerLeft(node("worker"))]), [Action::Nak(frame)]);
    let second = batch(&rig.step([delivered, beat("other", 1, &[])]));
    rig.step([accepted("other", second)]);
    assert_eq!(rig.step([done("other", second, &[1])]), [Action::Close(frame)]);
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
    let failed = Action::Fail { id: id(1), ingress: node("ingress"), code: Code::DeadlineExceeded };
    assert_eq!(rig.after(500 * MS, [beat("worker", 1, &[])]), [Action::Release(id(1)), failed, Action::Ack(frame)]);
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
fn a_quota_that_refuses_fails_the_request() {
    let mut rig = Rig::new(ModelKind::Sequence, 1);
    let (frame, delivered) = rig.frame(vec![item(1)]);
    let mut actions = Vec::new();
    rig.engine.step(rig.now, [delivered], &mut actions);
    assert_eq!(actions, [Action::Reserve(id(1))], "nothing else happens before the quota has answered");
    let failed = Action::Fail { id: id(1), ingress: node("ingress"), code: Code::TooManyInFlight };
    let refused = Event::QuotaRefused { id: id(1), retry_at: rig.now };
    assert_eq!(rig.step([refused]), [Action::Release(id(1)), failed, Action::Ack(frame)]);
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
fn a_surrendered_engine_gives_everything_back() {
    let mut rig = Rig::without_workers(ModelKind::Sequence);
    let (frame, delivered) = rig.frame(vec![item(1)]);
    rig.step([delivered]);
    let mut actions = Vec::new();
    rig.engine.surrender(&mut actions);
    assert_eq!(actions, [Action::Nak(frame), Action::Release(id(1))]);
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
    assert_eq!(rig.engine.load().0, 1, "an answer to the earlier one is not taken for the later one's");
}
