//! core: the fair order, looked ahead without serving anybody: the lane whose turn it is (`lanes.rs`), in it the tenant of
//! least service (VTC, as in `queue.rs`) gives its next item, and both are charged for it, on paper, and so on. So what
//! interactive callers leave of an array call is filled with the other lanes' items.
//!
//! Lazy: looking k items ahead costs O((k + tenants) log tenants), however many wait.

use super::item::Shape;
use super::lanes::{LaneSet, Turns};
use super::queue::{FairQueue, LaneQueue, Place, share};
use shared::domain::Lane;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, btree_map};
use std::iter::Peekable;

/// Tenants that are looked at, those of least service first: as many as a batch has seats by default.
const TENANTS_MAX: usize = 64;

/// Items of a tenant that may not share the call are passed over so many times; then its others are not looked for.
const PASSED_OVER_MAX: usize = 32;

/// What may share a call, of all lanes.
pub(super) struct InOrder<'a> {
    lanes: [Peekable<Order<'a>>; Lane::ALL.len()],
    turns: Turns,
}

impl<'a> InOrder<'a> {
    /// What comes after `first`, the next of `lane`.
    pub(super) fn after(queue: &'a FairQueue, lane: Lane, first: &Shape, lead: u64) -> Self {
        let order = |lane: &'a LaneQueue| Order::of(lane, first.compat, lead).peekable();
        let mut all = Self { lanes: queue.lanes.each_ref().map(order), turns: queue.turns };
        let waiting = all.waiting();
        all.serve(lane, waiting);
        all
    }

    fn waiting(&mut self) -> LaneSet {
        LaneSet::from(self.lanes.each_mut().map(|lane| lane.peek().is_some()))
    }

    fn serve(&mut self, lane: Lane, waiting: LaneSet) -> Option<&'a Shape> {
        let shape = self.lanes[lane.index()].next()?;
        self.turns.served(lane, shape.cost, waiting);
        Some(shape)
    }
}

impl<'a> Iterator for InOrder<'a> {
    type Item = &'a Shape;

    fn next(&mut self) -> Option<&'a Shape> {
        let waiting = self.waiting();
        let lane = self.turns.next(waiting, LaneSet::ALL)?;
        self.serve(lane, waiting)
    }
}

/// What may share a call, of one lane.
struct Order<'a> {
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
    fn of(lane: &'a LaneQueue, compat: u64, lead: u64) -> Self {
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
            if shape.compat == compat && !shape.is_alone {
                return Some(shape);
            }
            self.passed_over += 1;
        }
        None
    }
}
