//! core: the ingresses of a world: around the real table, what the road, its publisher and the handlers do: publish until it is
//! confirmed, publish again what is lost, and hand each caller the parts of one answer.

use crate::audit::Outcome;
use crate::faults::Row;
use crate::happening::Happening;
use crate::mutations::Mutation;
use crate::spec::Spec;
use crate::tasks::Process;
use crate::world::World;
use bytes::Bytes;
use futures::FutureExt;
use ingress::simulated::{Answer, Desk, News, Orders};
use scheduler::engine::Event;
use shared::broker::{Broker, LaneSubject, Stored};
use shared::clock::Time;
use shared::domain::{ExecId, Lane, NodeId, RequestId};
use shared::wire::{Cancel, FrameWriter, ToIngress, decode};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// Heartbeat and look for lost requests.
const PULSE: Duration = Duration::from_millis(500);

/// A publish without an answer is tried again, under the same message id.
const PUBLISH_AGAIN: Duration = Duration::from_millis(250);

/// A caller, and what they have of their answer.
struct Caller {
    spec: Rc<Spec>,
    answer: Answer,
    parts: Vec<Bytes>,
}

pub(crate) struct Ingress {
    pub(crate) id: NodeId,
    pub(crate) alive: bool,
    pub(crate) stalled_until: Time,
    desk: Desk,
    callers: BTreeMap<RequestId, Caller>,
    /// Messages that the broker has not confirmed.
    unconfirmed: BTreeMap<u64, (Vec<RequestId>, Bytes)>,
    messages: u64,
}

impl Ingress {
    pub(crate) fn is_empty(&self) -> bool {
        self.callers.is_empty() && self.unconfirmed.is_empty()
    }
}

impl World {
    pub(crate) fn add_ingress(&mut self) {
        let n = self.ingresses.len();
        let id = NodeId::parse(&format!("ingress-{n}")).expect("a token");
        let after = self.rng.micros(0, 1_000);
        self.post(after, Happening::Pulse(n));
        self.post(after, Happening::Sweep(n));
        self.post(after, Happening::Drive(n));
        let (callers, unconfirmed) = Default::default();
        self.ingresses.push(Ingress {
            id,
            alive: true,
            stalled_until: Time::ZERO,
            desk: Desk::default(),
            callers,
            unconfirmed,
            messages: 0,
        });
    }

    /// The process dies with its callers; another one starts in its place.
    pub(crate) fn kill_ingress(&mut self) {
        let victim = self.rng.index(self.ingresses.len());
        if !self.ingresses[victim].alive {
            return;
        }
        let ingress = &mut self.ingresses[victim];
        ingress.alive = false;
        ingress.unconfirmed.clear();
        for id in std::mem::take(&mut ingress.callers).into_keys() {
            self.audit.end(id, Outcome::Orphaned, self.now);
        }
        self.tasks.die(Process::Ingress(victim));
        self.drives.retain(|(ingress, _), _| *ingress != victim);
        let unheard = self.audit.submitter_died(victim);
        self.add_ingress();
        self.ask_again(unheard);
    }

    pub(crate) fn stall_ingress(&mut self) {
        let victim = self.rng.index(self.ingresses.len());
        let until = self.now + self.rng.millis(100, 6_000);
        let stalled = &mut self.ingresses[victim].stalled_until;
        *stalled = until.max(*stalled);
    }

    pub(crate) fn handle_ingress(&mut self, happening: Happening) {
        let n = match &happening {
            Happening::Arrive(traffic) => return self.arrive(*traffic),
            // It reaches the broker, whatever becomes of the sender.
            Happening::Publish { ingress, message } => return self.store(*ingress, *message),
            Happening::PublishAgain { ingress: n, .. }
            | Happening::Stored { ingress: n, .. }
            | Happening::Leave { ingress: n, .. }
            | Happening::Pulse(n) => *n,
            Happening::ToIngress { ingress, .. } => match self.ingresses.iter().position(|one| one.alive && one.id == *ingress) {
                Some(n) => n,
                None => return,
            },
            _ => return,
        };
        if !self.ingresses[n].alive {
            return;
        }
        if let Some(idle) = self.postpones(Process::Ingress(n)) {
            return self.post(idle, happening);
        }
        match happening {
            Happening::PublishAgain { message, .. } => self.publish(n, message),
            Happening::Stored { message, stored, .. } => self.confirmed(n, message, stored),
            Happening::Leave { id, outcome, .. } => self.leave(n, id, outcome),
            Happening::ToIngress { message, body, .. } => self.hear(n, message, body),
            _ => self.pulse(n),
        }
    }

    /// A caller on the line.
    pub(crate) fn call(&mut self, n: usize, spec: Rc<Spec>) {
        let (id, deadline, leaves) = (spec.id, spec.deadline, spec.leaves);
        let envelope = self.envelope(&spec);
        let answer = self.ingresses[n].desk.wait(envelope, spec.prompt(), deadline);
        self.ingresses[n].callers.insert(id, Caller { spec, answer, parts: Vec::new() });
        self.post(deadline.since(self.now), Happening::Leave { ingress: n, id, outcome: Outcome::Expired });
        if let Some(after) = leaves {
            self.post(after, Happening::Leave { ingress: n, id, outcome: Outcome::Left });
        }
    }

    pub(crate) fn send_off(&mut self, n: usize, ids: &[RequestId]) {
        let now = self.now;
        for (ids, frame) in self.ingresses[n].desk.loads(ids, now) {
            let sender = &mut self.ingresses[n];
            sender.messages += 1;
            let message = sender.messages;
            sender.unconfirmed.insert(message, (ids, frame));
            self.set_out(n, message);
        }
    }

    fn set_out(&mut self, ingress: usize, message: u64) {
        self.send(Row::Publish, || Happening::Publish { ingress, message });
        self.post(PUBLISH_AGAIN, Happening::PublishAgain { ingress, message });
    }

    /// The same requests once more, as long as anybody waits for them.
    fn publish(&mut self, n: usize, message: u64) {
        let now = self.now;
        let sender = &mut self.ingresses[n];
        let Some((ids, _)) = sender.unconfirmed.get(&message) else { return };
        let ids = ids.clone();
        let mut writer = FrameWriter::new();
        for (_, frame) in sender.desk.loads(&ids, now) {
            decode(&frame).expect("one's own frame").iter().for_each(|part| writer.push(part));
        }
        if writer.is_empty() {
            sender.unconfirmed.remove(&message);
            return;
        }
        sender.unconfirmed.insert(message, (ids, writer.take()));
        self.set_out(n, message);
    }

    /// The message reaches the broker.
    fn store(&mut self, ingress: usize, message: u64) {
        let sender = &self.ingresses[ingress];
        let Some((_, frame)) = sender.unconfirmed.get(&message) else { return };
        let lane = Lane::Interactive;
        let to = LaneSubject { lane, model: self.model.clone(), part: 0, origin: sender.id.clone() };
        let name = format!("{}-{message}", sender.id);
        let stored = self.stored.publish(&to, &name, frame.clone()).now_or_never().expect("the broker waits for nobody");
        let stored = stored.expect("the lane has room");
        self.send(Row::PubAck, || Happening::Stored { ingress, message, stored });
        self.ring(lane);
    }

    fn confirmed(&mut self, n: usize, message: u64, stored: Stored) {
        let now = self.now;
        let sender = &mut self.ingresses[n];
        if let Some((ids, _)) = sender.unconfirmed.remove(&message) {
            sender.desk.published(&ids, stored, now);
        }
    }

    /// The caller goes, or is told that its deadline has passed.
    fn leave(&mut self, n: usize, id: RequestId, outcome: Outcome) {
        if self.ingresses[n].callers.remove(&id).is_some() {
            self.end_call(n, id, outcome);
        }
    }

    /// A handler ends, and its ticket is dropped.
    fn end_call(&mut self, n: usize, id: RequestId, outcome: Outcome) {
        let (now, resumed) = (self.now, self.ingresses[n].stalled_until);
        let late = outcome == Outcome::Answered && now > self.audit.spec(id).deadline.max(resumed);
        assert!(!late, "{id} is answered after its deadline");
        self.audit.end(id, outcome, now);
        let orders = self.ingresses[n].desk.abandon(id, now);
        self.obey(n, orders);
        assert!(!self.ingresses[n].desk.is_waiting(id), "{id} has ended and is waited for");
    }

    pub(crate) fn cancel(&mut self, cancel: &Cancel) {
        if cancel.exec.is_none() {
            self.tell_schedulers(Row::Cancel, &Event::Cancelled(cancel.ids.clone()));
        }
        (0..self.workers.len()).for_each(|worker| self.send(Row::Cancel, || Happening::Cancelled { worker, cancel: cancel.clone() }));
    }

    fn obey(&mut self, n: usize, orders: Orders) {
        orders.cancels.iter().for_each(|cancel| self.cancel(cancel));
        for (worker, resend) in orders.asks {
            self.send(Row::Cancel, || Happening::Resend { worker: worker.clone(), resend });
        }
        for id in orders.publish.into_iter().filter(|_| !self.has(Mutation::LostNotPublished)).collect::<Vec<_>>() {
            self.audit.republished += 1;
            self.send_off(n, &[id]);
        }
    }

    fn pulse(&mut self, n: usize) {
        let id = self.ingresses[n].id.clone();
        self.tell_schedulers(Row::Heartbeat, &Event::IngressSeen(id.clone()));
        (0..self.workers.len()).for_each(|worker| self.send(Row::Heartbeat, || Happening::IngressHeard { worker, ingress: id.clone() }));
        let now = self.now;
        let orders = self.ingresses[n].desk.sweep(now);
        self.obey(n, orders);
        let waiting: Vec<RequestId> = self.ingresses[n].callers.keys().copied().collect();
        waiting.into_iter().for_each(|id| self.read(n, id));
        self.post(PULSE, Happening::Pulse(n));
    }

    fn hear(&mut self, n: usize, mut message: ToIngress, body: Bytes) {
        if let ToIngress::Reply(reply) = &mut message
            && self.has(Mutation::AnyExecutionHeard)
        {
            reply.exec = reply.exec.map(|_| ExecId(uuid::Uuid::nil()));
        }
        let id = match &message {
            ToIngress::Reply(reply) => Some(reply.id),
            ToIngress::Refused { id, .. } => Some(*id),
            ToIngress::Held(_) | ToIngress::Looked(_) | ToIngress::Moved(_) => None,
        };
        let now = self.now;
        let orders = self.ingresses[n].desk.hear(message, body, now);
        self.obey(n, orders);
        if let Some(id) = id {
            self.read(n, id);
        }
    }

    /// The caller takes what there is of the answer.
    fn read(&mut self, n: usize, id: RequestId) {
        loop {
            let Some(caller) = self.ingresses[n].callers.get_mut(&id) else { return };
            let Some(news) = caller.answer.hear() else { return };
            let outcome = match news {
                News::Part { number, body, last } => caller.take(number, body, last),
                News::Failed(failure) => Some(Outcome::Failed(failure.code)),
                News::Refused(_) => Some(Outcome::Refused),
            };
            if let Some(outcome) = outcome {
                self.ingresses[n].callers.remove(&id);
                self.end_call(n, id, outcome);
            }
        }
    }
}

impl Caller {
    /// An answer that begins anew is another execution's, and only one that its caller has not begun to read.
    fn take(&mut self, number: u32, body: Bytes, last: bool) -> Option<Outcome> {
        if number == 0 {
            assert!(self.parts.is_empty() || !self.spec.stream, "{} streams two answers to one caller", self.spec.id);
            self.parts.clear();
        }
        assert_eq!(self.parts.len(), number as usize, "{} has a hole in its answer", self.spec.id);
        self.parts.push(body);
        if last {
            self.spec.check_answer(&self.parts);
        }
        last.then_some(Outcome::Answered)
    }
}
