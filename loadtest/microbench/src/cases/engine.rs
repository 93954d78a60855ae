//! core: the scheduler's engine on a steady road: in each call some requests arrive, as many leave, and the same number waits.
//!
//! A call is the rounds that the scheduler's loop makes of it: delivered → reserved → dispatched → accepted → done.
//! Heartbeats, twice a second, are kept outside.

use super::{Case, samples};
use scheduler::engine::{Action, Engine, EngineConfig, Event, FrameKey, Item, PATIENCE};
use shared::clock::Time;
use shared::domain::{BatchId, Lane, ModelKind, NodeId, RequestId};
use shared::wire::{BackendCredit, ItemDone, ItemEnd, Usage};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Inputs of one array call, and the requests that arrive in one frame where as many wait.
const BATCH: u32 = 64;

const ROUND: Duration = Duration::from_millis(1);

const HEARTBEAT: Duration = Duration::from_millis(500);

pub(super) fn cases() -> Vec<Case> {
    let kinds = [("chat", ModelKind::Sequence), ("embeddings", ModelKind::Array)];
    let sizes = [(1, 1), (1, 100), (64, 1), (64, 100), (1_024, 1), (1_024, 100)];
    let cases = kinds.into_iter().flat_map(|kind| sizes.map(|size| (kind, size)));
    cases
        .map(|((word, kind), (waiting, tenants))| {
            Case::new(format!("engine/{word}/waiting-{waiting}/tenants-{tenants}"), move |meter| {
                meter.run(&mut Road::new(kind, waiting, tenants), Road::arrive, Road::travel);
            })
        })
        .collect()
}

/// One model's engine with one worker.
struct Road {
    engine: Engine,
    now: Time,
    heard: Time,
    worker: NodeId,
    ingress: NodeId,
    tenants: Vec<Arc<str>>,
    requests: u64,
    frames: u64,
    /// Requests of one frame.
    burst: u32,
    /// How many wait when nothing is on its way.
    standing: usize,
    calls: u32,
    actions: Vec<Action>,
    reserved: Vec<Event>,
    sent: Vec<(BatchId, Vec<RequestId>)>,
    running: VecDeque<(BatchId, Vec<RequestId>)>,
}

impl Road {
    /// A road on which `waiting` requests wait when the next batch is formed. If that is more than a burst, all slots are busy.
    fn new(kind: ModelKind, waiting: u32, tenants: u32) -> Self {
        let (burst, calls) = if kind == ModelKind::Array { (waiting.min(BATCH), 1) } else { (1, BATCH) };
        let config = EngineConfig {
            kind,
            max_items: BATCH,
            max_tokens: u32::MAX,
            padded: false,
            objective: Duration::from_millis(200),
            patience: PATIENCE,
            dispatch_from: Time::ZERO,
        };
        let mut road = Self {
            engine: Engine::new(config),
            now: Time::from_millis(10_000),
            heard: Time::ZERO,
            worker: NodeId::parse("worker-3f9c0a1b").expect("a token"),
            ingress: NodeId::parse("ingress-3f9c0a1b").expect("a token"),
            tenants: (0..tenants).map(|n| format!("tenant-{n}").into()).collect(),
            requests: 0,
            frames: 0,
            burst,
            standing: (waiting - burst) as usize,
            calls,
            actions: Vec::new(),
            reserved: Vec::new(),
            sent: Vec::new(),
            running: VecDeque::new(),
        };
        road.hear();
        road.fill();
        road
    }

    /// Busy slots first, then the requests that wait for them.
    fn fill(&mut self) {
        while self.engine.depth(Lane::Interactive) < self.standing {
            let delivered = self.frame();
            self.admit(delivered);
        }
    }

    /// Time goes on and a frame comes; not measured.
    fn arrive(&mut self) -> Event {
        assert_eq!(self.engine.depth(Lane::Interactive), self.standing, "the road is as busy as it is said to be");
        self.now = self.now + ROUND;
        self.hear();
        self.frame()
    }

    fn frame(&mut self) -> Event {
        self.frames += 1;
        let frame = FrameKey { lane: Lane::Interactive, epoch: 1, sequence: self.frames };
        Event::Delivered { frame, items: (0..self.burst).map(|_| self.item()).collect() }
    }

    /// What is measured.
    fn travel(&mut self, delivered: Event) {
        self.admit(delivered);
        self.finish();
        self.accept();
    }

    fn admit(&mut self, delivered: Event) {
        self.step([delivered]);
        let reserved = std::mem::take(&mut self.reserved);
        self.step(reserved);
        self.accept();
    }

    fn accept(&mut self) {
        for (batch, ids) in std::mem::take(&mut self.sent) {
            self.step([Event::Accepted { worker: self.worker.clone(), batch }]);
            self.running.push_back((batch, ids));
        }
    }

    fn finish(&mut self) {
        let (batch, ids) = self.running.pop_front().expect("something always runs");
        let usage = Usage { input: 300, output: 0 };
        let items = ids.into_iter().map(|id| ItemDone { id, end: ItemEnd::Answered, usage, fault: None }).collect();
        self.step([Event::Done { worker: self.worker.clone(), batch, items }]);
    }

    fn step(&mut self, events: impl IntoIterator<Item = Event>) {
        self.engine.step(self.now, events, &mut self.actions);
        for action in self.actions.drain(..) {
            match action {
                Action::Reserve(id) => self.reserved.push(Event::Reserved(id)),
                Action::Dispatch { batch, items, .. } => self.sent.push((batch, items)),
                _ => {}
            }
        }
    }

    fn hear(&mut self) {
        if self.now.since(self.heard) < HEARTBEAT {
            return;
        }
        self.heard = self.now;
        let credit = BackendCredit { name: "backend".into(), concurrency: self.calls, tokens: u32::MAX, shared: false, rest_ms: 0 };
        let beat = Event::Heartbeat { worker: self.worker.clone(), backends: vec![credit], running: Vec::new() };
        self.step([beat, Event::IngressSeen(self.ingress.clone())]);
    }

    fn item(&mut self) -> Item {
        self.requests += 1;
        let tenant = &self.tenants[self.requests as usize % self.tenants.len()];
        Item {
            id: samples::id(self.requests),
            key: None,
            tenant: Arc::clone(tenant),
            weight: 1,
            lane: Lane::Interactive,
            tokens_in: 30, // A full batch is within what the engine lets a call hold from the start.
            tokens_out: 0,
            longest: 30,
            items: 1,
            bytes: 1_300,
            compat: 0,
            deadline: self.now + Duration::from_secs(600),
            ingress: self.ingress.clone(),
        }
    }
}
