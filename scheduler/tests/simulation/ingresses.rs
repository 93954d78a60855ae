//! core: the ingresses of a world: each publishes, is bound to the first execution it hears, and publishes again what is lost.

use crate::faults::Row;
use crate::owner::Input;
use crate::plan::{Pace, Quota, Request, Spec, Traffic};
use crate::world::{Happening, Outcome, Record, World};
use scheduler::engine::Event;
use shared::clock::Time;
use shared::domain::{ExecId, Lane, NodeId, RequestId};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// Heartbeat and look for lost requests.
const PULSE: Duration = Duration::from_millis(500);

/// A publish without an answer is tried again, under the same message id.
const PUBLISH_AGAIN: Duration = Duration::from_millis(250);

/// Unnamed for so long after it has left the lane, a request is lost.
const SILENCE_MAX: Duration = Duration::from_secs(3);

const REPUBLISHED_MAX: u8 = 5;

/// An execution that nobody waits for is cancelled at most so often.
const STRANGER_PAUSE: Duration = Duration::from_secs(1);

/// The deadline of the patient: past the end of any world.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// What an ingress hears of an execution, or of a scheduler's verdict.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) id: RequestId,
    pub(crate) exec: Option<ExecId>,
    pub(crate) part: u32,
    /// With the last part.
    pub(crate) end: Option<Outcome>,
}

/// A request that its ingress waits for.
#[derive(Debug)]
struct Waiter {
    request: Request,
    exec: Option<ExecId>,
    part_next: u32,
    begun: bool,
    published: Option<((u64, u64), Time)>,
    named: Time,
    republished: u8,
}

impl Waiter {
    const fn new(request: Request) -> Self {
        Self { request, exec: None, part_next: 0, begun: false, published: None, named: Time::ZERO, republished: 0 }
    }

    /// While the lane holds a request, it is not silent.
    fn is_lost(&mut self, passed: Option<(u64, u64)>, now: Time) -> bool {
        let Some((at, published)) = self.published else { return false };
        if passed.is_none_or(|passed| passed.0 == at.0 && passed.1 < at.1) {
            self.named = now;
        }
        now.since(self.named.max(published)) >= SILENCE_MAX
    }
}

#[derive(Debug)]
pub(crate) struct Ingress {
    pub(crate) id: NodeId,
    pub(crate) alive: bool,
    waiting: BTreeMap<RequestId, Waiter>,
    /// Messages the broker has not confirmed.
    unconfirmed: BTreeMap<u64, Vec<Request>>,
    passed: Option<(u64, u64)>,
    strangers: BTreeMap<(RequestId, Option<ExecId>), Time>,
    messages: u64,
}

impl World {
    pub(crate) fn add_ingress(&mut self) {
        let id = NodeId::parse(&format!("ingress-{}", self.ingresses.len())).expect("a token");
        let after = self.rng.micros(0, 1_000);
        self.post(after, Happening::Pulse(self.ingresses.len()));
        self.ingresses.push(Ingress {
            id,
            alive: true,
            waiting: BTreeMap::new(),
            unconfirmed: BTreeMap::new(),
            passed: None,
            strangers: BTreeMap::new(),
            messages: 0,
        });
    }

    pub(crate) fn kill_ingress(&mut self) {
        let victim = self.rng.index(self.ingresses.len());
        let ingress = &mut self.ingresses[victim];
        ingress.alive = false;
        ingress.unconfirmed.clear();
        for id in std::mem::take(&mut ingress.waiting).into_keys() {
            self.end(id, Outcome::Orphaned);
        }
        let unstored = self.records.values().filter(|r| r.request.ingress == victim && !r.is_stored && r.outcome.is_none());
        let unstored: Vec<RequestId> = unstored.map(|r| r.request.id).collect();
        unstored.into_iter().for_each(|id| self.end(id, Outcome::Orphaned));
    }

    /// A burst, or one caller's next request.
    pub(crate) fn arrive(&mut self, traffic: usize) {
        let plan = self.plan.traffic[traffic].clone();
        if self.now >= plan.until || self.records.len() >= self.plan.requests_max {
            return;
        }
        let ingress = self.rng.index(self.ingresses.len());
        let count = match plan.pace {
            Pace::Callers { .. } => 1,
            Pace::Bursts { size, gap } => {
                let after = self.rng.gap(gap);
                self.post(after, Happening::Arrive(traffic));
                self.rng.between(1, size)
            }
        };
        if self.ingresses[ingress].alive {
            let requests: Vec<Request> = (0..count).map(|_| self.accept(traffic, &plan, ingress)).collect();
            self.send_off(ingress, &requests);
        }
    }

    /// Interactive requests share a frame, and so do those of a chunk; an async one has its own.
    fn send_off(&mut self, ingress: usize, requests: &[Request]) {
        let of = |lane: Lane| requests.iter().filter(|request| request.lane == lane).cloned().collect::<Vec<Request>>();
        let shared = [of(Lane::Interactive), of(Lane::Bulk)];
        let alone = of(Lane::Async).into_iter().map(|request| vec![request]);
        for frame in alone.chain(shared).filter(|frame| !frame.is_empty()) {
            let sender = &mut self.ingresses[ingress];
            sender.messages += 1;
            let message = sender.messages;
            sender.unconfirmed.insert(message, frame);
            self.publish(ingress, message);
        }
    }

    fn accept(&mut self, n: usize, traffic: &Traffic, ingress: usize) -> Request {
        let id = RequestId(self.mint());
        let rng = &mut self.rng;
        let (patient, leaves) = (!rng.happens(traffic.hasty), rng.happens(traffic.fickle));
        let wait = if patient { PATIENCE } else { rng.millis(5, 4_000) };
        let draw = |rng: &mut crate::rng::Rng, (low, high)| u32::try_from(rng.between(low, high)).expect("small");
        let lane = rng.pick(&traffic.lanes);
        let (tokens_in, items) = (draw(rng, traffic.tokens_in), draw(rng, traffic.items));
        let longest = draw(rng, (u64::from(tokens_in.div_ceil(items)), u64::from(tokens_in)));
        let request = Rc::new(Spec {
            id,
            traffic: n,
            tenant: traffic.tenants[rng.index(traffic.tenants.len())],
            lane,
            tokens_in,
            tokens_out: draw(rng, traffic.tokens_out),
            items,
            longest,
            bytes: if rng.happens(20) { 300 * 1024 } else { 400 },
            compat: rng.between(1, traffic.compats),
            ingress,
            deadline: self.now + wait,
            patient,
            stream: lane == Lane::Interactive && rng.happens(traffic.streams),
        });
        self.records.insert(id, Record { request: Rc::clone(&request), arrived: self.now, is_stored: false, outcome: None });
        self.expect(&request, wait, leaves);
        request
    }

    fn expect(&mut self, request: &Request, wait: Duration, leaves: bool) {
        let (ingress, id) = (request.ingress, request.id);
        if request.lane == Lane::Interactive {
            self.ingresses[ingress].waiting.insert(id, Waiter::new(Rc::clone(request)));
            if !request.patient {
                self.post(wait, Happening::Leave { ingress, id, outcome: Outcome::Expired });
            }
        }
        if leaves {
            let after = self.rng.millis(0, 1_000);
            self.post(after, Happening::Leave { ingress, id, outcome: Outcome::Left });
        }
    }

    /// Sends a message until the broker confirms it or nobody waits for what is in it.
    pub(crate) fn publish(&mut self, ingress: usize, message: u64) {
        let Some(requests) = self.ingresses[ingress].unconfirmed.get(&message) else { return };
        if requests.iter().all(|request| self.records[&request.id].outcome.is_some()) {
            self.ingresses[ingress].unconfirmed.remove(&message);
            return;
        }
        self.send(Row::Publish, Happening::Publish { ingress, message });
        self.post(PUBLISH_AGAIN, Happening::PublishAgain { ingress, message });
    }

    /// The message reaches the broker.
    pub(crate) fn store(&mut self, ingress: usize, message: u64) {
        let Some(requests) = self.ingresses[ingress].unconfirmed.get(&message) else { return };
        let awaited: Vec<Request> = requests.iter().filter(|r| self.records[&r.id].outcome.is_none()).cloned().collect();
        let Some(lane) = awaited.first().map(|request| request.lane) else { return };
        let at = self.lanes[lane.index()].publish((ingress as u64) << 32 | message, awaited);
        self.send(Row::PubAck, Happening::Stored { ingress, message, at });
        self.ring(lane);
    }

    pub(crate) fn stored(&mut self, ingress: usize, message: u64, at: (u64, u64)) {
        let sender = &mut self.ingresses[ingress];
        for request in sender.unconfirmed.remove(&message).unwrap_or_default() {
            self.records.get_mut(&request.id).expect("published what arrived").is_stored = true;
            if let Some(waiter) = sender.waiting.get_mut(&request.id) {
                waiter.published = Some((at, self.now));
            }
        }
    }

    /// The caller goes, or is told that its deadline has passed.
    pub(crate) fn leave(&mut self, ingress: usize, id: RequestId, outcome: Outcome) {
        if !self.ingresses[ingress].alive || self.records[&id].outcome.is_some() {
            return;
        }
        self.ingresses[ingress].waiting.remove(&id);
        self.end(id, outcome);
        self.cancel(id, None);
    }

    fn cancel(&mut self, id: RequestId, exec: Option<ExecId>) {
        if exec.is_none() {
            self.mail_all(Row::Cancel, &Input::Event(Event::Cancelled(vec![id])));
        }
        (0..self.workers.len()).for_each(|worker| self.send(Row::Cancel, Happening::Cancelled { worker, id, exec }));
    }

    pub(crate) fn pulse(&mut self, n: usize) {
        if !self.ingresses[n].alive {
            return;
        }
        let id = self.ingresses[n].id.clone();
        self.mail_all(Row::Heartbeat, &Input::Event(Event::IngressSeen(id)));
        (0..self.workers.len()).for_each(|worker| self.send(Row::Heartbeat, Happening::IngressHeard { worker, ingress: n }));
        self.sweep(n);
        self.post(PULSE, Happening::Pulse(n));
    }

    fn sweep(&mut self, n: usize) {
        let (ingress, now) = (&mut self.ingresses[n], self.now);
        let lost = ingress.waiting.values_mut().filter_map(|w| w.is_lost(ingress.passed, now).then_some(&*w));
        let lost: Vec<(Request, bool, u8)> = lost.map(|w| (Rc::clone(&w.request), w.begun, w.republished)).collect();
        for (request, begun, republished) in lost {
            self.ingresses[n].waiting.remove(&request.id);
            if begun || republished == REPUBLISHED_MAX {
                self.end(request.id, if begun { Outcome::Cut } else { Outcome::Lost });
                self.cancel(request.id, None);
            } else {
                self.republished += 1;
                let again = Waiter { republished: republished + 1, ..Waiter::new(Rc::clone(&request)) };
                self.ingresses[n].waiting.insert(request.id, again);
                self.send_off(n, &[request]);
            }
        }
    }

    pub(crate) fn named(&mut self, n: usize, ids: &[RequestId], passed: Option<(u64, u64)>) {
        let ingress = &mut self.ingresses[n];
        for id in ids {
            if let Some(waiter) = ingress.waiting.get_mut(id) {
                waiter.named = self.now;
            }
        }
        if let Some(heard) = passed {
            let known = ingress.passed.get_or_insert(heard);
            if known.0 != heard.0 || known.1 < heard.1 {
                *known = heard;
            }
        }
    }

    pub(crate) fn hear(&mut self, n: usize, reply: &Reply) {
        if !self.ingresses[n].alive {
            return;
        }
        let now = self.now;
        let Some(waiter) = self.ingresses[n].waiting.get_mut(&reply.id) else {
            return self.stranger(n, reply, None);
        };
        match (reply.exec, waiter.exec) {
            (None, Some(_)) => return,
            (Some(exec), Some(bound)) if exec != bound => return self.stranger(n, reply, Some(exec)),
            (Some(exec), None) if reply.part > 0 => return self.stranger(n, reply, Some(exec)),
            (exec, _) => waiter.exec = exec,
        }
        if reply.part < waiter.part_next {
            return;
        }
        if reply.part > waiter.part_next {
            return self.gap(n, reply);
        }
        waiter.part_next += 1;
        waiter.named = now;
        waiter.begun |= waiter.request.stream && reply.exec.is_some();
        if let Some(outcome) = reply.end {
            self.ingresses[n].waiting.remove(&reply.id);
            self.end(reply.id, outcome);
        }
    }

    fn gap(&mut self, n: usize, reply: &Reply) {
        let waiter = self.ingresses[n].waiting.get_mut(&reply.id).expect("looked up a moment ago");
        if waiter.begun {
            self.ingresses[n].waiting.remove(&reply.id);
            self.end(reply.id, Outcome::Cut);
            return self.stranger(n, reply, None);
        }
        (waiter.exec, waiter.part_next) = (None, 0);
        self.stranger(n, reply, reply.exec);
    }

    /// An execution that nobody waits for is met with a cancel.
    fn stranger(&mut self, n: usize, reply: &Reply, exec: Option<ExecId>) {
        let (strangers, now) = (&mut self.ingresses[n].strangers, self.now);
        let is_due = strangers.get(&(reply.id, exec)).is_none_or(|at| now.since(*at) >= STRANGER_PAUSE);
        if reply.end.is_none() && is_due {
            strangers.insert((reply.id, exec), now);
            self.cancel(reply.id, exec);
        }
    }

    /// A scheduler's word on a request that never reached a worker. Deferred work has a record to write it to.
    pub(crate) fn verdict(&mut self, id: RequestId, outcome: Outcome) {
        let request = &self.records[&id].request;
        let ingress = request.ingress;
        assert!(outcome != Outcome::Expired || request.deadline <= self.now, "{id} expires before its deadline");
        assert!(outcome != Outcome::Refused || self.plan.quota != Quota::AtOnce, "{id} is refused by nobody");
        if request.lane.is_deferred() {
            return self.commit(id, outcome);
        }
        self.send(Row::Reply, Happening::Reply { ingress, reply: Reply { id, exec: None, part: 0, end: Some(outcome) } });
    }
}
