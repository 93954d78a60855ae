//! core: whose turn it is among the lanes.
//!
//! Interactive, async and bulk share tokens 16 : 4 : 1 while all have work waiting, by the rule that the tenants of a lane
//! share by (VTC, `queue.rs`): the lane of least service per weight goes next, and whoever comes back starts level with
//! the one that is being served. The shares are those of deficit round robin; but nobody waits for the rest of another
//! lane's quantum, so that an interactive request is next as soon as its lane is not ahead.
//!
//! A *floor* is what a lane gets of all tokens while it has work waiting, whatever its ceiling says. It is counted from
//! token to token, not in a window of time: any stretch in which a lane waits holds its share of that stretch.
//!
//! A *ceiling* (sequence models, while interactive work arrives) is how far a lane may fill the backends: the rest is kept
//! free, so that an interactive request finds a slot at once.

use shared::domain::Lane;
use std::time::Duration;

/// Shares of the tokens when all lanes have work waiting.
const WEIGHTS: [u64; Lane::ALL.len()] = [16, 4, 1];

/// What each lane gets at least, in hundredths.
const FLOORS: [i64; Lane::ALL.len()] = [0, 10, 5];

/// Hundredths of tokens that a floor makes up for at once when it could not be kept: some large requests, and no flood.
const OWED_MAX: i64 = 16_384 * 100;

/// How far a lane may fill what the backends take, in hundredths.
const CEILINGS: [u64; Lane::ALL.len()] = [100, 85, 70];

/// Ceilings hold for so long after the last interactive arrival: longer than people pause, shorter than they leave.
pub(super) const INTERACTIVE_RECENT: Duration = Duration::from_secs(10);

/// An item that has waited so long is ordered one lane up.
pub(super) const fn aged_after(lane: Lane) -> Option<(Duration, Lane)> {
    match lane {
        Lane::Interactive => None,
        Lane::Async => Some((Duration::from_secs(60), Lane::Interactive)),
        Lane::Bulk => Some((Duration::from_secs(15 * 60), Lane::Async)),
    }
}

/// How far a lane may fill what the backends take, in hundredths.
pub(super) const fn ceiling(lane: Lane) -> u64 {
    CEILINGS[lane.index()]
}

/// Some of the lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LaneSet([bool; Lane::ALL.len()]);

impl From<[bool; Lane::ALL.len()]> for LaneSet {
    fn from(is_in: [bool; Lane::ALL.len()]) -> Self {
        Self(is_in)
    }
}

impl LaneSet {
    pub(super) const ALL: Self = Self([true; Lane::ALL.len()]);

    pub(super) fn of(is_in: impl Fn(Lane) -> bool) -> Self {
        Self(Lane::ALL.map(is_in))
    }

    pub(super) const fn has(self, lane: Lane) -> bool {
        self.0[lane.index()]
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self::of(|lane| self.has(lane) && other.has(lane))
    }

    /// Without `lane` and those less urgent.
    pub(super) fn above(self, lane: Lane) -> Self {
        Self::of(|other| self.has(other) && other.index() < lane.index())
    }
}

/// What each lane has had. Copied to look ahead.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Turns {
    /// Tokens of service by weight.
    service: [u64; Lane::ALL.len()],
    /// Hundredths of tokens by which a floor is not kept.
    owed: [i64; Lane::ALL.len()],
}

/// What a lane's service grows by.
fn share(lane: Lane, cost: u64) -> u64 {
    cost.saturating_mul(WEIGHTS[0] / WEIGHTS[lane.index()])
}

impl Turns {
    /// The lane whose turn it is among those `waiting`. One that is not `open` gets its floor alone.
    pub(super) fn next(&mut self, waiting: LaneSet, open: LaneSet) -> Option<Lane> {
        if let Some(owed) = Lane::ALL.into_iter().find(|lane| waiting.has(*lane) && self.owed[lane.index()] > 0) {
            return Some(owed);
        }
        let free = waiting.and(open);
        let next = Lane::ALL.into_iter().filter(|lane| free.has(*lane)).min_by_key(|lane| self.service[lane.index()])?;
        let level = self.service[next.index()];
        self.service = self.service.map(|service| service.max(level)); // Absence, and a ceiling, save nothing up.
        Some(next)
    }

    /// A lane is given so many tokens of service, while these wait, itself included.
    pub(super) fn served(&mut self, lane: Lane, cost: u64, waiting: LaneSet) {
        self.charge(lane, cost);
        let cost = i64::try_from(cost).unwrap_or(i64::MAX / 100).min(OWED_MAX);
        for other in Lane::ALL {
            let owed = &mut self.owed[other.index()];
            *owed = if waiting.has(other) { (*owed + cost * FLOORS[other.index()]).min(OWED_MAX) } else { 0 };
        }
        let owed = &mut self.owed[lane.index()];
        *owed = (*owed - cost * 100).max(-cost * 100); // What it has had beyond its floor is not held against it for long.
    }

    pub(super) fn charge(&mut self, lane: Lane, cost: u64) {
        let service = &mut self.service[lane.index()];
        *service = service.saturating_add(share(lane, cost));
    }

    pub(super) fn refund(&mut self, lane: Lane, cost: u64) {
        let service = &mut self.service[lane.index()];
        *service = service.saturating_sub(share(lane, cost));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const INTERACTIVE: LaneSet = LaneSet([true, false, false]);

    /// What each lane gets of `count` items, whose costs these are in turn.
    fn serve(turns: &mut Turns, count: usize, costs: [u64; 3], waiting: LaneSet, open: LaneSet) -> [u64; 3] {
        let mut had = [0; 3];
        for _ in 0..count {
            let lane = turns.next(waiting, open).unwrap();
            turns.served(lane, costs[lane.index()], waiting);
            had[lane.index()] += costs[lane.index()];
        }
        had
    }

    fn part(had: [u64; 3], lane: Lane) -> f64 {
        had[lane.index()] as f64 / had.iter().sum::<u64>() as f64
    }

    #[test]
    fn a_lane_that_comes_back_is_next_and_is_owed_nothing() {
        let mut turns = Turns::default();
        serve(&mut turns, 1_000, [10; 3], LaneSet([false, true, true]), LaneSet::ALL);
        let had = serve(&mut turns, 210, [10; 3], LaneSet::ALL, LaneSet::ALL);
        assert!((0.7..0.8).contains(&part(had, Lane::Interactive)), "{had:?}");
    }

    #[test]
    fn what_a_ceiling_held_back_is_not_made_up_for() {
        let mut turns = Turns::default();
        serve(&mut turns, 1_000, [10; 3], LaneSet::ALL, INTERACTIVE);
        let had = serve(&mut turns, 210, [10; 3], LaneSet::ALL, LaneSet::ALL);
        assert!((0.7..0.8).contains(&part(had, Lane::Interactive)), "{had:?}");
    }

    #[test]
    fn a_lane_alone_gets_everything() {
        let had = serve(&mut Turns::default(), 100, [10; 3], LaneSet([false, false, true]), LaneSet::ALL);
        assert_eq!(had, [0, 0, 1_000]);
    }

    #[test]
    fn a_refund_gives_the_turn_back() {
        let mut turns = Turns::default();
        let first = turns.next(LaneSet::ALL, LaneSet::ALL).unwrap();
        turns.charge(first, 10);
        assert_ne!(turns.next(LaneSet::ALL, LaneSet::ALL), Some(first));
        turns.refund(first, 10);
        assert_eq!(turns.next(LaneSet::ALL, LaneSet::ALL), Some(first));
    }

    proptest! {
        #[test]
        fn shares_are_kept_whatever_the_items_cost(costs in prop::array::uniform3(1u64..2_000)) {
            let had = serve(&mut Turns::default(), 60_000, costs, LaneSet::ALL, LaneSet::ALL);
            let all: u64 = had.iter().sum();
            for (lane, due) in [(Lane::Interactive, 16.0 / 21.0), (Lane::Async, 4.0 / 21.0), (Lane::Bulk, 0.05)] {
                let largest = *costs.iter().max().unwrap() as f64; // Where the others' are small, one item is a good part of all.
                let (due, got) = (due * all as f64, had[lane.index()] as f64);
                prop_assert!((got - due).abs() < due * 0.1 + 2.0 * largest, "{lane:?}: {had:?}");
            }
        }

        /// In any stretch in which they wait, but for one item.
        #[test]
        fn floors_are_kept_under_any_ceiling(costs in prop::array::uniform3(1u64..2_000), before in 0usize..500, items in 1usize..2_000) {
            let mut turns = Turns::default();
            serve(&mut turns, before, costs, LaneSet::ALL, INTERACTIVE);
            let had = serve(&mut turns, items, costs, LaneSet::ALL, INTERACTIVE);
            let all: u64 = had.iter().sum();
            for lane in [Lane::Async, Lane::Bulk] {
                let floor = all * FLOORS[lane.index()] as u64 / 100;
                let largest = costs.iter().max().unwrap();
                prop_assert!(had[lane.index()] + 2 * largest >= floor, "{lane:?}: {had:?}");
            }
        }
    }
}
