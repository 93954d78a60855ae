//! core: forms the batches: who anchors one, who may join it, which slot takes it, and when a free slot waits a moment.

use super::fleet::{Batch, Member};
use super::item::{Item, State};
use super::{Action, Engine, INGRESS_SILENT};
use shared::clock::Time;
use shared::domain::{BatchId, ModelKind, RequestId};

/// Bytes of one dispatched batch: a batch travels in one frame (768 KiB) with room for its header.
const BATCH_BYTES_MAX: usize = 700 * 1024;

/// A tenant's items that are looked at for one that may join a batch: beyond it, the next tenant is asked.
const COMPAT_SCAN_MAX: usize = 32;

impl Engine {
    pub(super) fn dispatch(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.linger_until = None;
        self.settle_until = self.settle_until.filter(|until| now < *until);
        if self.settle_until.is_some() {
            return;
        }
        self.count_company(now);
        while let Some(id) = self.next_awaited(now, actions) {
            let Some(slot) = self.fleet.free_slot(now, self.items[&id].item.tokens()) else { return };
            if let Some(until) = self.hold_for_company(now) {
                self.linger_until = Some(until);
                return;
            }
            let anchor = self.take(id);
            let members = self.gather(now, anchor, actions);
            self.batches += 1;
            let batch = BatchId(self.batches);
            let ids: Vec<RequestId> = members.iter().map(|m| m.id).collect();
            self.linger.dispatched(now, self.queue.total() + ids.len() + self.fleet.outstanding());
            actions.push(Action::Dispatch { batch, worker: slot.worker.clone(), backend: slot.backend.clone(), items: ids });
            self.fleet.dispatched(now, batch, Batch::new(slot, members, now));
        }
    }

    fn count_company(&mut self, now: Time) {
        if self.config.kind == ModelKind::Array
            && let Some((lane, ..)) = self.queue.arrivals()
        {
            self.linger.counted(now, lane, self.queue.total() + self.fleet.outstanding());
        }
    }

    /// Array calls wait a little while the callers known to be in the system have not yet come back.
    fn hold_for_company(&self, now: Time) -> Option<Time> {
        if self.config.kind != ModelKind::Array {
            return None;
        }
        let (lane, first, last) = self.queue.arrivals()?;
        let waiting = self.queue.total();
        if waiting >= self.config.max_items as usize {
            return None;
        }
        let freed = self.fleet.freed_at(); // Those who came while no slot was free have not been waited for yet.
        self.linger.hold_until(now, lane, (first.max(freed), last.max(freed)), waiting, self.fleet.outstanding())
    }

    /// The next item by lane, tenant and deadline that anybody still waits for.
    fn next_awaited(&mut self, now: Time, actions: &mut Vec<Action>) -> Option<RequestId> {
        loop {
            let id = self.queue.peek()?;
            if self.is_awaited(now, &self.items[&id].item) {
                return Some(id);
            }
            self.drop_unawaited(id, actions);
        }
    }

    /// A deferred request has a record that waits for its answer, whatever became of its ingress.
    fn is_awaited(&self, now: Time, item: &Item) -> bool {
        item.lane.is_deferred() || self.ingresses.get(&item.ingress).is_some_and(|seen| now.since(*seen) < INGRESS_SILENT)
    }

    pub(super) fn drop_unawaited(&mut self, id: RequestId, actions: &mut Vec<Action>) {
        if let Some(entry) = self.remove(id, actions) {
            self.leave_frame(&entry, actions);
        }
    }

    /// Fills the batch of `anchor` in fair order with what may share its call.
    fn gather(&mut self, now: Time, anchor: Member, actions: &mut Vec<Action>) -> Vec<Member> {
        let first = &self.items[&anchor.id].item;
        let (mut count, mut tokens, mut bytes, compat) = (first.items, first.tokens(), first.bytes, first.compat);
        let mut members = vec![anchor];
        if self.config.kind != ModelKind::Array {
            return members;
        }
        let (max_items, max_tokens) = (self.config.max_items, self.config.max_tokens);
        while count < max_items && tokens < max_tokens {
            let items = &self.items;
            let fits = |id: &RequestId| {
                let item = &items[id].item;
                item.compat == compat
                    && count + item.items <= max_items
                    && tokens.saturating_add(item.tokens()) <= max_tokens
                    && bytes + item.bytes <= BATCH_BYTES_MAX
            };
            let Some(id) = self.queue.find(COMPAT_SCAN_MAX, fits) else { break };
            if !self.is_awaited(now, &self.items[&id].item) {
                self.drop_unawaited(id, actions);
                continue;
            }
            let item = &self.items[&id].item;
            count += item.items;
            tokens += item.tokens();
            bytes += item.bytes;
            members.push(self.take(id));
        }
        members
    }

    /// Takes a waiting item out of the queue for the batch that is being formed.
    fn take(&mut self, id: RequestId) -> Member {
        let batch = BatchId(self.batches + 1);
        let entry = self.items.get_mut(&id).expect("what waits is in custody");
        entry.state = State::Dispatched(batch);
        let member = Member::of(entry);
        self.queue.serve(entry, member.cost);
        member
    }
}
