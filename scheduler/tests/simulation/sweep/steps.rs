//! core: what a step of the engine costs by the clock, with a full window of waiting requests.

use super::cost::Lengths;
use scheduler::engine::{Action, Engine, EngineConfig, Event, FrameKey, Item, PATIENCE};
use shared::clock::{self, Time};
use shared::domain::{BatchId, ExecId, Lane, ModelKind, NodeId, RequestId};
use shared::wire::{BackendCredit, ItemDone, ItemEnd, Running, Usage};
use std::time::Duration;
use uuid::Uuid;

/// Requests that an owner holds of a model, and calls that are timed.
const WINDOW: usize = 8_192;
const CALLS: usize = 100;

struct Rig {
    engine: Engine,
    now: Time,
    sent: Option<(BatchId, Vec<RequestId>)>,
}

fn node(name: &str) -> NodeId {
    NodeId::parse(name).expect("a token")
}

/// Microseconds of a step that ends one call and starts the next, and texts in a call.
pub(super) fn measure(padded: bool, tenants: usize) -> (f64, f64) {
    let mut rig = Rig::full(padded, tenants);
    let (mut took, mut texts) = (Duration::ZERO, 0);
    for _ in 0..CALLS {
        let (batch, ids) = rig.sent.take().expect("one call follows the other");
        texts += ids.len();
        let done = |id: &RequestId| ItemDone { id: *id, end: ItemEnd::Answered, usage: Usage { input: 36, output: 0 }, fault: None };
        let ended = Event::Done { worker: node("worker"), batch, items: ids.iter().map(done).collect() };
        rig.now = rig.now + Duration::from_millis(20);
        rig.step(vec![heartbeat(&[])]);
        let begin = clock::now();
        rig.step(vec![ended]);
        took += clock::now().since(begin);
    }
    (took.as_secs_f64() * 1e6 / CALLS as f64, texts as f64 / CALLS as f64)
}

fn heartbeat(ids: &[RequestId]) -> Event {
    let backends = vec![BackendCredit { name: "only".into(), concurrency: 1, tokens: 1 << 30, shared: true, rest_ms: 0 }];
    let running = ids.iter().map(|id| Running { id: *id, exec: ExecId(Uuid::nil()), lane: Lane::Interactive, begun: false }).collect();
    Event::Heartbeat { worker: node("worker"), backends, running }
}

impl Rig {
    fn full(padded: bool, tenants: usize) -> Self {
        let (kind, objective) = (ModelKind::Array, Duration::from_millis(200));
        let config =
            EngineConfig { kind, max_items: 64, max_tokens: 16_384, padded, objective, patience: PATIENCE, dispatch_from: Time::ZERO };
        let mut rig = Self { engine: Engine::new(config), now: Time::from_millis(1_000), sent: None };
        let items: Vec<Item> = Lengths::Mixed.many(WINDOW).into_iter().zip(0..).map(|(tokens, n)| item(n, tokens, tenants)).collect();
        let frames = (0..).zip(items.chunks(64));
        let frame = |sequence| FrameKey { lane: Lane::Interactive, epoch: 1, sequence };
        let mut events: Vec<Event> = frames.map(|(n, items)| Event::Delivered { frame: frame(n), items: items.to_vec() }).collect();
        events.insert(0, Event::IngressSeen(node("ingress")));
        rig.step(events);
        rig.step(vec![heartbeat(&[])]);
        rig
    }

    fn step(&mut self, mut events: Vec<Event>) {
        let mut actions = Vec::new();
        events.push(Event::IngressSeen(node("ingress")));
        while !events.is_empty() {
            self.engine.step(self.now, events.drain(..), &mut actions);
            for action in actions.drain(..) {
                match action {
                    Action::Reserve(id) => events.push(Event::Reserved(id)),
                    Action::Dispatch { batch, items, .. } => self.sent = Some((batch, items)),
                    _ => {}
                }
            }
        }
    }
}

fn item(n: usize, tokens: u32, tenants: usize) -> Item {
    Item {
        id: RequestId(Uuid::from_u128(n as u128)),
        key: None,
        tenant: format!("tenant-{}", n % tenants).into(),
        weight: 1,
        lane: Lane::Interactive,
        tokens_in: tokens,
        tokens_out: 0,
        items: 1,
        longest: tokens,
        bytes: 100,
        compat: 0,
        deadline: Time::from_millis(600_000 + n as u64),
        ingress: node("ingress"),
    }
}
