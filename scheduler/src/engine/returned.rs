//! core: requests that workers give back because their call failed: another try, or the end.
//!
//! A deferred request never left. An interactive one left with its worker's accept and comes back with all that it takes to
//! dispatch it again. Its frame was acked then: only its ingress stands behind it, as while it ran. Both keep what they have reserved.

use super::Engine;
use super::batch::{End, Member};
use super::event::{Action, Cause, GivenBack, Returned};
use super::frames::FrameKey;
use super::item::{Entry, State};
use super::retry::Retry;
use shared::clock::Time;
use shared::domain::{Lane, RequestId};
use shared::error::Failure;
use shared::wire::{Fault, ItemEnd};
use std::time::Duration;

/// How long a deferred request rests when the budget allows no call to be made again.
const BROKE: Duration = Duration::from_secs(1);

/// Why a call failed, and where.
struct Failed {
    backend: Box<str>,
    fault: Fault,
    failure: Box<Failure>,
    /// The call had one request only.
    is_alone: bool,
    /// It was to show whether the backend answers again.
    is_trial: bool,
    /// Whether the budget pays for the next; asked when it is known that there will be one.
    is_paid: Option<bool>,
}

/// What becomes of a request.
enum Next {
    /// Another call, not before then.
    Call(Time),
    End,
}

impl Engine {
    pub(super) fn returned(&mut self, now: Time, returned: Returned, actions: &mut Vec<Action>) {
        let Returned { worker, batch, fault, failure, items } = returned;
        self.accepted(&worker, batch, actions); // A lost accept: the return says as much.
        let backend = self.fleet.backend_of(batch).unwrap_or_default();
        let (is_alone, is_trial) = (items.len() == 1, self.fleet.is_trial(batch));
        if let Some(ms) = failure.retry_after_ms.filter(|_| fault.is_overload()) {
            self.fleet.hold(now, batch, Duration::from_millis(ms.into()));
        }
        let mut failed = Failed { backend, fault, failure, is_alone, is_trial, is_paid: None };
        for item in items {
            let id = item.id;
            let end = End { id, end: ItemEnd::Failed, fault: Some(fault), written: 0 };
            let member = self.fleet.finish(&worker, batch, end, now).map(|(member, ended)| {
                ended.into_iter().for_each(|call| self.learn(now, &call));
                self.queue.refund(member.lane, &member.tenant, member.cost);
                member
            });
            if member.is_some_and(|member| self.receive(now, member, item)) {
                self.try_again(now, id, &mut failed, actions);
            } else if !self.items.contains_key(&id) {
                actions.push(Action::Release(id));
            }
        }
    }

    /// Takes a request back. False: it waits here, or another worker has it.
    fn receive(&mut self, now: Time, member: Member, back: GivenBack) -> bool {
        match (self.items.get(&member.id), back.item) {
            (Some(entry), _) => {
                let is_elsewhere = self.fleet.has_accepted(member.id) || self.recording.contains(member.id);
                entry.state == State::Running && !is_elsewhere
            }
            (None, Some(item)) if !member.is_double && !self.fleet.is_running_on_live_worker(member.id, now) => {
                self.arrivals += 1;
                let mut entry = Entry::new(item, FrameKey::NONE, back.published, self.arrivals);
                (entry.state, entry.retry) = (State::Running, member.retry);
                self.hold(entry);
                true
            }
            (None, _) => false,
        }
    }

    fn try_again(&mut self, now: Time, id: RequestId, failed: &mut Failed, actions: &mut Vec<Action>) {
        if self.cancelled.contains(id) {
            return self.drop_item(id, actions);
        }
        let Some(entry) = self.items.get_mut(&id) else { return };
        let mut retry = entry.retry.take().unwrap_or_default();
        let (lane, deadline) = (entry.item.lane, entry.item.deadline);
        // Who can wait loses nothing by showing that a backend is still dead.
        let may_pass = !failed.fault.may_be_the_requests() && !failed.fault.is_the_operators();
        let counts = !(failed.is_trial && lane.is_deferred() && may_pass);
        retry.failed(&failed.backend, failed.fault, failed.is_alone, counts);
        retry.has_time = lane.is_deferred();
        retry.back = now;
        let next = self.next_call(now, (id, lane, deadline), &mut retry, failed);
        if let Some(entry) = self.items.get_mut(&id) {
            entry.retry = Some(retry);
        }
        match next {
            Next::Call(at) => {
                self.retried += 1;
                self.rest(now, id, at);
            }
            Next::End => self.fail(id, Cause::Backend(failed.failure.clone()), actions),
        }
    }

    fn next_call(&mut self, now: Time, (id, lane, deadline): (RequestId, Lane, Time), retry: &mut Retry, failed: &mut Failed) -> Next {
        let pause = if self.fleet.has_other(now, retry.tried()) { Duration::ZERO } else { retry.pause(id) };
        let is_hopeless = lane == Lane::Interactive && self.fleet.hopeless_for(now, self.config.patience).is_some();
        if is_hopeless || retry.is_over(lane) || now + pause >= deadline {
            return Next::End;
        }
        // A call that never reached its backend adds nothing to anybody's load.
        let is_paid = failed.fault == Fault::Connect || *failed.is_paid.get_or_insert_with(|| self.budget.withdraw(now));
        retry.owes = !is_paid;
        match (is_paid, lane) {
            (true, _) => Next::Call(now + pause),
            (false, Lane::Interactive) => Next::End,
            (false, Lane::Async | Lane::Bulk) => Next::Call(now + pause.max(BROKE)),
        }
    }

    /// Queues an item, at once or when it has rested.
    fn rest(&mut self, now: Time, id: RequestId, until: Time) {
        let Some(entry) = self.items.get_mut(&id) else { return };
        self.deadlines.insert((entry.item.deadline, id));
        if until <= now {
            entry.state = State::Waiting;
            self.queue.push(entry);
        } else {
            entry.state = State::Resting(until);
            self.resting.insert((until, id));
        }
    }

    /// Whether the first in order rests before it is sent there: its last call was at one like it, and those that it has not
    /// tried are busy.
    pub(super) fn must_rest(&mut self, now: Time, id: RequestId, backend: &str) -> bool {
        let Some((entry, retry)) = self.items.get(&id).and_then(|entry| Some((entry, entry.retry.as_ref()?))) else { return false };
        if retry.has_rested || !retry.tried().iter().any(|tried| **tried == *backend) {
            return false;
        }
        let until = now + retry.pause(id);
        self.queue.remove(entry);
        self.rest(now, id, until);
        true
    }

    /// Queues what has rested, as far as the budget allows.
    pub(super) fn wake_rested(&mut self, now: Time) {
        while let Some((_, id)) = self.resting.first().copied().filter(|(until, _)| *until <= now) {
            self.resting.pop_first();
            let Some(retry) = self.items.get_mut(&id).and_then(|entry| entry.retry.as_mut()) else { continue };
            let until = if retry.owes && !self.budget.withdraw(now) { now + BROKE } else { now };
            (retry.owes, retry.has_rested) = (until > now, true);
            self.rest(now, id, until);
        }
    }
}
