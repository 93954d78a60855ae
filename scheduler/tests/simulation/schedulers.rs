//! core: the schedulers of a world: processes that seek the lease, pull for it, and are killed, stalled and drained.

use crate::faults::Row;
use crate::lane::Delivery;
use crate::owner::{HELD_EVERY, Input, Owner};
use crate::world::{Happening, World};
use shared::broker::{LEASE_TTL, ack_wait};
use shared::clock::Time;
use shared::domain::{Lane, NodeId};
use shared::wire::COALESCE_MAX;
use std::time::Duration;

/// How often the lease is renewed or sought.
const ROUND: Duration = Duration::from_millis(500);

/// A pull that brought something is followed by the next.
const PULL_PAUSE: Duration = Duration::from_micros(500);

pub(crate) const NEVER: Time = Time(u64::MAX);

/// The record that says who owns the model.
#[derive(Debug, Default)]
pub(crate) struct Lease {
    holder: Option<usize>,
    expires: Time,
    revision: u64,
}

pub(crate) struct Scheduler {
    id: NodeId,
    alive: bool,
    stalled_until: Time,
    seeks_from: Time,
    pub(crate) mailbox: Vec<Input>,
    pub(crate) step_at: Time,
    pub(crate) owner: Option<Box<Owner>>,
}

impl Scheduler {
    pub(crate) fn is_empty(&self) -> bool {
        self.owner.as_ref().is_none_or(|owner| owner.is_empty())
    }

    pub(crate) fn describe(&self) -> Option<String> {
        self.owner.as_ref().map(|owner| format!("{}: {}", self.id, owner.describe()))
    }
}

impl World {
    pub(crate) fn add_scheduler(&mut self) {
        let n = self.schedulers.len();
        let id = NodeId::parse(&format!("scheduler-{n}")).expect("a token");
        let after = self.rng.micros(0, 5_000);
        self.post(after, Happening::Round(n));
        let (stalled_until, seeks_from) = (Time::ZERO, Time::ZERO);
        self.schedulers.push(Scheduler { id, alive: true, stalled_until, seeks_from, mailbox: Vec::new(), step_at: NEVER, owner: None });
    }

    fn owners(&self) -> Vec<usize> {
        (0..self.schedulers.len()).filter(|n| self.schedulers[*n].owner.is_some()).collect()
    }

    /// The process dies; another one starts in its place.
    pub(crate) fn kill_scheduler(&mut self) {
        let victim = self.owners().first().copied().unwrap_or(self.schedulers.len() - 1);
        (self.schedulers[victim].alive, self.schedulers[victim].owner) = (false, None);
        self.add_scheduler();
    }

    pub(crate) fn stall_scheduler(&mut self) {
        let Some(victim) = self.owners().first().copied() else { return };
        self.schedulers[victim].stalled_until = self.now + self.rng.millis(100, 6_000);
    }

    /// Gives the model up in good order. Whoever comes first takes it, perhaps the same one again.
    pub(crate) fn surrender(&mut self) {
        let Some(n) = self.owners().first().copied() else { return };
        if self.now < self.schedulers[n].stalled_until {
            return;
        }
        let mut owner = self.schedulers[n].owner.take().expect("an owner");
        let mut actions = Vec::new();
        owner.engine.surrender(&mut actions);
        for action in actions {
            self.perform(n, &mut owner, action);
        }
        assert!(owner.engine.is_empty(), "a surrendered engine is empty");
        if self.lease.holder == Some(n) {
            self.lease.holder = None;
        }
        self.schedulers[n].seeks_from = self.now + self.rng.millis(0, 2_000);
    }

    pub(crate) fn handle_scheduler(&mut self, happening: Happening) {
        let (Happening::Round(n)
        | Happening::Announce { scheduler: n, .. }
        | Happening::Pull { scheduler: n, .. }
        | Happening::Mail { scheduler: n, .. }
        | Happening::Step(n)) = happening
        else {
            return;
        };
        if !self.schedulers[n].alive {
            return;
        }
        if self.now < self.schedulers[n].stalled_until {
            return self.post(self.schedulers[n].stalled_until.since(self.now), happening);
        }
        match happening {
            Happening::Announce { revision, .. } => self.announce(n, revision),
            Happening::Pull { lane, .. } => self.pull(n, lane),
            Happening::Mail { input, .. } => self.take_mail(n, input),
            Happening::Step(_) => self.step(n),
            _ => self.round(n),
        }
    }

    fn round(&mut self, n: usize) {
        self.post(ROUND, Happening::Round(n));
        let is_free = self.lease.holder.is_none() || self.lease.expires <= self.now;
        if self.schedulers[n].owner.is_some() {
            if self.lease.holder == Some(n) && !is_free {
                self.lease.expires = self.now + LEASE_TTL;
            } else {
                self.schedulers[n].owner = None;
            }
        } else if is_free && self.now >= self.schedulers[n].seeks_from {
            self.take_over(n);
        }
    }

    fn take_over(&mut self, n: usize) {
        self.lease = Lease { holder: Some(n), expires: self.now + LEASE_TTL, revision: self.lease.revision + 1 };
        let revision = self.lease.revision;
        let position = self.lanes[Lane::Interactive.index()].position();
        let owner = Owner::new(&self.plan, self.now, revision, position);
        self.schedulers[n].owner = Some(Box::new(owner));
        self.want_step(n, self.now);
        self.post(HELD_EVERY, Happening::Announce { scheduler: n, revision });
        (0..self.workers.len()).for_each(|worker| self.send(Row::Heartbeat, Happening::Probed(worker)));
        Lane::ALL.into_iter().for_each(|lane| self.ring(lane));
    }

    /// The interactive stream is made anew: its readers find theirs gone, and open it again.
    pub(crate) fn lose_stream(&mut self) {
        let lane = &mut self.lanes[Lane::Interactive.index()];
        lane.wipe();
        let position = lane.position();
        for scheduler in self.owners() {
            let after = self.rng.millis(1, 400);
            self.post(after, Happening::Mail { scheduler, input: Input::Position(position) });
        }
    }

    /// Something waits in a lane: its readers hear of it.
    pub(crate) fn ring(&mut self, lane: Lane) {
        for scheduler in self.owners() {
            let after = self.rng.micros(20, 200);
            self.post(after, Happening::Pull { scheduler, lane });
        }
    }

    fn pull(&mut self, n: usize, lane: Lane) {
        let Some(owner) = &mut self.schedulers[n].owner else { return };
        if !self.lanes[lane.index()].has_waiting(self.now) {
            return;
        }
        let frames = self.plan.window.saturating_sub(owner.engine.load(lane).0) / COALESCE_MAX;
        owner.starved |= frames == 0;
        let taken = self.lanes[lane.index()].take(self.now, frames);
        if !taken.is_empty() {
            self.post(ack_wait(lane), Happening::Due(lane));
            self.post(PULL_PAUSE, Happening::Pull { scheduler: n, lane });
        }
        for mut delivery in taken {
            self.drop_settled(&mut delivery);
            self.send(Row::Delivery, Happening::Mail { scheduler: n, input: Input::Delivery(delivery) });
        }
    }

    /// Of a deferred frame that comes again, what has its outcome in the results is not run again.
    fn drop_settled(&self, delivery: &mut Delivery) {
        if delivery.key.lane.is_deferred() && delivery.attempt > 1 {
            delivery.requests.retain(|request| !self.records[&request.id].is_settled());
        }
    }

    pub(crate) fn mail_all(&mut self, row: Row, input: &Input) {
        for scheduler in 0..self.schedulers.len() {
            self.send(row, Happening::Mail { scheduler, input: input.clone() });
        }
    }

    fn take_mail(&mut self, n: usize, input: Input) {
        if self.schedulers[n].owner.is_some() {
            self.schedulers[n].mailbox.push(input);
            let after = self.rng.micros(0, 20);
            self.want_step(n, self.now + after);
        }
    }

    pub(crate) fn want_step(&mut self, n: usize, at: Time) {
        if at < self.schedulers[n].step_at {
            self.schedulers[n].step_at = at;
            self.post(at.since(self.now), Happening::Step(n));
        }
    }
}
