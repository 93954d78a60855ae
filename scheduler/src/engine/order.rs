//! core: the fair order of one lane, looked ahead without serving anybody: the tenant of least service gives its next
//! item and is charged for it, on paper, and so on (VTC, as in `queue.rs`).
//!
//! Lazy: looking k items ahead costs O((k + tenants) log tenants), however many wait.

use super::item::Shape;
use super::queue::{LaneQueue, Place, share};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, btree_map};

/// Tenants that are looked at, those of least service first: as many as a batch has seats by default.
const TENANTS_MAX: usize = 64;

/// Items of a tenant that may not share the call are passed over so many times; then its others are not looked for.
const PASSED_OVER_MAX: usize = 32;

pub(super) struct Order<'a> {
    compat: u64,
    flows: Vec<Ahead<'a>>,
    /// Whose turn it is: the service a tenant would have, and its place in `flows`.
    turns: BinaryHeap<Reverse<(u64, usize)>>,
}

/// The items of one tenant that are still ahead.
struct Ahead<'a> {
    weight: u32,
    items: btree_map::Values<'a, Place, Shape>,
    passed_over: usize,
}

impl<'a> Order<'a> {
    /// Tenants whose service is more than `lead` above the least are left out.
    pub(super) fn of(lane: &'a LaneQueue, compat: u64, lead: u64) -> Self {
        let most = lane.backlog.first().map_or(0, |(least, _)| least.saturating_add(lead));
        let tenants = lane.backlog.iter().take_while(|(service, _)| *service <= most).take(TENANTS_MAX);
        let (mut flows, mut turns) = (Vec::new(), Vec::new());
        for (n, (service, tenant)) in tenants.enumerate() {
            let flow = lane.flows.get(tenant).expect("a tenant in the backlog has a flow");
            flows.push(Ahead { weight: flow.weight, items: flow.waiting.values(), passed_over: 0 });
            turns.push(Reverse((*service, n)));
        }
        Self { compat, flows, turns: turns.into() }
    }
}

impl<'a> Iterator for Order<'a> {
    type Item = &'a Shape;

    fn next(&mut self) -> Option<&'a Shape> {
        while let Some(Reverse((service, n))) = self.turns.pop() {
            let flow = &mut self.flows[n];
            if let Some(shape) = flow.next(self.compat) {
                self.turns.push(Reverse((service.saturating_add(share(flow.weight, shape.cost)), n)));
                return Some(shape);
            }
        }
        None
    }
}

impl<'a> Ahead<'a> {
    fn next(&mut self, compat: u64) -> Option<&'a Shape> {
        while self.passed_over < PASSED_OVER_MAX {
            let shape = self.items.next()?;
            if shape.compat == compat {
                return Some(shape);
            }
            self.passed_over += 1;
        }
        None
    }
}
