//! core: one array model at one accelerator: the real engine, callers who know only their texts, and virtual time. Of the
//! road there is a fixed delay each way; nothing is lost.

use super::cost::{Cost, Lengths, ms};
use crate::rng::Rng;
use scheduler::engine::{Action, Engine, EngineConfig, Event, FrameKey, Item, PATIENCE};
use shared::clock::Time;
use shared::domain::{BatchId, Lane, ModelKind, NodeId, RequestId};
use shared::wire::{BackendCredit, ItemDone, ItemEnd, Usage};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use uuid::Uuid;

/// From caller to engine, from engine to accelerator, and back.
const ROAD: Duration = Duration::from_micros(200);

/// Callers look at their answer and ask again within this.
const THINK_MICROS: u64 = 300;

const HEARTBEAT: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug)]
pub(crate) enum Load {
    /// So many callers who ask again when they are answered.
    Callers(usize),
    /// So many texts a second, whatever becomes of them.
    Rate(f64),
}

#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) load: Load,
    pub(crate) lengths: Lengths,
    pub(crate) padded: bool,
    pub(crate) max_items: u32,
    pub(crate) max_tokens: u32,
    pub(crate) objective: f64,
    /// What calls cost from when on.
    pub(crate) costs: Vec<(Time, Cost)>,
    /// Counted from when to when.
    pub(crate) window: (Time, Time),
}

/// What was seen within the window.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Texts and tokens answered a second.
    pub(crate) texts: f64,
    pub(crate) tokens: f64,
    pub(crate) calls: usize,
    /// Tokens computed for nothing, of all computed.
    pub(crate) padding: f64,
    /// Milliseconds beyond those that a text alone at an idle accelerator takes.
    pub(crate) added_p50: f64,
    pub(crate) added_p99: f64,
    /// The longest call, in milliseconds, of all but one in twenty.
    pub(crate) call_p95: f64,
}

#[derive(Clone, Copy, Debug)]
enum Happening {
    Ask,
    Arrive(RequestId),
    Ended(BatchId),
    Beat,
}

struct Text {
    tokens: u32,
    asked: Time,
    /// What it would take alone, in milliseconds.
    alone: f64,
}

struct Running {
    ids: Vec<RequestId>,
    took: Duration,
}

#[derive(Default)]
struct Tally {
    added: Vec<f64>,
    calls: Vec<f64>,
    useful: u64,
    computed: u64,
}

pub(crate) struct Bench {
    setting: Setting,
    rng: Rng,
    now: Time,
    engine: Engine,
    agenda: BTreeMap<(Time, u64), Happening>,
    serial: u64,
    texts: HashMap<RequestId, Text>,
    running: HashMap<BatchId, Running>,
    tally: Tally,
}

fn node(name: &str) -> NodeId {
    NodeId::parse(name).expect("a token")
}

/// Lives it through.
pub(crate) fn run(setting: Setting) -> Seen {
    let Setting { max_items, max_tokens, padded, objective, .. } = setting;
    let (kind, objective) = (ModelKind::Array, ms(objective));
    let config = EngineConfig { kind, max_items, max_tokens, padded, objective, patience: PATIENCE, dispatch_from: Time::ZERO };
    let mut bench = Bench {
        setting,
        rng: Rng::new(1),
        now: Time::ZERO,
        engine: Engine::new(config),
        agenda: BTreeMap::new(),
        serial: 0,
        texts: HashMap::new(),
        running: HashMap::new(),
        tally: Tally::default(),
    };
    bench.post(Duration::ZERO, Happening::Beat);
    let asking = if let Load::Callers(count) = bench.setting.load { count } else { 1 };
    for _ in 0..asking {
        let after = bench.rng.micros(1_000, 3_000);
        bench.post(after, Happening::Ask);
    }
    bench.live();
    bench.seen()
}

impl Bench {
    fn live(&mut self) {
        while self.now < self.setting.window.1 {
            let next = self.agenda.first_key_value().expect("there is always a heartbeat to come").0.0;
            self.now = next.min(self.engine.wake_at().max(self.now + Duration::from_micros(1)));
            let mut events = Vec::new();
            while let Some(entry) = self.agenda.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let happening = entry.remove();
                events.extend(self.handle(happening));
            }
            self.step(events);
        }
    }

    fn step(&mut self, mut events: Vec<Event>) {
        let mut actions = Vec::new();
        loop {
            self.engine.step(self.now, events.drain(..), &mut actions);
            for action in actions.drain(..) {
                match action {
                    Action::Reserve(id) => events.push(Event::Reserved(id)),
                    Action::Dispatch { batch, items, .. } => events.push(self.start(batch, items)),
                    Action::Fail { id, cause, .. } => panic!("{id} failed: {cause:?}"),
                    _ => {}
                }
            }
            if events.is_empty() {
                return;
            }
        }
    }

    fn handle(&mut self, happening: Happening) -> Vec<Event> {
        match happening {
            Happening::Ask => {
                self.ask();
                Vec::new()
            }
            Happening::Arrive(id) => vec![self.deliver(id)],
            Happening::Ended(batch) => vec![self.ended(batch)],
            Happening::Beat => self.beat(),
        }
    }

    fn ask(&mut self) {
        let id = RequestId(Uuid::from_u128(u128::from(self.serial)));
        let tokens = self.setting.lengths.draw(&mut self.rng);
        let alone = self.cost().of(&[tokens]) + 3.0 * ROAD.as_secs_f64() * 1_000.0;
        self.texts.insert(id, Text { tokens, asked: self.now, alone });
        self.post(ROAD, Happening::Arrive(id));
        if let Load::Rate(rate) = self.setting.load {
            let gap = self.rng.gap(Duration::from_secs_f64(1.0 / rate));
            self.post(gap, Happening::Ask);
        }
    }

    fn deliver(&mut self, id: RequestId) -> Event {
        let tokens = self.texts[&id].tokens;
        let item = Item {
            id,
            key: None,
            tenant: "only".into(),
            weight: 1,
            lane: Lane::Interactive,
            tokens_in: tokens,
            tokens_out: 0,
            items: 1,
            longest: tokens,
            bytes: 4 * tokens as usize,
            compat: 0,
            deadline: self.now + Duration::from_secs(600),
            ingress: node("ingress"),
        };
        let frame = FrameKey { lane: Lane::Interactive, epoch: 1, sequence: self.serial };
        self.serial += 1;
        Event::Delivered { frame, items: vec![item] }
    }

    fn start(&mut self, batch: BatchId, ids: Vec<RequestId>) -> Event {
        let lengths: Vec<u32> = ids.iter().map(|id| self.texts[id].tokens).collect();
        let took = self.cost().draw(&mut self.rng, &lengths);
        if self.is_counted() {
            self.tally.useful += u64::from(lengths.iter().sum::<u32>());
            self.tally.computed += u64::from(lengths.iter().max().expect("not empty") * lengths.len() as u32);
        }
        self.running.insert(batch, Running { ids, took });
        self.post(ROAD + took + ROAD, Happening::Ended(batch));
        Event::Accepted { worker: node("worker"), batch }
    }

    fn ended(&mut self, batch: BatchId) -> Event {
        let Running { ids, took } = self.running.remove(&batch).expect("a batch ends once");
        let mut items = Vec::with_capacity(ids.len());
        for id in ids {
            let text = self.texts.remove(&id).expect("a text is answered once");
            if self.is_counted() {
                self.tally.added.push(self.now.since(text.asked).as_secs_f64() * 1_000.0 - text.alone);
            }
            items.push(ItemDone { id, end: ItemEnd::Answered, usage: Usage { input: text.tokens, output: 0 }, fault: None });
            if matches!(self.setting.load, Load::Callers(_)) {
                let after = ROAD + self.rng.micros(0, THINK_MICROS);
                self.post(after, Happening::Ask);
            }
        }
        if self.is_counted() {
            self.tally.calls.push(took.as_secs_f64() * 1_000.0);
        }
        Event::Done { worker: node("worker"), batch, items }
    }

    fn beat(&mut self) -> Vec<Event> {
        self.post(HEARTBEAT, Happening::Beat);
        let backends = vec![BackendCredit { name: "only".into(), concurrency: 1, tokens: 1 << 30, shared: true, rest_ms: 0 }];
        let listed = self.running.values().flat_map(|running| &running.ids);
        let exec = shared::domain::ExecId(Uuid::nil());
        let running = listed.map(|id| shared::wire::Running { id: *id, exec, lane: Lane::Interactive, begun: false }).collect();
        vec![Event::IngressSeen(node("ingress")), Event::Heartbeat { worker: node("worker"), backends, running }]
    }

    fn cost(&self) -> Cost {
        self.setting.costs.iter().rfind(|(from, _)| *from <= self.now).expect("a first cost").1
    }

    fn is_counted(&self) -> bool {
        (self.setting.window.0..self.setting.window.1).contains(&self.now)
    }

    fn post(&mut self, after: Duration, happening: Happening) {
        self.serial += 1;
        self.agenda.insert((self.now + after, self.serial), happening);
    }

    fn seen(mut self) -> Seen {
        let seconds = self.setting.window.1.since(self.setting.window.0).as_secs_f64();
        let Tally { added, calls, useful, computed } = &mut self.tally;
        Seen {
            texts: added.len() as f64 / seconds,
            tokens: *useful as f64 / seconds,
            calls: calls.len(),
            padding: 1.0 - *useful as f64 / *computed as f64,
            added_p50: percentile(added, 50),
            added_p99: percentile(added, 99),
            call_p95: percentile(calls, 95),
        }
    }
}

fn percentile(of: &mut [f64], percent: usize) -> f64 {
    of.sort_by(f64::total_cmp);
    of.get(of.len() * percent / 100).copied().unwrap_or(f64::NAN)
}
