//! core: what the owner of a world's model reads of its lanes, and tells the ingresses of what it has.

use crate::faults::Row;
use crate::happening::Happening;
use crate::mutations::Mutation;
use crate::tasks::Process;
use crate::world::World;
use bytes::Bytes;
use scheduler::simulated::{HELD_EVERY, trim};
use shared::broker::{Delivery, LaneFilter};
use shared::domain::{Lane, NodeId, RequestId};
use shared::quota::RENEW_EVERY_MS;
use shared::wire::{Held, Passed, ToIngress};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// How often a lane is looked at for what comes back.
const PULL_PAUSE: Duration = Duration::from_millis(500);

/// Frames of one pull.
const FRAMES_MAX: usize = 8;

/// Requests that an owner holds of one lane.
const WINDOW: usize = 256;

/// What a pull brought.
#[derive(Debug)]
pub(crate) struct Pulled {
    lane: Lane,
    position: Option<(u64, u64)>,
    deliveries: Vec<Delivery>,
    /// What the pull found, before what had ended was taken out.
    frames: usize,
}

impl World {
    pub(crate) fn pull(&mut self, n: usize, lane: Lane) {
        let owner = self.schedulers[n].owner.as_mut().expect("asked for an owner");
        if owner.pulling[lane.index()] || owner.engine.load(lane).0 >= WINDOW {
            return;
        }
        owner.pulling[lane.index()] = true;
        let opens = lane == Lane::Interactive && std::mem::take(&mut owner.was_idle[lane.index()]);
        let (broker, revision) = (Arc::clone(&self.broker), owner.revision);
        let filter = LaneFilter { lane, model: self.model.clone(), part: 0 };
        self.begin(Process::Scheduler(n), async move {
            let mut puller = broker.puller(&filter).await.expect("a lane of this broker");
            let position = if opens { Some(puller.position().await.expect("a lane of this broker")) } else { None };
            let taken = puller.pull(FRAMES_MAX, Duration::ZERO).await.expect("a lane of this broker");
            let frames = taken.len();
            let mut deliveries = Vec::new();
            for delivery in taken {
                let Ok(left) = (if lane.is_deferred() { trim(&broker, delivery).await } else { Ok(Some(delivery)) }) else {
                    deliveries.clear(); // The lane was lost meanwhile: what was read comes again, if it is still there.
                    break;
                };
                deliveries.extend(left);
            }
            Happening::Pulled { scheduler: n, revision, pulled: Pulled { lane, position, deliveries, frames } }
        });
    }

    pub(crate) fn pulled(&mut self, n: usize, Pulled { lane, position, deliveries, frames }: Pulled) {
        let (now, begins_anew) = (self.now, self.has(Mutation::DeadlineBegunAnew));
        let owner = self.schedulers[n].owner.as_mut().expect("asked for an owner");
        owner.pulling[lane.index()] = false;
        owner.was_idle[lane.index()] = frames == 0;
        if let Some((epoch, sequence)) = position {
            owner.reading.opened(epoch, sequence);
        }
        let revision = owner.revision;
        for delivery in deliveries {
            if self.plan.faults.loses(&mut self.rng, now, Row::Delivery) {
                continue;
            }
            let owner = self.schedulers[n].owner.as_mut().expect("asked for an owner");
            let published = if begins_anew { now } else { delivery.stored };
            let event = owner.take_delivery(lane, &delivery, published);
            self.take_mail(n, event);
        }
        let again = if frames == 0 { PULL_PAUSE } else { Duration::ZERO };
        self.post(again, Happening::Pull { scheduler: n, revision, lane });
    }

    pub(crate) fn announce(&mut self, n: usize, revision: u64) {
        let (now, id) = (self.now, self.schedulers[n].id.clone());
        let owner = self.schedulers[n].owner.as_mut().expect("asked for an owner");
        let passed: Vec<Passed> =
            owner.reading.passed(now).into_iter().map(|(epoch, sequence)| Passed { model: self.model.clone(), epoch, sequence }).collect();
        let mut held: BTreeMap<NodeId, BTreeSet<RequestId>> = owner.engine.ingresses().map(|id| (id.clone(), BTreeSet::new())).collect();
        for (ingress, id) in owner.engine.held(now.saturating_sub(HELD_EVERY)) {
            held.entry(ingress.clone()).or_default().insert(id);
        }
        self.tend(n);
        for (ingress, ids) in held {
            let message = ToIngress::Held(Held { from: id.clone(), ids: ids.into_iter().collect(), passed: passed.clone() });
            self.send(Row::Held, || Happening::ToIngress { ingress: ingress.clone(), message: message.clone(), body: Bytes::new() });
        }
        self.post(HELD_EVERY, Happening::Announce { scheduler: n, revision });
    }

    /// Renews what is reserved, and lets run out what is neither held nor run here any more.
    fn tend(&mut self, n: usize) {
        let (now, keeps_all) = (self.now, self.has(Mutation::ReservationsKept));
        let owner = self.schedulers[n].owner.as_mut().expect("asked for an owner");
        if now < owner.renew_at {
            return;
        }
        owner.renew_at = now + Duration::from_millis(RENEW_EVERY_MS);
        let engine = &owner.engine;
        owner.reservations.forget_all_but(|id| keeps_all || engine.holds(id) || engine.runs(id));
        for (tenant, ids) in owner.reservations.by_tenant() {
            self.ledger.renew(&tenant, &ids);
        }
    }
}
