//! core: the schedulers of a world: processes that seek the model's lease, renew it, and lose it.

use crate::faults::Row;
use crate::happening::Happening;
use crate::owner::Owner;
use crate::tasks::Process;
use crate::world::World;
use bytes::Bytes;
use futures::FutureExt;
use scheduler::engine::Event;
use scheduler::simulated::HELD_EVERY;
use shared::broker::{Broker, BrokerError, Bucket, LEASE_TTL, Record};
use shared::clock::Time;
use shared::domain::{Lane, NodeId};
use std::sync::Arc;
use std::time::Duration;

/// How often the lease is renewed or sought.
const ROUND: Duration = Duration::from_millis(500);

pub(crate) const NEVER: Time = Time(u64::MAX);

/// What a round at the lease came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tenure {
    Held {
        revision: u64,
        asked: Time,
    },
    Lost,
    /// Another has it, or the broker did not answer.
    Unchanged,
}

pub(crate) struct Scheduler {
    pub(crate) id: NodeId,
    pub(crate) alive: bool,
    pub(crate) stalled_until: Time,
    seeks_from: Time,
    /// The lease's revision as it was last written from here, and when that was begun.
    lease: Option<(u64, Time)>,
    pub(crate) mailbox: Vec<Event>,
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

    fn lose(&mut self) {
        (self.owner, self.lease) = (None, None);
        self.mailbox.clear();
    }
}

impl World {
    pub(crate) fn add_scheduler(&mut self) {
        let n = self.schedulers.len();
        let after = self.rng.micros(0, 5_000);
        self.post(after, Happening::Round(n));
        self.schedulers.push(Scheduler {
            id: NodeId::parse(&format!("scheduler-{n}")).expect("a token"),
            alive: true,
            stalled_until: Time::ZERO,
            seeks_from: Time::ZERO,
            lease: None,
            mailbox: Vec::new(),
            step_at: NEVER,
            owner: None,
        });
    }

    fn owners(&self) -> Vec<usize> {
        (0..self.schedulers.len()).filter(|n| self.schedulers[*n].owner.is_some()).collect()
    }

    /// The process dies; another one starts in its place.
    pub(crate) fn kill_scheduler(&mut self) {
        let victim = self.owners().first().copied().unwrap_or(self.schedulers.len() - 1);
        self.schedulers[victim].alive = false;
        self.schedulers[victim].lose();
        self.tasks.die(Process::Scheduler(victim));
        self.add_scheduler();
    }

    pub(crate) fn stall_scheduler(&mut self) {
        let Some(victim) = self.owners().first().copied() else { return };
        let until = self.now + self.rng.millis(100, 6_000);
        let stalled = &mut self.schedulers[victim].stalled_until;
        *stalled = until.max(*stalled);
    }

    /// The lease is gone, and its holder has not noticed.
    pub(crate) fn steal_lease(&self) {
        let key = self.model.as_str();
        let record = self.stored.record_get(Bucket::Leases, key).now_or_never().expect("the broker waits for nobody");
        if let Ok(Some(Record { revision, .. })) = record {
            let gone = self.stored.record_delete(Bucket::Leases, key, revision).now_or_never();
            gone.expect("the broker waits for nobody").expect("just read");
        }
    }

    /// Gives the model up in good order: its work, then its lease.
    pub(crate) fn surrender(&mut self) {
        let Some(n) = self.owners().first().copied() else { return };
        if self.now < self.schedulers[n].stalled_until {
            return;
        }
        let mut owner = self.schedulers[n].owner.take().expect("an owner");
        self.give_up(n, &mut owner);
        let (broker, key, lease) = (Arc::clone(&self.broker), self.model.clone(), self.schedulers[n].lease);
        self.schedulers[n].lose();
        self.schedulers[n].seeks_from = self.now + self.rng.millis(0, 2_000);
        self.begin(Process::Scheduler(n), async move {
            if let Some((revision, _)) = lease {
                let _ = broker.record_delete(Bucket::Leases, key.as_str(), revision).await; // It will run out.
            }
            Happening::Tenure { scheduler: n, tenure: Tenure::Unchanged }
        });
    }

    pub(crate) fn handle_scheduler(&mut self, happening: Happening) {
        let n = match &happening {
            Happening::Round(n) | Happening::Step(n) => *n,
            Happening::Tenure { scheduler, .. }
            | Happening::Announce { scheduler, .. }
            | Happening::Pull { scheduler, .. }
            | Happening::Pulled { scheduler, .. }
            | Happening::Hear { scheduler, .. }
            | Happening::Recorded { scheduler, .. } => *scheduler,
            Happening::ToScheduler { scheduler, .. } => match self.schedulers.iter().position(|one| one.id == *scheduler) {
                Some(n) => n,
                None => return,
            },
            _ => return,
        };
        if !self.schedulers[n].alive {
            return;
        }
        if let Some(idle) = self.postpones(Process::Scheduler(n)) {
            return self.post(idle, happening);
        }
        match happening {
            Happening::Round(_) => self.round(n),
            Happening::Tenure { tenure, .. } => self.hold(n, tenure),
            Happening::Hear { event, .. } => self.take_mail(n, event),
            Happening::ToScheduler { message, body, .. } => self.open_mail(n, message, &body),
            Happening::Recorded { revision, id, .. } if self.owns(n, revision) => self.take_mail(n, Event::Committed(id)),
            Happening::Announce { revision, .. } if self.owns(n, revision) => self.announce(n, revision),
            Happening::Pull { revision, lane, .. } if self.owns(n, revision) => self.pull(n, lane),
            Happening::Pulled { revision, pulled, .. } if self.owns(n, revision) => self.pulled(n, pulled),
            Happening::Step(_) => self.step(n),
            _ => {} // For an owner that is none any more.
        }
    }

    fn owns(&self, n: usize, revision: u64) -> bool {
        self.schedulers[n].owner.as_ref().is_some_and(|owner| owner.revision == revision)
    }

    fn round(&mut self, n: usize) {
        self.post(ROUND, Happening::Round(n));
        let (broker, key, name, asked) = (Arc::clone(&self.broker), self.model.clone(), self.schedulers[n].id.clone(), self.now);
        let lease = self.schedulers[n].lease;
        if lease.is_none() && self.now < self.schedulers[n].seeks_from {
            return;
        }
        self.begin(Process::Scheduler(n), async move {
            let value = Bytes::copy_from_slice(name.as_str().as_bytes());
            let written = match lease {
                Some((revision, _)) => broker.record_update(Bucket::Leases, key.as_str(), value.clone(), revision).await,
                None => broker.record_create(Bucket::Leases, key.as_str(), value.clone()).await,
            };
            let tenure = match (written, lease) {
                (Ok(revision), _) => Tenure::Held { revision, asked },
                (Err(BrokerError::Conflict), Some(_)) => match broker.record_get(Bucket::Leases, key.as_str()).await {
                    Ok(Some(record)) if record.value == value => Tenure::Held { revision: record.revision, asked },
                    _ => Tenure::Lost,
                },
                (Err(_), Some((_, renewed))) if asked.since(renewed) >= LEASE_TTL => Tenure::Lost,
                (Err(_), _) => Tenure::Unchanged,
            };
            Happening::Tenure { scheduler: n, tenure }
        });
    }

    fn hold(&mut self, n: usize, tenure: Tenure) {
        match tenure {
            Tenure::Held { revision, asked } => {
                self.schedulers[n].lease = Some((revision, asked));
                if self.schedulers[n].owner.is_none() {
                    self.take_over(n, revision);
                }
            }
            Tenure::Lost => self.schedulers[n].lose(),
            Tenure::Unchanged => {}
        }
    }

    fn take_over(&mut self, n: usize, revision: u64) {
        self.schedulers[n].owner = Some(Box::new(Owner::new(&self.plan, self.now, revision)));
        self.want_step(n, self.now);
        self.post(HELD_EVERY, Happening::Announce { scheduler: n, revision });
        (0..self.workers.len()).for_each(|worker| self.send(Row::Heartbeat, || Happening::Probed(worker)));
        Lane::ALL.into_iter().for_each(|lane| self.post(Duration::ZERO, Happening::Pull { scheduler: n, revision, lane }));
    }

    /// Something waits in a lane: its readers hear of it.
    pub(crate) fn ring(&mut self, lane: Lane) {
        for scheduler in self.owners() {
            let Some(owner) = self.schedulers[scheduler].owner.as_ref() else { continue };
            let revision = owner.revision;
            self.post(Duration::from_micros(50), Happening::Pull { scheduler, revision, lane });
        }
    }

    pub(crate) fn tell_schedulers(&mut self, row: Row, event: &Event) {
        for scheduler in 0..self.schedulers.len() {
            if self.schedulers[scheduler].alive {
                self.send(row, || Happening::Hear { scheduler, event: event.clone() });
            }
        }
    }

    pub(crate) fn take_mail(&mut self, n: usize, event: Event) {
        if self.schedulers[n].owner.is_some() {
            self.schedulers[n].mailbox.push(event);
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
