//! core: forms the batches: who anchors one, who may join it, which slot takes it, and when a free slot waits a moment.

use super::batch::{Batch, Member, Slot};
use super::call::{Bounds, Call};
use super::cut;
use super::item::{Item, Shape, State};
use super::lanes::{INTERACTIVE_RECENT, LaneSet, ceiling};
use super::linger::Arrivals;
use super::{Action, Cause, Engine, EngineConfig, INGRESS_SILENT};
use shared::clock::Time;
use shared::domain::{BatchId, Lane, ModelKind, RequestId};
use std::iter;

/// Bytes of one dispatched batch: a batch travels in one frame (768 KiB) with room for its header.
const BATCH_BYTES_MAX: usize = 700 * 1024;

/// Items that are looked at to fill a call, in calls: enough that neighbours in length are found among random ones.
const LOOK_AHEAD: usize = 4;

impl Engine {
    pub(super) fn dispatch(&mut self, now: Time, actions: &mut Vec<Action>) {
        (self.linger_until, self.ceilings_until, self.opening_at) = (None, None, None);
        self.settle_until = self.settle_until.filter(|until| now < *until);
        if self.settle_until.is_some() {
            return;
        }
        self.count_company(now);
        let mut room = LaneSet::ALL;
        while let Some((lane, first)) = self.next_awaited(now, room, actions) {
            let tried = if first.is_retry { self.items[&first.id].tried() } else { &[] };
            let Some(slot) = self.fleet.free_slot(now, first.tokens, tried) else {
                if !self.gives_up(now, lane, first.id, actions) {
                    room = room.above(lane); // Nobody less urgent goes past what finds no room.
                }
                continue;
            };
            if first.is_retry && self.must_rest(now, first.id, &slot.backend) {
                continue;
            }
            let bounds = self.bounds(&slot);
            if let Some(until) = self.hold_for_company(now, &slot, &bounds) {
                self.linger_until = Some(until);
                return;
            }
            let call = self.gather(lane, &first, bounds, self.limits.overhead(&slot.backend));
            if !first.is_retry {
                self.budget.called(now);
            }
            self.send(now, slot, call, actions);
        }
    }

    /// Nobody on the line waits where every backend is shut for long. Whoever waits is looked at again when one opens.
    fn gives_up(&mut self, now: Time, lane: Lane, id: RequestId, actions: &mut Vec<Action>) -> bool {
        let hopeless = self.fleet.hopeless_for(now, self.config.patience).filter(|_| lane == Lane::Interactive);
        match hopeless {
            Some(wait) => self.fail(id, Cause::Down(wait), actions),
            None => self.opening_at = self.fleet.next_opening(now),
        }
        hopeless.is_some()
    }

    fn send(&mut self, now: Time, slot: Slot, call: Call, actions: &mut Vec<Action>) {
        self.batches += 1;
        let (batch, size) = (BatchId(self.batches), call.size());
        let members: Vec<Member> = call.into_ids().into_iter().filter_map(|id| self.take(now, id, actions)).collect();
        let ids: Vec<RequestId> = members.iter().map(|m| m.id).collect();
        members.iter().for_each(|member| self.pace.served(now, member.lane));
        self.linger.dispatched(now, self.queue.total() + ids.len() + self.fleet.outstanding());
        actions.push(Action::Dispatch { batch, worker: slot.worker.clone(), backend: slot.backend.clone(), items: ids });
        self.fleet.dispatched(now, batch, Batch::new(slot, members, size, now));
    }

    fn count_company(&mut self, now: Time) {
        if self.config.kind == ModelKind::Array
            && let Some((lane, ..)) = self.queue.arrivals()
        {
            self.linger.counted(now, lane, self.queue.total() + self.fleet.outstanding());
        }
    }

    /// Array calls wait a little while the callers known to be in the system have not yet come back.
    fn hold_for_company(&self, now: Time, slot: &Slot, bounds: &Bounds) -> Option<Time> {
        if self.config.kind != ModelKind::Array {
            return None;
        }
        let (lane, first, last) = self.queue.arrivals()?;
        let waiting = self.queue.total();
        if waiting >= bounds.inputs as usize || self.queue.tokens() >= bounds.tokens {
            return None;
        }
        let freed = self.fleet.freed_at(); // Those who came while no slot was free have not been waited for yet.
        let arrivals = Arrivals { lane, first: first.max(freed), last: last.max(freed), waiting };
        self.linger.hold_until(now, &arrivals, self.fleet.outstanding(), self.limits.fixed(&slot.backend))
    }

    /// The next item by lane, tenant and deadline that anybody still waits for.
    fn next_awaited(&mut self, now: Time, room: LaneSet, actions: &mut Vec<Action>) -> Option<(Lane, Shape)> {
        loop {
            let open = self.open_lanes(now);
            let (lane, first) = self.queue.next(room, open)?;
            if self.is_awaited(now, &self.items[&first.id].item) {
                return Some((lane, first));
            }
            self.drop_item(first.id, actions);
        }
    }

    /// The lanes whose next item stays below its ceiling. An array call is bounded by `objective_ms` instead, whoever is in it.
    fn open_lanes(&mut self, now: Time) -> LaneSet {
        let until = self.interactive_at.map(|at| at + INTERACTIVE_RECENT).filter(|until| now < *until);
        let waiting = self.queue.waiting();
        if self.config.kind == ModelKind::Array || until.is_none() || !(waiting.has(Lane::Async) || waiting.has(Lane::Bulk)) {
            return LaneSet::ALL;
        }
        let filled = self.fleet.filled(now);
        let is_below = |lane: Lane| self.queue.head(lane).is_none_or(|head| filled.is_idle() || filled.with(head.tokens) <= ceiling(lane));
        let open = LaneSet::of(|lane| lane == Lane::Interactive || is_below(lane));
        if open != LaneSet::ALL {
            self.ceilings_until = until;
        }
        open
    }

    /// A deferred request has a record that waits for its answer, whatever became of its ingress.
    fn is_awaited(&self, now: Time, item: &Item) -> bool {
        item.lane.is_deferred() || self.ingresses.get(&item.ingress).is_some_and(|seen| now.since(*seen) < INGRESS_SILENT)
    }

    /// Who shares the call of the first in fair order.
    fn gather(&self, lane: Lane, first: &Shape, bounds: Bounds, overhead: u64) -> Call {
        let mut call = Call::new(bounds);
        if self.config.kind != ModelKind::Array || first.is_alone {
            call.offer(first);
            return call;
        }
        let others = self.queue.in_order(lane, first, self.lead()).filter(|other| other.is_retry == first.is_retry);
        let mut order = iter::once(first).chain(others).take(self.look_ahead());
        if self.config.padded {
            let window: Vec<&Shape> = order.by_ref().take(cut::ITEMS_MAX).collect();
            cut::with_first(&window, &bounds, overhead).into_iter().for_each(|n| call.offer(window[n]));
            if call.len() < window.len() {
                return call; // The others wait for company of their own length.
            }
        }
        while !call.is_full()
            && let Some(shape) = order.next()
        {
            call.offer(shape);
        }
        call
    }

    /// What the next call may hold, there.
    fn bounds(&self, slot: &Slot) -> Bounds {
        let EngineConfig { max_items: inputs, padded, .. } = self.config;
        let tokens = self.limits.tokens(&slot.backend);
        Bounds { inputs, tokens, bytes: BATCH_BYTES_MAX, padded }
    }

    /// How many items are looked at to fill a call.
    fn look_ahead(&self) -> usize {
        self.config.max_items as usize * LOOK_AHEAD
    }

    /// Tokens of service that a tenant who fits may be ahead of the one whose turn it is.
    fn lead(&self) -> u64 {
        if self.config.padded { u64::from(self.config.max_tokens) } else { u64::MAX }
    }

    /// Takes a waiting item out of the queue for the batch that is being sent; none if nobody waits for it any more.
    fn take(&mut self, now: Time, id: RequestId, actions: &mut Vec<Action>) -> Option<Member> {
        if !self.is_awaited(now, &self.items[&id].item) {
            self.drop_item(id, actions);
            return None;
        }
        let entry = self.items.get_mut(&id).expect("what waits is in custody");
        entry.state = State::Dispatched(BatchId(self.batches));
        let member = Member::of(entry);
        self.queue.serve(entry, member.cost);
        Some(member)
    }
}
