//! core: how far apart the service of two tenants of one lane may drift while both have work waiting.
//!
//! VTC's bound is two of the largest items (OSDI'24, theorem 1). A batch of several is filled up with what still fits,
//! though it may not be next: what one tenant had in one batch beside its first item counts like an item. Where lengths
//! decide who fits, that may go on for several batches, up to a stated lead.

use scheduler::engine::Item;
use shared::domain::Lane;
use std::collections::{BTreeMap, BTreeSet};

/// A tenant in a lane.
type Flow = (Lane, String);

pub(crate) struct Gap {
    weights: BTreeMap<String, u32>,
    /// Tokens served by weight.
    service: BTreeMap<Flow, f64>,
    /// How far apart two flows were when both were first seen waiting.
    since: BTreeMap<(Flow, Flow), f64>,
    largest_item: f64,
    /// What one tenant had in one batch beside its first item.
    largest_ride: f64,
    lead: f64,
}

impl Gap {
    pub(crate) fn new(weights: BTreeMap<String, u32>, lead: u32) -> Self {
        Self { lead: lead.into(), weights, service: BTreeMap::new(), since: BTreeMap::new(), largest_item: 0.0, largest_ride: 0.0 }
    }

    fn cost(&self, item: &Item) -> f64 {
        Item::cost(item.tokens_in, item.tokens_out) as f64 / f64::from(self.weights[item.tenant.as_ref()])
    }

    pub(crate) fn charge(&mut self, item: &Item) {
        let cost = self.cost(item);
        *self.service.entry(flow(item)).or_default() += cost;
        self.largest_item = self.largest_item.max(cost);
    }

    pub(crate) fn refund(&mut self, item: &Item) {
        let cost = self.cost(item);
        *self.service.entry(flow(item)).or_default() -= cost;
    }

    pub(crate) fn batched<'a>(&mut self, items: impl Iterator<Item = &'a Item>) {
        let mut rides: BTreeMap<Flow, f64> = BTreeMap::new();
        for item in items {
            let cost = self.cost(item);
            rides.entry(flow(item)).and_modify(|ride| *ride += cost).or_insert(0.0);
        }
        self.largest_ride = rides.into_values().fold(self.largest_ride, f64::max);
    }

    /// Checks every pair of flows that both wait, and have since the pair was first seen.
    pub(crate) fn check<'a>(&mut self, waiting: impl Iterator<Item = &'a Item>) {
        let flows: BTreeSet<(Lane, &str)> = waiting.map(|item| (item.lane, item.tenant.as_ref())).collect();
        let flows: Vec<Flow> = flows.into_iter().map(|(lane, tenant)| (lane, tenant.to_owned())).collect();
        self.since.retain(|(one, other), _| flows.contains(one) && flows.contains(other));
        for (n, one) in flows.iter().enumerate() {
            for other in flows[n + 1..].iter().filter(|other| other.0 == one.0) {
                self.check_pair(one, other);
            }
        }
    }

    fn check_pair(&mut self, one: &Flow, other: &Flow) {
        let served = |flow: &Flow| self.service.get(flow).copied().unwrap_or_default();
        let apart = served(one) - served(other);
        let before = *self.since.entry((one.clone(), other.clone())).or_insert(apart);
        let bound = 2.0 * (self.largest_item + self.largest_ride) + self.lead;
        assert!((apart - before).abs() <= bound + 1e-6, "{one:?} and {other:?} drift apart by {}, of {bound}", apart - before);
    }
}

fn flow(item: &Item) -> Flow {
    (item.lane, item.tenant.to_string())
}
