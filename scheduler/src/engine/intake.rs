//! core: how items come in: frames as the lane hands them out, once or again, and the quota's word on each item.

use super::event::{Action, Cause};
use super::frames::FrameKey;
use super::item::{Entry, Item, State};
use super::turnstile::{Account, Refused};
use super::{Engine, RUNS_ELSEWHERE_WAIT};
use shared::clock::Time;
use shared::domain::RequestId;
use shared::error::Code;
use shared::quota::{Reason, Refusal};
use std::time::Duration;

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
            self.interactive_at = Some(now);
        }
        self.deadlines.insert((item.deadline, id));
        self.arrivals += 1;
        let account = item.lane.is_deferred().then(|| item.account());
        self.hold(Entry::new(item, frame, now, self.arrivals));
        match account {
            Some(account) => {
                self.turnstiles.arrive(&account, self.arrivals, id);
                self.ask(&account, actions);
            }
            None => actions.push(Action::Reserve(id)),
        }
    }

    /// Takes an item into custody.
    pub(super) fn hold(&mut self, entry: Entry) {
        let held = &mut self.held[entry.frame.lane.index()];
        (held.items, held.bytes) = (held.items + 1, held.bytes + entry.item.bytes);
        self.items.insert(entry.item.id, entry);
    }

    /// Asks the quota about as many of an account as may be.
    pub(super) fn ask(&mut self, account: &Account, actions: &mut Vec<Action>) {
        while let Some(id) = self.turnstiles.next(account) {
            actions.push(Action::Reserve(id));
        }
    }

    /// Asks for those who were refused a while ago.
    pub(super) fn ask_again(&mut self, now: Time, actions: &mut Vec<Action>) {
        while let Some(account) = self.turnstiles.due(now) {
            self.ask(&account, actions);
        }
    }

    pub(super) fn reserved(&mut self, id: RequestId, actions: &mut Vec<Action>) {
        let Some(entry) = self.items.get_mut(&id).filter(|entry| entry.state == State::Reserving) else { return };
        entry.state = State::Waiting;
        self.queue.push(entry);
        if entry.item.lane.is_deferred() {
            let account = entry.item.account();
            self.turnstiles.granted(&account, entry.order);
            self.ask(&account, actions);
        }
    }

    /// An interactive request is its ingress's again; a deferred one waits here, unless it is more than the limit itself.
    pub(super) fn quota_refused(&mut self, now: Time, id: RequestId, refusal: Refusal, actions: &mut Vec<Action>) {
        let Some(entry) = self.items.get(&id).filter(|entry| entry.state == State::Reserving) else { return };
        if !entry.item.lane.is_deferred() {
            actions.push(Action::Refuse { id, ingress: entry.item.ingress.clone(), refusal });
            return self.drop_item(id, actions);
        }
        let Some(ms) = refusal.retry_after_ms else { return self.fail(id, Cause::Here(Code::OverLimit), actions) };
        let refused = Refused { wait: Duration::from_millis(ms.into()), opens_with_an_end: refusal.reason == Reason::Concurrency };
        self.turnstiles.refused(&entry.item.account(), entry.order, id, now, refused);
    }
}
