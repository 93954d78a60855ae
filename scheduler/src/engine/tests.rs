//! The engine's behaviours, one by one. What they come to together is shown by `tests/simulation`.

mod breakers;
mod custody;
mod lanes;
mod padding;
mod placing;
mod recovery;
mod returned;

use super::*;
use shared::domain::BatchId;
use shared::wire::{BackendCredit, ItemDone, ItemEnd, Running, Usage};
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
        weight: 1,
        key: None,
        lane: Lane::Interactive,
        tokens_in: 10,
        tokens_out: 0,
        items: 1,
        longest: 10,
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
    BackendCredit { name: "backend".into(), concurrency, tokens, shared: false, rest_ms: 0 }
}

fn beat(worker: &str, concurrency: u32, running: &[u64]) -> Event {
    let running =
        running.iter().map(|n| Running { id: id(*n), exec: shared::domain::ExecId(Uuid::nil()), lane: Lane::Interactive, begun: false });
    Event::Heartbeat { worker: node(worker), backends: vec![credit(concurrency, 1_000)], running: running.collect() }
}

fn done(worker: &str, batch: BatchId, ids: &[u64]) -> Event {
    let usage = Usage { input: 10, output: 0 };
    let items = ids.iter().map(|n| ItemDone { id: id(*n), end: ItemEnd::Answered, usage, fault: None }).collect();
    Event::Done { worker: node(worker), batch, items }
}

fn freed(worker: &str, batch: BatchId, ids: &[u64]) -> Event {
    match done(worker, batch, ids) {
        Event::Done { worker, batch, items } => Event::Freed { worker, batch, items },
        other => other,
    }
}

fn accepted(worker: &str, batch: BatchId) -> Event {
    Event::Accepted { worker: node(worker), batch }
}

impl Rig {
    fn without_workers(kind: ModelKind) -> Self {
        let (objective, dispatch_from) = (200 * MS, Time::ZERO);
        let config = EngineConfig { kind, max_items: 4, max_tokens: 100, padded: false, objective, patience: PATIENCE, dispatch_from };
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
        self.engine.is_empty() && self.engine.credit(self.now).1 == 0
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
