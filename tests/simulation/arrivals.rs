//! core: what arrives in a world: who asks what, by when, and how long they stay.

use crate::happening::Happening;
use crate::plan::{MODEL, Traffic};
use crate::spec::Spec;
use crate::tasks::Process;
use crate::world::{World, tenant};
use shared::domain::{Lane, RequestId};
use shared::wire::{Encoding, Envelope};
use std::rc::Rc;
use std::time::Duration;

/// The deadline of the patient: past the end of any world.
const PATIENCE: Duration = Duration::from_secs(3_600);

impl World {
    /// A burst of requests.
    pub(crate) fn arrive(&mut self, n: usize) {
        let traffic = self.plan.traffic[n].clone();
        if self.now >= self.plan.faults.until || self.audit.len() >= self.plan.requests_max {
            return;
        }
        let after = self.rng.gap(traffic.gap);
        self.post(after, Happening::Arrive(n));
        let (ingress, count) = (self.rng.index(self.ingresses.len()), self.rng.between(1, traffic.size));
        if !self.ingresses[ingress].alive || self.postpones(Process::Ingress(ingress)).is_some() {
            return;
        }
        if traffic.lane == Lane::Bulk {
            return self.order_batch(&traffic, ingress, count);
        }
        let specs: Vec<Rc<Spec>> = (0..count).map(|_| self.draw(&traffic, ingress)).collect();
        if traffic.lane.is_deferred() {
            return specs.into_iter().for_each(|spec| self.order(ingress, &spec));
        }
        let ids: Vec<RequestId> = specs.iter().map(|spec| spec.id).collect();
        specs.into_iter().for_each(|spec| self.call(ingress, spec));
        self.send_off(ingress, &ids);
    }

    fn draw(&mut self, traffic: &Traffic, ingress: usize) -> Rc<Spec> {
        let id = RequestId(self.mint());
        let spec = Rc::new(self.draw_spec(traffic, ingress, id));
        self.audit.arrived(&spec);
        spec
    }

    pub(crate) fn draw_spec(&mut self, traffic: &Traffic, ingress: usize, id: RequestId) -> Spec {
        let (rng, deadly) = (&mut self.rng, self.plan.deadly);
        let patient = !rng.happens(traffic.hasty);
        let wait = if patient { PATIENCE } else { rng.millis(5, 4_000) };
        let (low, high) = traffic.tokens_out;
        let deadly = !self.is_deadly && rng.happens(deadly);
        self.is_deadly |= deadly;
        Spec {
            id,
            tenant: rng.index(self.plan.quotas.len()),
            lane: traffic.lane,
            tokens_in: u32::try_from(rng.between(1, 50)).expect("small"),
            tokens_out: u32::try_from(rng.between(low, high)).expect("small"),
            compat: rng.between(1, traffic.compats),
            ingress,
            deadline: self.now + wait,
            patient,
            stream: !traffic.lane.is_deferred() && rng.happens(traffic.streams),
            guilty: rng.happens(self.plan.guilty),
            deadly,
            leaves: rng.happens(traffic.fickle).then(|| rng.millis(0, 1_000)),
        }
    }

    pub(crate) fn envelope(&self, spec: &Spec) -> Envelope {
        Envelope {
            id: spec.id,
            tenant: tenant(spec.tenant).into(),
            key: None,
            model: MODEL.into(),
            lane: spec.lane,
            op: self.plan.op(),
            remaining_ms: 0,
            tokens_in: spec.tokens_in,
            tokens_out: spec.tokens_out,
            items: 1,
            longest: 0,
            bytes: u32::try_from(spec.prompt().len()).expect("short"),
            compat: spec.compat,
            ingress: self.ingresses[spec.ingress].id.clone(),
            stream: spec.stream,
            encoding: Encoding::default(),
            model_at: None,
            params: "".into(),
            traceparent: None,
            claim: None,
            asked: None,
            job: None,
        }
    }
}
