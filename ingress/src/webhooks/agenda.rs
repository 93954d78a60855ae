//! core: what one ingress knows of the deliveries: which there are, and when something is to be done about each.
//!
//! Tenants are apart: one whose targets are slow keeps its own deliveries waiting and nobody else's.

use super::delivery::Delivery;
use shared::domain::Token;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Deliveries of one tenant at once.
const OF_TENANT_MAX: usize = 8;

/// How much later than its maker another ingress looks after a delivery that has become due: the maker is alive, as a rule.
const GRACE_MS: u64 = 1_000;

/// Ingresses that look after the same delivery look at different moments, within this.
const SPREAD_MS: u64 = 500;

#[derive(Debug, Default)]
pub(super) struct Agenda {
    /// By the tenant's token.
    tenants: BTreeMap<Box<str>, Shelf>,
}

#[derive(Debug, Default)]
struct Shelf {
    /// Each delivery, and when it is due if nobody here is at it.
    deliveries: BTreeMap<Arc<str>, Option<u64>>,
    due: BTreeSet<(u64, Arc<str>)>,
    running: usize,
}

impl Agenda {
    /// A record was written. `me` is who we are, `draw` 64 random bits.
    pub(super) fn enter(&mut self, key: &str, delivery: &Delivery, me: &str, draw: u64) {
        let later = if &*delivery.by == me { 0 } else { GRACE_MS + draw % SPREAD_MS };
        self.put(key, delivery.due_ms() + later);
    }

    fn put(&mut self, key: &str, due_ms: u64) {
        let (shelf, key) = (self.tenants.entry(tenant_of(key).into()).or_default(), Arc::<str>::from(key));
        if let Some(Some(before)) = shelf.deliveries.insert(key.clone(), Some(due_ms)) {
            shelf.due.remove(&(before, key.clone()));
        }
        shelf.due.insert((due_ms, key));
    }

    /// A record was deleted.
    pub(super) fn remove(&mut self, key: &str) {
        let Some(shelf) = self.tenants.get_mut(tenant_of(key)) else { return };
        if let Some((key, Some(due))) = shelf.deliveries.remove_entry(key) {
            shelf.due.remove(&(due, key));
        }
        self.tidy(key);
    }

    /// The delivery that has been due longest, of a tenant that may have one more under way. It comes back with a write of
    /// its record, or by [`Agenda::ended`].
    pub(super) fn take(&mut self, now_ms: u64) -> Option<Arc<str>> {
        let ready = self.tenants.values_mut().filter(|shelf| shelf.next_ms().is_some_and(|due| due <= now_ms));
        let shelf = ready.min_by_key(|shelf| shelf.next_ms())?;
        let (_, key) = shelf.due.pop_first()?;
        shelf.deliveries.insert(key.clone(), None);
        shelf.running += 1;
        Some(key)
    }

    /// A delivery that was taken is no longer under way; with a time, it is looked after again then unless its record
    /// says otherwise.
    pub(super) fn ended(&mut self, key: &str, again_ms: Option<u64>) {
        if let Some(shelf) = self.tenants.get_mut(tenant_of(key)) {
            shelf.running = shelf.running.saturating_sub(1);
            if let Some(again) = again_ms.filter(|_| shelf.deliveries.get(key) == Some(&None)) {
                self.put(key, again);
            }
        }
        self.tidy(key);
    }

    /// When to look again.
    pub(super) fn next_ms(&self) -> Option<u64> {
        self.tenants.values().filter_map(Shelf::next_ms).min()
    }

    /// Forgets all that is not under way: the records are read anew.
    pub(super) fn clear(&mut self) {
        for shelf in self.tenants.values_mut() {
            shelf.deliveries.clear();
            shelf.due.clear();
        }
        self.tenants.retain(|_, shelf| shelf.running > 0);
    }

    pub(super) fn count(&self, tenant: &Token) -> usize {
        self.tenants.get(tenant.as_str()).map_or(0, |shelf| shelf.deliveries.len())
    }

    /// Keys of one tenant's deliveries or of all.
    pub(super) fn keys(&self, tenant: Option<&Token>, limit: usize) -> Vec<Arc<str>> {
        let wanted = self.tenants.iter().filter(|(name, _)| tenant.is_none_or(|tenant| tenant.as_str() == &***name));
        wanted.flat_map(|(_, shelf)| shelf.deliveries.keys().cloned()).take(limit).collect()
    }

    pub(super) fn keys_of_event(&self, event: &str) -> Vec<Arc<str>> {
        let keys = self.tenants.values().flat_map(|shelf| shelf.deliveries.keys());
        keys.filter(|key| key.split('.').nth(1) == Some(event)).cloned().collect()
    }

    fn tidy(&mut self, key: &str) {
        let tenant = tenant_of(key);
        if self.tenants.get(tenant).is_some_and(|shelf| shelf.running == 0 && shelf.deliveries.is_empty()) {
            self.tenants.remove(tenant);
        }
    }
}

impl Shelf {
    fn next_ms(&self) -> Option<u64> {
        let (due, _) = self.due.first().filter(|_| self.running < OF_TENANT_MAX)?;
        Some(*due)
    }
}

fn tenant_of(key: &str) -> &str {
    key.split('.').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::event::Event;
    use super::*;
    use shared::config::EventKind;

    fn delivery(tenant: &str, n: usize, at_ms: u64) -> Delivery {
        let event = Event::new(EventKind::JobFailed, &format!("job_{n}"), 1);
        Delivery::new(tenant, &event, "https://h.example/", "me", at_ms)
    }

    fn enter(agenda: &mut Agenda, delivery: &Delivery) -> String {
        agenda.enter(&delivery.key(), delivery, "me", 0);
        delivery.key()
    }

    #[test]
    fn what_is_due_first_is_taken_first_and_once() {
        let mut agenda = Agenda::default();
        let late = enter(&mut agenda, &delivery("t", 1, 20));
        let early = enter(&mut agenda, &delivery("u", 2, 10));
        assert_eq!((agenda.next_ms(), agenda.take(9)), (Some(10), None));
        assert_eq!(agenda.take(20).as_deref(), Some(&*early));
        assert_eq!(agenda.take(20).as_deref(), Some(&*late));
        assert_eq!((agenda.take(20), agenda.next_ms()), (None, None));
    }

    #[test]
    fn others_leave_a_delivery_to_its_maker_for_a_second() {
        let (mut agenda, delivery) = (Agenda::default(), delivery("t", 1, 1_000));
        agenda.enter(&delivery.key(), &delivery, "another", 499);
        assert_eq!(agenda.next_ms(), Some(1_000 + GRACE_MS + 499));
    }

    #[test]
    fn a_slow_tenant_keeps_nobody_else_waiting() {
        let mut agenda = Agenda::default();
        for n in 0..20 {
            enter(&mut agenda, &delivery("slow", n, 0));
        }
        let slow: Vec<_> = std::iter::from_fn(|| agenda.take(0)).collect();
        assert_eq!(slow.len(), OF_TENANT_MAX);
        let other = enter(&mut agenda, &delivery("other", 0, 0));
        assert_eq!(agenda.take(0).as_deref(), Some(&*other));
        agenda.ended(&slow[0], None);
        assert!(agenda.take(0).is_some());
    }

    #[test]
    fn what_could_not_be_written_back_is_looked_after_again_and_what_was_is_not() {
        let mut agenda = Agenda::default();
        let delivery = delivery("t", 1, 0);
        let key = enter(&mut agenda, &delivery);
        agenda.take(0).unwrap();
        agenda.ended(&key, Some(500));
        assert_eq!(agenda.next_ms(), Some(500));
        agenda.take(500).unwrap();
        agenda.remove(&key);
        agenda.ended(&key, Some(900));
        assert!(agenda.next_ms().is_none() && agenda.tenants.is_empty());
    }

    #[test]
    fn deliveries_are_found_by_tenant_and_by_event() {
        let mut agenda = Agenda::default();
        let one = delivery("t", 1, 0);
        enter(&mut agenda, &one);
        enter(&mut agenda, &delivery("u", 2, 0));
        let tenant = Token::of_name("t");
        assert_eq!((agenda.count(&tenant), agenda.keys(Some(&tenant), 9).len(), agenda.keys(None, 9).len()), (1, 1, 2));
        assert_eq!(agenda.keys(None, 1).len(), 1);
        assert_eq!(agenda.keys_of_event(&one.event), [Arc::from(one.key())]);
        agenda.clear();
        assert_eq!(agenda.count(&tenant), 0);
    }
}
