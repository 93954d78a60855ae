//! core: where the next call goes: the freest place that is open, at its least loaded worker.
//!
//! A backend's slots are counted here over all its workers (the owner is the only one who dispatches for the model), so
//! choosing the least loaded is exact and needs no sampling: power-of-two choices answers stale loads, ours are not.

use super::batch::{Slot, SlotKey};
use super::fleet::{Fleet, HEARTBEAT_STALE};
use super::places::Place;
use foldhash::HashSet;
use shared::clock::Time;
use shared::domain::NodeId;
use shared::wire::BackendCredit;
use std::time::Duration;

/// Calls and tokens outstanding, each of what may be.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Filled {
    calls: (u64, u64),
    tokens: (u64, u64),
}

impl Filled {
    fn and(self, calls: (u32, u32), tokens: (u64, u32)) -> Self {
        Self {
            calls: (self.calls.0 + u64::from(calls.0), self.calls.1 + u64::from(calls.1)),
            tokens: (self.tokens.0 + tokens.0, self.tokens.1 + u64::from(tokens.1)),
        }
    }

    pub(super) const fn is_idle(self) -> bool {
        self.calls.0 == 0
    }

    /// With one more call of so many tokens: the fuller of the two, in hundredths.
    pub(super) fn with(self, tokens: u32) -> u64 {
        let hundredths = |(taken, of): (u64, u64), more: u64| ((taken + more) * 100).div_ceil(of.max(1));
        hundredths(self.calls, 1).max(hundredths(self.tokens, tokens.into()))
    }
}

/// A worker that was heard lately, a backend that it offers, and what is known of that.
type Candidate<'a> = (&'a NodeId, &'a BackendCredit, &'a Place);

impl Fleet {
    fn candidates(&self, now: Time) -> impl Iterator<Item = Candidate<'_>> {
        let usable = self.workers.iter().filter(move |(_, w)| !w.suspect && now.since(w.seen) < HEARTBEAT_STALE);
        let offered = usable.flat_map(|(id, worker)| worker.backends.iter().map(move |credit| (id, credit)));
        offered.filter_map(|(id, credit)| Some((id, credit, self.places.get(id, credit)?)))
    }

    /// Those of different places.
    fn distinct(&self, now: Time) -> impl Iterator<Item = Candidate<'_>> {
        let mut seen = HashSet::default();
        self.candidates(now).filter(move |(worker, credit, _)| seen.insert(SlotKey::of(worker, credit)))
    }

    pub(super) fn free_slots(&self, now: Time) -> u32 {
        self.distinct(now).map(|(_, credit, place)| place.capacity(now, credit).saturating_sub(place.calls)).sum()
    }

    /// The freest backend with room for so many tokens, at its least loaded worker; of equals the one that has not been called for
    /// longest. What fails comes last, and after it those in `tried`.
    pub(super) fn free_slot(&self, now: Time, tokens: u32, tried: &[Box<str>]) -> Option<Slot> {
        let free = self.candidates(now).filter(|(_, credit, place)| place.has_room(now, credit, tokens));
        let best = free.min_by_key(|(worker, credit, place)| {
            let used = u64::from(place.calls) * 1_000 / u64::from(place.capacity(now, credit).max(1));
            let worker = &self.workers[*worker];
            (tried.contains(&credit.name), place.is_failing(now), used, worker.tokens, worker.served, place.called)
        });
        best.map(|(worker, credit, _)| Slot { worker: worker.clone(), backend: credit.name.clone(), key: SlotKey::of(worker, credit) })
    }

    /// Whether there is a backend that may be called beside those.
    pub(super) fn has_other(&self, now: Time, tried: &[Box<str>]) -> bool {
        self.candidates(now).any(|(_, credit, place)| place.capacity(now, credit) > 0 && !tried.contains(&credit.name))
    }

    /// For how long no backend will answer, if that is longer than anybody on the line waits.
    pub(super) fn hopeless_for(&self, now: Time, patience: Duration) -> Option<Duration> {
        let offers = self.candidates(now).filter(|(_, credit, _)| credit.concurrency > 0);
        let mut waits = offers.map(|(.., place)| place.is_hopeless_for(now, patience));
        let first = waits.next()??;
        waits.try_fold(first, |least, wait| Some(least.min(wait?)))
    }

    /// When the next of the backends that are shut may be called.
    pub(super) fn next_opening(&self, now: Time) -> Option<Time> {
        self.places.iter().filter_map(|(.., place)| place.opens_at(now)).min()
    }

    /// How much of what the live workers take is taken.
    pub(super) fn filled(&self, now: Time) -> Filled {
        self.distinct(now).fold(Filled::default(), |filled, (_, credit, place)| {
            let tokens = if place.is_open_to_calls(now) { credit.tokens } else { 0 };
            filled.and((place.calls, place.capacity(now, credit)), (place.tokens, tokens))
        })
    }
}
