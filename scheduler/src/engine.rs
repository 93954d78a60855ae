//! core: who goes next, with whom, and where. One engine per (model, part): `step(now, events) → actions`.
//!
//! The engine knows requests by their measures, never by their content, and waits for nothing: what takes time comes
//! back as an event. Deliveries become waiting items (`engine/intake.rs`), waiting items become batches for workers that
//! have credit (`engine/dispatch.rs`), and every item leaves in exactly one way (`engine/custody.rs`): accepted by a worker
//! (interactive) or ended with an outcome on record (deferred), answered with a failure, or dropped because nobody waits
//! for it. A request whose call failed comes back and is tried again within bounds (`engine/returned.rs`). The engine holds no bodies.

mod acked;
mod batch;
mod breaker;
mod budget;
mod call;
mod concurrency;
mod curve;
mod custody;
mod cut;
mod dispatch;
mod event;
mod fleet;
mod forecast;
mod frames;
mod intake;
mod item;
mod lanes;
mod limit;
mod line;
mod linger;
mod order;
mod places;
mod queue;
mod recent;
mod recording;
mod retry;
mod returned;
mod slots;
mod turnstile;

pub use breaker::State as Breaker;
pub use event::{Action, Cause, Event, GivenBack, Returned};
pub use fleet::{HEARTBEAT_GONE, HEARTBEAT_STALE};
pub use forecast::Wait;
pub use frames::FrameKey;
pub use item::Item;
pub use places::PATIENCE;

use budget::Budget;
use fleet::Fleet;
use foldhash::{HashMap, HashMapExt};
use forecast::Pace;
use frames::Frames;
use item::Entry;
use limit::Limits;
use linger::Linger;
use queue::FairQueue;
use recording::Recording;
use shared::clock::Time;
use shared::domain::{BatchId, Lane, ModelKind, NodeId, RequestId};
use shared::error::Code;
use shared::tombstones::Tombstones;
use std::collections::BTreeSet;
use std::time::Duration;
use turnstile::Turnstiles;

/// An unaccepted dispatch is taken back after this long and its worker left alone until it is heard again.
pub const ACCEPT_WAIT: Duration = Duration::from_millis(150);

/// Work for an ingress that has been silent this long is dropped: nobody waits for it.
pub const INGRESS_SILENT: Duration = Duration::from_secs(3);

/// A deferred frame of which something runs for another owner comes back after so long: most calls have ended by then.
pub const RUNS_ELSEWHERE_WAIT: Duration = Duration::from_secs(2);

/// How often frames are renewed and the dead are looked for: a third of the shortest ack wait.
const MAINTENANCE: Duration = Duration::from_secs(1);

/// The measures of one model, from its configuration.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    pub kind: ModelKind,
    /// Inputs in one array call.
    pub max_items: u32,
    /// Estimated tokens in one array call.
    pub max_tokens: u32,
    /// The backend pads: every input of a call costs what the longest does.
    pub padded: bool,
    /// How long one array call should take at most.
    pub objective: Duration,
    /// For how long a caller on the line waits for a backend to be tried again.
    pub patience: Duration,
    /// Nothing is dispatched before: a new owner first hears what the workers already run.
    pub dispatch_from: Time,
}

#[derive(Clone, Copy, Debug, Default)]
struct Load {
    items: usize,
    bytes: usize,
}

pub struct Engine {
    config: EngineConfig,
    /// Items in the engine's custody: until a worker has accepted them, or, if deferred, until they have ended.
    items: HashMap<RequestId, Entry>,
    /// Deferred items that have not passed the quota.
    turnstiles: Turnstiles,
    queue: FairQueue,
    fleet: Fleet,
    recording: Recording,
    frames: Frames,
    cancelled: Tombstones,
    deadlines: BTreeSet<(Time, RequestId)>,
    /// What rests before its next call, by the end of its rest.
    resting: BTreeSet<(Time, RequestId)>,
    /// Calls that may be made again.
    budget: Budget,
    /// Requests that were queued for another call.
    retried: u64,
    ingresses: HashMap<NodeId, Time>,
    linger: Linger,
    pace: Pace,
    limits: Limits,
    arrivals: u64,
    /// When interactive work last came: ceilings hold for a while after that.
    interactive_at: Option<Time>,
    /// The item of each lane that has waited for too long and is ordered one lane up.
    aged: [Option<RequestId>; Lane::ALL.len()],
    /// What is in custody of each lane.
    held: [Load; Lane::ALL.len()],
    /// The last batch's number. It starts from the clock, above those of any earlier ownership in this process, whose late
    /// answers must not be taken for these.
    batches: u64,
    maintain_at: Time,
    linger_until: Option<Time>,
    /// When the ceilings end, if they hold something back.
    ceilings_until: Option<Time>,
    /// When a backend that is shut is tried again, if something waits for a slot.
    opening_at: Option<Time>,
    /// Nothing is dispatched before; then it is `None`.
    settle_until: Option<Time>,
}

impl Engine {
    pub fn new(config: EngineConfig) -> Self {
        Self {
            items: HashMap::new(),
            turnstiles: Turnstiles::default(),
            queue: FairQueue::default(),
            fleet: Fleet::default(),
            recording: Recording::default(),
            frames: Frames::default(),
            cancelled: Tombstones::default(),
            deadlines: BTreeSet::new(),
            resting: BTreeSet::new(),
            budget: Budget::default(),
            retried: 0,
            ingresses: HashMap::new(),
            linger: Linger::default(),
            pace: Pace::default(),
            limits: Limits::new(config.max_tokens, config.objective),
            arrivals: 0,
            interactive_at: None,
            aged: Default::default(),
            held: Default::default(),
            batches: config.dispatch_from.as_micros(),
            maintain_at: Time::ZERO,
            linger_until: None,
            ceilings_until: None,
            opening_at: None,
            settle_until: Some(config.dispatch_from),
            config,
        }
    }

    /// Takes what has happened, adds what is to be done. The events of one call are one moment: a burst becomes one batch.
    pub fn step(&mut self, now: Time, events: impl IntoIterator<Item = Event>, actions: &mut Vec<Action>) {
        for event in events {
            self.apply(now, event, actions);
        }
        self.take_back_unaccepted(now, actions);
        self.maintain(now, actions);
        self.expire(now, actions);
        self.ask_again(now, actions);
        self.wake_rested(now);
        self.dispatch(now, actions);
    }

    /// When to step next even if nothing happens.
    pub fn wake_at(&self) -> Time {
        let expiry = self.deadlines.first().map(|(deadline, _)| *deadline);
        let accept = self.fleet.first_unaccepted().map(|sent| sent + ACCEPT_WAIT);
        let asking = self.turnstiles.first_due();
        let rested = self.resting.first().map(|(until, _)| *until);
        [expiry, accept, asking, rested, self.linger_until, self.ceilings_until, self.opening_at, self.settle_until]
            .into_iter()
            .flatten()
            .fold(self.maintain_at, Time::min)
    }

    /// Whether to let what is just arriving join a step: its items may share a call. One known to be alone need not wait.
    pub fn gathers(&self, now: Time) -> bool {
        self.config.kind == ModelKind::Array && self.linger.peak(now) != 1
    }

    /// Items of a lane in custody, and their bytes: what bounds the window that an owner holds.
    pub fn load(&self, lane: Lane) -> (usize, usize) {
        let Load { items, bytes } = self.held[lane.index()];
        (items, bytes)
    }

    /// Whether nothing is in custody.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether an item is in custody.
    pub fn holds(&self, id: RequestId) -> bool {
        self.items.contains_key(&id)
    }

    /// An item in custody.
    pub fn item(&self, id: RequestId) -> Option<&Item> {
        self.items.get(&id).map(|entry| &entry.item)
    }

    /// Whether a worker has the item that has not been given up, however long ago it was heard.
    pub fn runs(&self, id: RequestId) -> bool {
        self.fleet.has_accepted(id) || self.fleet.is_listed(id)
    }

    /// Whether a worker has accepted the item in another batch than this one, because an accept was late.
    pub fn runs_besides(&self, id: RequestId, batch: BatchId) -> bool {
        self.fleet.runs_besides(id, batch)
    }

    /// Waiting items by lane.
    pub fn depth(&self, lane: Lane) -> usize {
        self.queue.len(lane)
    }

    /// Requests that were queued for another call since this was asked last.
    pub fn take_retried(&mut self) -> u64 {
        std::mem::take(&mut self.retried)
    }

    /// Every backend's breaker, and whose it is where each worker has its own.
    pub fn breakers(&self) -> impl Iterator<Item = (&str, Option<&NodeId>, Breaker)> {
        self.fleet.places.iter().map(|(backend, worker, place)| (backend, worker, place.state()))
    }

    /// How many calls each backend takes at once, as far as that is less than configured.
    pub fn limits(&self, now: Time) -> impl Iterator<Item = (&str, u32)> {
        self.fleet.places.iter().map(move |(backend, _, place)| (backend, place.limit(now)))
    }

    /// Whether a breaker has opened or closed since this was asked last.
    pub fn have_breakers_changed(&mut self) -> bool {
        self.fleet.have_breakers_changed()
    }

    /// Free call slots, and outstanding calls.
    pub fn credit(&self, now: Time) -> (u32, usize) {
        (self.fleet.free_slots(now), self.fleet.outstanding())
    }

    /// What is still here, with its ingress, of interactive items that came before `before`: for the `held` announcement.
    pub fn held(&self, before: Time) -> impl Iterator<Item = (&NodeId, RequestId)> {
        let is_named = move |entry: &Entry| entry.arrived <= before && !entry.frame.lane.is_deferred();
        self.items.iter().filter(move |(_, entry)| is_named(entry)).map(|(id, entry)| (&entry.item.ingress, *id))
    }

    /// Ingresses heard of lately.
    pub fn ingresses(&self) -> impl Iterator<Item = &NodeId> {
        self.ingresses.keys()
    }

    /// Gives every open frame back, for the next owner. The engine is empty afterwards.
    pub fn surrender(&mut self, actions: &mut Vec<Action>) {
        actions.extend(self.frames.drain().map(|frame| Action::Nak(frame, Duration::ZERO)));
        actions.extend(self.items.drain().map(|(id, _)| Action::Release(id)));
        self.queue.clear();
        self.recording = Recording::default();
        self.turnstiles.clear();
        self.deadlines.clear();
        self.resting.clear();
        self.held = Default::default();
    }

    fn apply(&mut self, now: Time, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Delivered { frame, items } => self.delivered(now, frame, items, actions),
            Event::Reserved(id) => self.reserved(id, actions),
            Event::QuotaRefused { id, refusal } => self.quota_refused(now, id, refusal, actions),
            Event::Accepted { worker, batch } => self.accepted(&worker, batch, actions),
            Event::Refused { worker, batch } => self.refused(&worker, batch, actions),
            Event::Freed { worker, batch, items } => self.freed(now, &worker, batch, &items, actions),
            Event::Done { worker, batch, items } => self.done(now, &worker, batch, &items, actions),
            Event::Returned(returned) => self.returned(now, *returned, actions),
            Event::Heartbeat { worker, backends, running } => self.heartbeat(now, &worker, backends, &running, actions),
            Event::WorkerLeft(worker) => self.worker_gone(&worker, false, actions),
            Event::IngressSeen(ingress) => {
                self.ingresses.insert(ingress, now);
            }
            Event::Cancelled(ids) => self.cancel(now, ids, actions),
            Event::Committed(id) => self.committed(id, actions),
        }
    }

    fn expire(&mut self, now: Time, actions: &mut Vec<Action>) {
        while let Some((_, id)) = self.deadlines.first().copied().filter(|(deadline, _)| *deadline <= now) {
            self.fail(id, Cause::Here(Code::DeadlineExceeded), actions);
        }
    }

    fn maintain(&mut self, now: Time, actions: &mut Vec<Action>) {
        if now < self.maintain_at {
            return;
        }
        self.maintain_at = now + MAINTENANCE;
        self.frames.renew(now, actions);
        self.cancelled.sweep(now);
        self.ingresses.retain(|_, seen| now.since(*seen) < INGRESS_SILENT);
        for worker in self.fleet.silent(now) {
            self.worker_gone(&worker, true, actions);
        }
        self.promote_aged(now);
    }
}

#[cfg(test)]
mod tests;
