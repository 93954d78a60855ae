//! core: how items come in: frames as the lane hands them out, once or again, and the quota's word on each item.

use super::event::Action;
use super::frames::FrameKey;
use super::item::{Entry, Item, State};
use super::{Engine, RUNS_ELSEWHERE_WAIT};
use shared::clock::Time;
use shared::domain::RequestId;
use shared::quota::Refusal;

impl Engine {
    pub(super) fn delivered(&mut self, now: Time, frame: FrameKey, items: Vec<Item>, actions: &mut Vec<Action>) {
        let ids: Vec<RequestId> = items.iter().map(|item| item.id).collect();
        self.place(now, frame, items, actions);
        let not_here = ids.into_iter().filter(|id| !self.items.contains_key(id));
        actions.extend(not_here.map(Action::Release));
    }

    fn place(&mut self, now: Time, frame: FrameKey, items: Vec<Item>, actions: &mut Vec<Action>) {
        if self.frames.is_acked(frame) {
            actions.push(Action::Ack(frame)); // The ack was lost.
            return;
        }
        if self.frames.redelivered(frame, now) {
            return; // Its items are here already; only the token is new.
        }
        if frame.lane.is_deferred() && items.iter().any(|item| self.is_in_hand(now, item.id)) {
            actions.push(Action::Nak(frame, RUNS_ELSEWHERE_WAIT));
            return;
        }
        let fresh: Vec<Item> = items.into_iter().filter(|item| self.is_fresh(now, item.id)).collect();
        if fresh.is_empty() {
            self.frames.ack(frame);
            actions.push(Action::Ack(frame));
            return;
        }
        self.frames.open(frame, fresh.len(), now);
        for item in fresh {
            self.admit(now, frame, item, actions);
        }
    }

    /// Whether an item is here in another frame, or running on a worker that lives.
    fn is_in_hand(&self, now: Time, id: RequestId) -> bool {
        self.items.contains_key(&id) || self.fleet.is_running_on_live_worker(id, now)
    }

    /// Whether an item is to be placed.
    fn is_fresh(&mut self, now: Time, id: RequestId) -> bool {
        if self.cancelled.contains(id) || self.is_in_hand(now, id) {
            return false;
        }
        self.fleet.forget(id, now); // Its worker is silent: the ingress published it again.
        true
    }

    fn admit(&mut self, now: Time, frame: FrameKey, item: Item, actions: &mut Vec<Action>) {
        let id = item.id;
        if !item.lane.is_deferred() {
            self.ingresses.entry(item.ingress.clone()).or_insert(now);
        }
        self.deadlines.insert((item.deadline, id));
        self.bytes += item.bytes;
        self.arrivals += 1;
        self.items.insert(id, Entry { item, frame, state: State::Reserving, arrived: now, order: self.arrivals });
        actions.push(Action::Reserve(id));
    }

    pub(super) fn reserved(&mut self, id: RequestId) {
        if let Some(entry) = self.items.get_mut(&id)
            && entry.state == State::Reserving
        {
            entry.state = State::Waiting;
            self.queue.push(entry);
        }
    }

    pub(super) fn quota_refused(&mut self, id: RequestId, refusal: Refusal, actions: &mut Vec<Action>) {
        let asked = self.items.get(&id).is_some_and(|entry| entry.state == State::Reserving);
        if asked && let Some(entry) = self.remove(id, actions) {
            actions.push(Action::Refuse { id, ingress: entry.item.ingress.clone(), refusal });
            self.leave_frame(&entry, actions);
        }
    }
}
