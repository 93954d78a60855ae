//! core: the places where calls are made, one for each backend, or for each worker's own: what runs there, and whether more may.
//!
//! A breaker sees one place, and what spoils calls everywhere (a request that no server survives, say) looks to each as if it
//! failed. So at most half of the places are shut, unless all of them fail; one that fails and is not shut is called last.

use super::batch::{Ended, SlotKey};
use super::breaker::{Breaker, State};
use super::concurrency::Concurrency;
use shared::clock::Time;
use shared::domain::{BatchId, NodeId};
use shared::wire::BackendCredit;
use std::collections::BTreeMap;
use std::time::Duration;

/// A caller on the line does not wait for a backend that is not even tried for so long, where nobody else can serve them.
pub const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    pub(super) calls: u32,
    pub(super) tokens: u64,
    breaker: Breaker,
    concurrency: Concurrency,
    /// Calls at once that are configured.
    configured: u32,
    /// It asked not to be called before.
    held_until: Time,
    /// When it was last called.
    pub(super) called: Time,
}

/// By backend, so that looking one up takes no key of its own; then by worker, where each has its own.
#[derive(Debug, Default)]
pub(super) struct Places {
    places: BTreeMap<Box<str>, Vec<(Option<NodeId>, Place)>>,
    /// A breaker opened or closed since somebody asked.
    pub(super) have_changed: bool,
}

impl Place {
    /// Whether one more call of so many tokens may start. An idle one has room for any.
    pub(super) fn has_room(&self, now: Time, credit: &BackendCredit, tokens: u32) -> bool {
        let fits = self.calls == 0 || self.tokens + u64::from(tokens) <= u64::from(credit.tokens);
        fits && self.calls < self.capacity(now, credit)
    }

    /// Calls that may be out at once.
    pub(super) fn capacity(&self, now: Time, credit: &BackendCredit) -> u32 {
        if self.is_open_to_calls(now) { self.concurrency.calls(now, credit.concurrency) } else { 0 }
    }

    pub(super) fn is_open_to_calls(&self, now: Time) -> bool {
        self.held_until <= now && self.breaker.admits(now)
    }

    pub(super) fn is_failing(&self, now: Time) -> bool {
        self.breaker.is_failing(now)
    }

    /// Calls that it takes at once at present.
    pub(super) fn limit(&self, now: Time) -> u32 {
        self.concurrency.calls(now, self.configured)
    }

    pub(super) fn state(&self) -> State {
        self.breaker.state()
    }

    /// When it may be called, if it may not be now; of one on trial, when callers lose their patience.
    pub(super) fn opens_at(&self, now: Time) -> Option<Time> {
        let at = match self.breaker.state() {
            State::Closed => self.held_until,
            State::Open(until) => until.max(self.held_until),
            State::Trial(_, since) => since + PATIENCE,
        };
        (at > now).then_some(at)
    }

    /// For how long nobody will be answered there, if that is longer than a caller waits.
    pub(super) fn is_hopeless_for(&self, now: Time, patience: Duration) -> Option<Duration> {
        match self.breaker.state() {
            State::Trial(_, since) => (now.since(since) >= patience).then_some(PATIENCE),
            State::Closed | State::Open(_) => self.opens_at(now).map(|at| at.since(now)).filter(|wait| *wait > patience),
        }
    }
}

impl Places {
    pub(super) fn get(&self, worker: &NodeId, credit: &BackendCredit) -> Option<&Place> {
        let of_backend = self.places.get(&credit.name)?;
        let (_, place) = of_backend.iter().find(|(of, _)| of.as_ref() == (!credit.shared).then_some(worker))?;
        Some(place)
    }

    /// A worker has said that it calls there; one that drains says that it makes no calls.
    pub(super) fn announced(&mut self, now: Time, worker: &NodeId, credit: &BackendCredit) {
        let key = SlotKey::of(worker, credit);
        let of_backend = self.places.entry(key.backend).or_default();
        let at = of_backend.iter().position(|(of, _)| *of == key.worker).unwrap_or_else(|| {
            of_backend.push((key.worker, Place::default()));
            of_backend.len() - 1
        });
        let place = &mut of_backend[at].1;
        if credit.concurrency > 0 {
            place.configured = credit.concurrency;
        }
        place.held_until = place.held_until.max(now + Duration::from_millis(credit.rest_ms.into()));
    }

    pub(super) fn get_mut(&mut self, key: &SlotKey) -> Option<&mut Place> {
        let (_, place) = self.places.get_mut(&key.backend)?.iter_mut().find(|(of, _)| *of == key.worker)?;
        Some(place)
    }

    pub(super) fn drop_worker(&mut self, worker: &NodeId) {
        self.places.values_mut().for_each(|places| places.retain(|(of, _)| of.as_ref() != Some(worker)));
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, Option<&NodeId>, &Place)> {
        self.places.iter().flat_map(|(backend, places)| places.iter().map(|(of, place)| (&**backend, of.as_ref(), place)))
    }

    /// A call is made.
    pub(super) fn called(&mut self, now: Time, key: &SlotKey, batch: BatchId) {
        if let Some(place) = self.get_mut(key) {
            place.called = now;
            place.breaker.called(now, batch);
            place.concurrency.called(place.calls + 1);
        }
    }

    /// A call has ended.
    pub(super) fn ended(&mut self, now: Time, key: &SlotKey, batch: BatchId, call: &Ended) {
        let Some(place) = self.get_mut(key) else { return };
        place.concurrency.ended(now, place.configured, call.load, call.work, call.took);
        let Some(verdict) = call.verdict else { return };
        let was_closed = place.state() == State::Closed;
        let trips = place.breaker.ended(now, batch, verdict);
        if !was_closed && place.state() == State::Closed {
            self.closed(now, key);
        }
        if trips {
            self.shut_what_fails(now);
        }
    }

    /// The answer of a call has begun.
    pub(super) fn begun(&mut self, now: Time, key: &SlotKey, batch: BatchId) {
        if self.get_mut(key).is_some_and(|place| place.breaker.begun(batch)) {
            self.closed(now, key);
        }
    }

    fn closed(&mut self, now: Time, key: &SlotKey) {
        if let Some(place) = self.get_mut(key) {
            place.concurrency.begin_anew(now);
        }
        self.have_changed = true;
        self.try_the_others();
    }

    /// When most were shut and one is well again, what shut them all may be over.
    fn try_the_others(&mut self) {
        let shut = self.iter().filter(|(.., place)| place.state() != State::Closed).count();
        if shut * 2 > self.iter().count() {
            self.places.values_mut().flatten().for_each(|(_, place)| place.breaker.try_now());
        }
    }

    /// A call will not be heard of any more, or its end says nothing.
    pub(super) fn lost(&mut self, key: &SlotKey, batch: BatchId) {
        if let Some(place) = self.get_mut(key) {
            place.breaker.lost(batch);
        }
    }

    /// The backend asks not to be called for so long.
    pub(super) fn hold(&mut self, now: Time, key: &SlotKey, wait: Duration) {
        if let Some(place) = self.get_mut(key) {
            place.held_until = place.held_until.max(now + wait);
        }
    }

    fn shut_what_fails(&mut self, now: Time) {
        let all = self.iter().count();
        let shut = self.iter().filter(|(.., place)| place.state() != State::Closed).count();
        let failing = self.iter().filter(|(.., place)| place.is_failing(now)).count();
        let may_shut = if shut + failing == all { failing } else { (all / 2).saturating_sub(shut) };
        self.have_changed |= may_shut > 0;
        let places = self.places.values_mut().flatten().map(|(_, place)| place);
        places.filter(|place| place.is_failing(now)).take(may_shut).for_each(|place| place.breaker.open(now));
    }
}

#[cfg(test)]
mod tests {
    use super::super::batch::CallResult;
    use super::super::breaker::Verdict;
    use super::super::concurrency::Load;
    use super::*;

    const NOW: Time = Time::from_millis(20_000);

    fn credit(name: &str) -> BackendCredit {
        BackendCredit { name: name.into(), concurrency: 1, tokens: 10, shared: true, rest_ms: 0 }
    }

    fn worker() -> NodeId {
        NodeId::parse("w").unwrap()
    }

    fn places(names: &[&str]) -> Places {
        let mut places = Places::default();
        names.iter().for_each(|name| places.announced(NOW, &worker(), &credit(name)));
        places
    }

    fn ended(verdict: Verdict) -> Ended {
        let (size, took, result) = (1, Duration::from_millis(1), CallResult::Unclear);
        Ended { backend: "".into(), size, work: size, took, result, verdict: Some(verdict), load: Load::Unknown }
    }

    fn fail(places: &mut Places, name: &str) {
        let key = SlotKey::of(&worker(), &credit(name));
        (0..5).for_each(|_| places.ended(NOW, &key, BatchId(1), &ended(Verdict::Bad)));
    }

    fn shut(places: &Places) -> Vec<&str> {
        places.iter().filter(|(.., place)| place.state() != State::Closed).map(|(name, ..)| name).collect()
    }

    #[test]
    fn at_most_half_are_shut_unless_all_fail() {
        let mut places = places(&["a", "b", "c", "d"]);
        ["d", "b", "c"].iter().for_each(|name| fail(&mut places, name));
        assert_eq!(shut(&places), ["b", "d"]);
        assert!(places.get(&worker(), &credit("c")).unwrap().is_failing(NOW), "and comes last");
        fail(&mut places, "a");
        assert_eq!(shut(&places), ["a", "b", "c", "d"]);
    }

    #[test]
    fn when_one_of_all_is_well_again_the_others_are_tried_at_once() {
        let mut places = places(&["a", "b", "c"]);
        ["a", "b", "c"].iter().for_each(|name| fail(&mut places, name));
        let (key, later) = (SlotKey::of(&worker(), &credit("b")), NOW + Duration::from_secs(1));
        places.called(later, &key, BatchId(2));
        places.ended(later, &key, BatchId(2), &ended(Verdict::Good));
        assert_eq!(shut(&places), ["a", "c"]);
        assert!(places.iter().all(|(.., place)| place.is_open_to_calls(later)));
    }

    #[test]
    fn the_only_one_is_shut_when_it_fails() {
        let mut places = places(&["a"]);
        fail(&mut places, "a");
        assert_eq!(shut(&places), ["a"]);
    }

    #[test]
    fn a_backend_is_not_called_before_the_time_it_asked_for() {
        let mut places = places(&["a"]);
        places.hold(NOW, &SlotKey::of(&worker(), &credit("a")), Duration::from_secs(3));
        let place = places.get(&worker(), &credit("a")).unwrap();
        assert!(!place.has_room(NOW, &credit("a"), 1));
        assert_eq!(place.opens_at(NOW), Some(NOW + Duration::from_secs(3)));
        assert_eq!(place.is_hopeless_for(NOW, PATIENCE), Some(Duration::from_secs(3)));
        let later = NOW + Duration::from_secs(1);
        assert_eq!(place.is_hopeless_for(later, PATIENCE), None, "two seconds are waited for");
        assert_eq!(place.is_hopeless_for(later, Duration::ZERO), Some(Duration::from_secs(2)), "unless somebody else can serve");
        assert!(place.has_room(later + Duration::from_secs(2), &credit("a"), 1));
    }
}
