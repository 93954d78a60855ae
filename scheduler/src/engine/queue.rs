//! core: the waiting items, in fair order: lanes in turns (`lanes.rs`), tenants by least weighted service, items by deadline.
//!
//! The tenant rule is VTC ("Fairness in Serving Large Language Models", OSDI'24): serve the backlogged tenant with the
//! least service per weight; lift a tenant that comes back to the level of those who stayed, so that absence saves
//! nothing up. Charged at dispatch by estimate, settled by the backend's count. The service gap between two backlogged
//! tenants stays within two of the largest items. A weight comes with each item, as it is when the item comes: a changed one counts
//! from the tenant's next item on.

use super::item::{Entry, Shape};
use super::lanes::{LaneSet, Turns};
use super::order::InOrder;
use foldhash::HashMap;
use shared::clock::Time;
use shared::domain::{Lane, RequestId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Service is counted in parts of a token so that weights up to 10,000 divide it.
const SCALE: u64 = 10_000;

/// Idle tenants are forgotten when this many are known; forgetting one that is not ahead of the others changes nothing.
const FLOWS_KEPT: usize = 4_096;

/// An item's place among its tenant's: by deadline, then by arrival.
pub(super) type Place = (Time, u64, RequestId);

#[derive(Debug, Default)]
pub(super) struct Flow {
    service: u64,
    /// As of the item that came last.
    pub(super) weight: u32,
    pub(super) waiting: BTreeMap<Place, Shape>,
}

#[derive(Debug, Default)]
pub(super) struct LaneQueue {
    pub(super) flows: HashMap<Arc<str>, Flow>,
    /// Tenants with waiting items, least service first.
    pub(super) backlog: BTreeSet<(u64, Arc<str>)>,
    /// Service of the tenant served last: where one that comes back starts.
    floor: u64,
    arrivals: BTreeMap<u64, (Time, RequestId)>,
}

#[derive(Debug, Default)]
pub(super) struct FairQueue {
    pub(super) lanes: [LaneQueue; Lane::ALL.len()],
    pub(super) turns: Turns,
    tokens: u64,
}

impl FairQueue {
    pub(super) fn len(&self, lane: Lane) -> usize {
        self.lanes[lane.index()].arrivals.len()
    }

    pub(super) fn total(&self) -> usize {
        self.lanes.iter().map(|lane| lane.arrivals.len()).sum()
    }

    /// Tokens of all that waits.
    pub(super) fn tokens(&self) -> u64 {
        self.tokens
    }

    pub(super) fn push(&mut self, entry: &Entry) {
        let lane = &mut self.lanes[entry.lane.index()];
        lane.push(entry);
        lane.arrivals.insert(entry.order, (entry.arrived, entry.item.id));
        self.tokens += u64::from(entry.item.tokens());
    }

    pub(super) fn remove(&mut self, entry: &Entry) {
        let lane = &mut self.lanes[entry.lane.index()];
        lane.remove(&entry.item.tenant, &place(entry));
        lane.arrivals.remove(&entry.order);
        self.tokens -= u64::from(entry.item.tokens());
    }

    /// Takes an item for a batch and charges its lane and its tenant.
    pub(super) fn serve(&mut self, entry: &Entry, cost: u64) {
        let waiting = self.waiting();
        self.turns.served(entry.lane, cost, waiting);
        let lane = &mut self.lanes[entry.lane.index()];
        lane.floor = lane.floor.max(lane.flows.get(&entry.item.tenant).map_or(0, |flow| flow.service));
        self.remove(entry);
        self.lanes[entry.lane.index()].charge(&entry.item.tenant, cost);
    }

    pub(super) fn charge(&mut self, lane: Lane, tenant: &Arc<str>, cost: u64) {
        self.turns.charge(lane, cost);
        self.lanes[lane.index()].charge(tenant, cost);
    }

    pub(super) fn refund(&mut self, lane: Lane, tenant: &Arc<str>, cost: u64) {
        self.turns.refund(lane, cost);
        self.lanes[lane.index()].shift(tenant, |flow| flow.service.saturating_sub(share(flow.weight, cost)));
    }

    /// Replaces the estimate that was charged by what it came to.
    pub(super) fn settle(&mut self, lane: Lane, tenant: &Arc<str>, charged: u64, actual: u64) {
        if actual > charged {
            self.charge(lane, tenant, actual - charged);
        } else {
            self.refund(lane, tenant, charged - actual);
        }
    }

    /// The lanes in which something waits.
    pub(super) fn waiting(&self) -> LaneSet {
        LaneSet::of(|lane| !self.lanes[lane.index()].arrivals.is_empty())
    }

    /// The next item of a lane.
    pub(super) fn head(&self, lane: Lane) -> Option<&Shape> {
        self.lanes[lane.index()].peek()
    }

    /// The next item in fair order, of the lanes with `room`. One that is not `open` gets its floor alone.
    pub(super) fn next(&mut self, room: LaneSet, open: LaneSet) -> Option<(Lane, Shape)> {
        let lane = self.turns.next(self.waiting().and(room), open)?;
        Some((lane, *self.head(lane)?))
    }

    /// What may share a call with `first`, the next of its lane, as the fair rule would serve it one by one after that.
    /// Tenants who are more than `lead` tokens of service ahead of one who waits in their lane are left out.
    pub(super) fn in_order(&self, lane: Lane, first: &Shape, lead: u64) -> impl Iterator<Item = &Shape> {
        InOrder::after(self, lane, first, lead.saturating_mul(SCALE))
    }

    /// The items of a lane that came by `before`, in the order in which they came.
    pub(super) fn waiting_since(&self, lane: Lane, before: Time) -> impl Iterator<Item = RequestId> {
        let arrivals = self.lanes[lane.index()].arrivals.values();
        arrivals.take_while(move |(arrived, _)| *arrived <= before).map(|(_, id)| *id)
    }

    /// The most urgent lane in which something waits, and when the first and the last of it came.
    pub(super) fn arrivals(&self) -> Option<(Lane, Time, Time)> {
        Lane::ALL.into_iter().find_map(|lane| {
            let mut arrivals = self.lanes[lane.index()].arrivals.values().map(|(arrived, _)| *arrived);
            let first = arrivals.next()?;
            Some((lane, first, arrivals.next_back().unwrap_or(first)))
        })
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// What serving `cost` adds to the service of a tenant of `weight`.
pub(super) fn share(weight: u32, cost: u64) -> u64 {
    cost.saturating_mul(SCALE) / u64::from(weight.max(1))
}

/// Deferred deadlines are told to the second: the chunks of one batch, whose deadlines differ by what their way took, go in
/// the order in which they came. What has aged into a lane goes before what has the later deadlines of its own there.
fn place(entry: &Entry) -> Place {
    if entry.lane != entry.item.lane {
        return (entry.arrived, entry.order, entry.item.id);
    }
    let deadline = if entry.item.lane.is_deferred() { to_the_second(entry.item.deadline) } else { entry.item.deadline };
    (deadline, entry.order, entry.item.id)
}

const fn to_the_second(deadline: Time) -> Time {
    Time(deadline.as_micros() - deadline.as_micros() % 1_000_000)
}

impl LaneQueue {
    fn peek(&self) -> Option<&Shape> {
        let (_, tenant) = self.backlog.first()?;
        self.flows.get(tenant)?.waiting.values().next()
    }

    fn push(&mut self, entry: &Entry) {
        let tenant = &entry.item.tenant;
        if self.flows.len() >= FLOWS_KEPT && !self.flows.contains_key(tenant) {
            let floor = self.floor;
            self.flows.retain(|_, flow| !flow.waiting.is_empty() || flow.service > floor);
        }
        let floor = self.backlog.first().map_or(self.floor, |(least, _)| *least);
        let flow = self.flows.entry(Arc::clone(tenant)).or_default();
        if flow.waiting.is_empty() {
            flow.service = flow.service.max(floor);
            self.backlog.insert((flow.service, Arc::clone(tenant)));
        }
        flow.weight = entry.item.weight;
        flow.waiting.insert(place(entry), entry.shape());
    }

    fn remove(&mut self, tenant: &Arc<str>, place: &Place) {
        let Some(flow) = self.flows.get_mut(tenant) else { return };
        flow.waiting.remove(place);
        if flow.waiting.is_empty() {
            self.backlog.remove(&(flow.service, Arc::clone(tenant)));
        }
    }

    fn charge(&mut self, tenant: &Arc<str>, cost: u64) {
        self.shift(tenant, |flow| flow.service.saturating_add(share(flow.weight, cost)));
    }

    fn shift(&mut self, tenant: &Arc<str>, change: impl Fn(&Flow) -> u64) {
        let Some(flow) = self.flows.get_mut(tenant) else { return };
        let before = flow.service;
        flow.service = change(flow);
        if !flow.waiting.is_empty() {
            self.backlog.remove(&(before, Arc::clone(tenant)));
            self.backlog.insert((flow.service, Arc::clone(tenant)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::item::Item;
    use super::*;
    use crate::engine::FrameKey;
    use shared::domain::NodeId;

    fn entry(n: u64, tenant: &str, lane: Lane, deadline: u64) -> Entry {
        let item = Item {
            id: RequestId(uuid::Uuid::from_u128(u128::from(n))),
            tenant: tenant.into(),
            weight: 1,
            key: None,
            lane,
            tokens_in: 10,
            tokens_out: 0,
            items: 1,
            longest: 10,
            bytes: 1,
            compat: 0,
            deadline: Time(deadline),
            ingress: NodeId::parse("i").unwrap(),
        };
        Entry::new(item, FrameKey { lane, epoch: 0, sequence: n }, Time(n), n)
    }

    fn next(queue: &mut FairQueue) -> Option<RequestId> {
        queue.next(LaneSet::ALL, LaneSet::ALL).map(|(_, shape)| shape.id)
    }

    fn serve_all(queue: &mut FairQueue, entries: &[Entry]) -> Vec<u128> {
        let mut order = Vec::new();
        while let Some(id) = next(queue) {
            let entry = entries.iter().find(|e| e.item.id == id).unwrap();
            queue.serve(entry, 10);
            order.push(id.0.as_u128());
        }
        order
    }

    fn weighing(weight: u32, mut entry: Entry) -> Entry {
        entry.item.weight = weight;
        entry
    }

    fn queue_of(entries: &[Entry]) -> FairQueue {
        let mut queue = FairQueue::default();
        entries.iter().for_each(|e| queue.push(e));
        queue
    }

    #[test]
    fn a_burst_of_one_tenant_does_not_delay_another() {
        let mut entries: Vec<_> = (0..10).map(|n| entry(n, "loud", Lane::Interactive, 100)).collect();
        entries.push(entry(10, "quiet", Lane::Interactive, 100));
        let order = serve_all(&mut queue_of(&entries), &entries);
        assert!(order.iter().position(|n| *n == 10).unwrap() <= 1, "{order:?}");
    }

    #[test]
    fn service_follows_weights() {
        let mut entries: Vec<_> = (0..30).map(|n| entry(n, "a", Lane::Interactive, 100)).collect();
        entries.extend((30..60).map(|n| weighing(3, entry(n, "b", Lane::Interactive, 100))));
        let order = serve_all(&mut queue_of(&entries), &entries);
        let of_b = order[..20].iter().filter(|n| **n >= 30).count();
        assert!((14..=16).contains(&of_b), "{of_b} of the first 20");
    }

    #[test]
    fn a_changed_weight_counts_from_the_next_item_on() {
        let mut entries: Vec<_> = (0..40).map(|n| entry(n, "a", Lane::Interactive, 100)).collect();
        entries.extend((40..80).map(|n| entry(n, "b", Lane::Interactive, 100)));
        let mut queue = queue_of(&entries);
        entries.push(weighing(3, entry(80, "b", Lane::Interactive, 100)));
        queue.push(&entries[80]);
        let order = serve_all(&mut queue, &entries);
        let of_b = order[..20].iter().filter(|n| **n >= 40).count();
        assert!((14..=16).contains(&of_b), "{of_b} of the first 20");
    }

    #[test]
    fn within_a_tenant_the_earliest_deadline_goes_first() {
        let entries = [90, 50, 70].map(|second| entry(second, "a", Lane::Async, second * 1_000_000));
        assert_eq!(serve_all(&mut queue_of(&entries), &entries), [50, 70, 90]);
    }

    #[test]
    fn chunks_of_one_batch_go_as_they_came_though_their_deadlines_differ_by_a_moment() {
        let at = |second: u64, more: u64| second * 1_000_000 + more;
        let entries = [
            entry(1, "a", Lane::Bulk, at(90, 700)),
            entry(2, "a", Lane::Bulk, at(90, 300)),
            entry(3, "a", Lane::Bulk, at(90, 900)),
            entry(4, "a", Lane::Bulk, at(89, 0)),
        ];
        assert_eq!(serve_all(&mut queue_of(&entries), &entries), [4, 1, 2, 3]);
    }

    #[test]
    fn absence_saves_nothing_up() {
        let mut entries: Vec<_> = (0..20).map(|n| entry(n, "busy", Lane::Interactive, 100)).collect();
        let mut queue = queue_of(&entries);
        for entry in &entries[..10] {
            queue.serve(entry, 10);
        }
        entries.extend((20..30).map(|n| entry(n, "back", Lane::Interactive, 100)));
        entries[20..].iter().for_each(|e| queue.push(e));
        let order = serve_all(&mut queue, &entries);
        let of_back = order[..10].iter().filter(|n| **n >= 20).count();
        assert!((4..=6).contains(&of_back), "it shares from now on, and is owed nothing: {order:?}");
    }

    #[test]
    fn looking_ahead_sees_what_serving_would_serve() {
        let mut entries: Vec<_> = (0..10).map(|n| entry(n, "a", Lane::Interactive, 100)).collect();
        entries.extend((10..20).map(|n| weighing(3, entry(n, "b", Lane::Interactive, 100))));
        entries.extend((20..25).map(|n| entry(n, "a", Lane::Bulk, 100)));
        let mut queue = queue_of(&entries);
        let (lane, first) = queue.next(LaneSet::ALL, LaneSet::ALL).unwrap();
        let rest = queue.in_order(lane, &first, u64::MAX).map(|shape| shape.id);
        let ahead: Vec<u128> = std::iter::once(first.id).chain(rest).map(|id| id.0.as_u128()).collect();
        assert_eq!(ahead, serve_all(&mut queue, &entries));
    }

    #[test]
    fn who_is_more_than_the_lead_ahead_is_not_seen() {
        let entries = [entry(1, "a", Lane::Interactive, 100), entry(2, "b", Lane::Interactive, 100)];
        let mut queue = queue_of(&entries);
        queue.charge(Lane::Interactive, &"b".into(), 500);
        let (lane, first) = queue.next(LaneSet::ALL, LaneSet::ALL).unwrap();
        assert_eq!([499, 500].map(|lead| queue.in_order(lane, &first, lead).count()), [0, 1]);
    }

    #[test]
    fn a_refund_gives_the_turn_back() {
        let entries = [entry(1, "a", Lane::Interactive, 100), entry(2, "b", Lane::Interactive, 100)];
        let mut queue = queue_of(&entries);
        let first = next(&mut queue).unwrap();
        let entry = entries.iter().find(|e| e.item.id == first).unwrap();
        queue.serve(entry, 10);
        queue.refund(Lane::Interactive, &entry.item.tenant, 10);
        queue.push(entry);
        assert_eq!(next(&mut queue), Some(first));
    }
}
