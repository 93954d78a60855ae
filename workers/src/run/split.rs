//! core: which requests share a call: a batch is halved until the guilty one stands alone.
//!
//! One guilty request spoils one half of its group and not the other. Where both halves fail, and not because the backend called
//! something in them wrong, it is the backend that fails, and it is not asked again for each request by itself.

use crate::backend::{BackendError, Blame};
use std::ops::Range;

/// The groups still to be called, as ranges of the batch, the next one last.
#[derive(Debug)]
pub struct Groups<E = BackendError> {
    pending: Vec<Group<E>>,
    current: Group<E>,
}

#[derive(Debug)]
struct Group<E> {
    range: Range<usize>,
    twin: Twin<E>,
}

/// The other half of what a group is a half of.
#[derive(Debug)]
enum Twin<E> {
    /// There is none, or it says nothing.
    None,
    /// It is called next.
    Next,
    /// It failed for what may be one request's fault.
    Failed(Range<usize>, E),
}

/// Requests that are not called again here, and why.
#[derive(Debug, PartialEq)]
pub struct Over<E> {
    pub ranges: Vec<Range<usize>>,
    pub error: E,
}

/// What a call's failure says of who is to blame.
pub trait Verdict {
    /// One request alone may have spoilt the call.
    fn may_be_one_requests(&self) -> bool;
    /// The backend has judged what it was asked.
    fn is_rejection(&self) -> bool;
}

impl Verdict for BackendError {
    fn may_be_one_requests(&self) -> bool {
        self.blame == Blame::MaybeItem
    }

    fn is_rejection(&self) -> bool {
        !self.fault.is_curable()
    }
}

impl<E: Verdict> Groups<E> {
    pub fn whole(len: usize) -> Self {
        let pending = (len > 0).then_some(Group { range: 0..len, twin: Twin::None });
        Self { pending: pending.into_iter().collect(), current: Group { range: 0..0, twin: Twin::None } }
    }

    /// The next group to call. [`Self::failed`] or [`Self::settled`] follows.
    pub fn take(&mut self) -> Option<Range<usize>> {
        self.current = self.pending.pop()?;
        Some(self.current.range.clone())
    }

    /// The group has its answers, or nobody waits for it: nothing speaks for it that all would have failed.
    pub fn settled(&mut self) -> Option<Over<E>> {
        match std::mem::replace(&mut self.current.twin, Twin::None) {
            Twin::Failed(range, error) => self.halve(range, error),
            Twin::None | Twin::Next => None,
        }
    }

    /// The call of the group failed.
    pub fn failed(&mut self, error: E) -> Vec<Over<E>> {
        let range = self.current.range.clone();
        let twin = std::mem::replace(&mut self.current.twin, Twin::None);
        if error.is_rejection() {
            let twins = if let Twin::Failed(twin, why) = twin { self.halve(twin, why) } else { None };
            let own = if error.may_be_one_requests() { self.halve(range, error) } else { Some(Over { ranges: vec![range], error }) };
            return twins.into_iter().chain(own).collect();
        }
        match twin {
            Twin::None if error.may_be_one_requests() => self.halve(range, error).into_iter().collect(),
            Twin::Next if error.may_be_one_requests() => {
                if let Some(next) = self.pending.last_mut() {
                    next.twin = Twin::Failed(range, error);
                }
                Vec::new()
            }
            Twin::Failed(twin, _) => vec![self.give_up(vec![twin, range], error)],
            Twin::None | Twin::Next => vec![self.give_up(vec![range], error)],
        }
    }

    /// Has the halves of a group called; none of one request, which is guilty.
    fn halve(&mut self, range: Range<usize>, error: E) -> Option<Over<E>> {
        if range.len() < 2 {
            return Some(Over { ranges: vec![range], error });
        }
        let middle = range.start + range.len() / 2;
        self.pending.push(Group { range: middle..range.end, twin: Twin::None });
        self.pending.push(Group { range: range.start..middle, twin: Twin::Next });
        None
    }

    /// Nothing more is called.
    fn give_up(&mut self, mut ranges: Vec<Range<usize>>, error: E) -> Over<E> {
        ranges.extend(self.pending.drain(..).map(|group| group.range));
        Over { ranges, error }
    }
}

/// Shares `total` out in proportion to `weights`; the shares add up to `total` exactly.
pub(super) fn apportion(total: u32, weights: &[u32]) -> Vec<u32> {
    let whole: u64 = weights.iter().map(|w| u64::from(*w)).sum::<u64>().max(1);
    let mut seen = 0;
    let mut given = 0;
    let shares = weights.iter().map(|weight| {
        seen += u64::from(*weight);
        let until = u64::from(total) * seen / whole;
        let share = until - given;
        given = until;
        u32::try_from(share).unwrap_or(u32::MAX)
    });
    shares.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A call's failure, and whether it is a rejection.
    #[derive(Debug, PartialEq)]
    struct Spoilt(bool);

    impl Verdict for Spoilt {
        fn may_be_one_requests(&self) -> bool {
            true
        }

        fn is_rejection(&self) -> bool {
            self.0
        }
    }

    /// How a batch was settled: calls, answered, and those that were given up, by the group they were given up with.
    struct Settled {
        calls: usize,
        answered: Vec<usize>,
        over: Vec<Vec<usize>>,
    }

    /// Calls groups until all are settled; a group fails while it holds a guilty item.
    fn bisect(len: usize, guilty: &[usize], rejects: bool) -> Settled {
        let (mut groups, mut settled) = (Groups::whole(len), Settled { calls: 0, answered: Vec::new(), over: Vec::new() });
        while let Some(group) = groups.take() {
            settled.calls += 1;
            let over = if guilty.iter().any(|g| group.contains(g)) {
                groups.failed(Spoilt(rejects))
            } else {
                settled.answered.extend(group);
                groups.settled().into_iter().collect()
            };
            settled.over.extend(over.into_iter().map(|over| over.ranges.into_iter().flatten().collect()));
        }
        settled
    }

    #[test]
    fn one_guilty_item_costs_two_calls_per_halving() {
        for rejects in [true, false] {
            let settled = bisect(64, &[37], rejects);
            assert_eq!((settled.calls, settled.answered.len(), settled.over), (13, 63, vec![vec![37]]));
        }
    }

    #[test]
    fn a_backend_that_fails_whatever_it_is_asked_is_asked_three_times() {
        let everything: Vec<usize> = (0..64).collect();
        let settled = bisect(64, &everything, false);
        assert_eq!((settled.calls, settled.answered.len()), (3, 0));
        assert_eq!(settled.over.len(), 1, "and all of it is given up together");
        assert_eq!(settled.over[0].len(), 64);
    }

    #[test]
    fn what_is_not_one_requests_fault_ends_the_rest_at_once() {
        struct Down;
        impl Verdict for Down {
            fn may_be_one_requests(&self) -> bool {
                false
            }

            fn is_rejection(&self) -> bool {
                false
            }
        }
        let mut groups = Groups::whole(8);
        groups.take();
        let over = groups.failed(Down);
        assert_eq!((over[0].ranges[0].len(), groups.take()), (8, None));
    }

    proptest! {
        #[test]
        fn of_rejected_ones_only_the_guilty_are_blamed(len in 0usize..100, guilty in prop::collection::btree_set(0usize..100, 0..8)) {
            let guilty: Vec<usize> = guilty.into_iter().filter(|g| *g < len).collect();
            let Settled { mut answered, over, .. } = bisect(len, &guilty, true);
            let mut blamed = over.concat();
            blamed.sort_unstable();
            prop_assert_eq!(&blamed, &guilty);
            answered.extend(blamed);
            answered.sort_unstable();
            prop_assert_eq!(answered, (0..len).collect::<Vec<_>>());
        }

        #[test]
        fn everybody_is_settled_once_and_no_guilty_one_is_answered(
            len in 0usize..100,
            guilty in prop::collection::btree_set(0usize..100, 0..8),
        ) {
            let guilty: Vec<usize> = guilty.into_iter().filter(|g| *g < len).collect();
            let Settled { calls, answered, over } = bisect(len, &guilty, false);
            prop_assert!(calls <= 1 + 14 * guilty.len().min(2), "{}", calls);
            prop_assert!(answered.iter().all(|n| !guilty.contains(n)));
            let mut all: Vec<usize> = answered.into_iter().chain(over.concat()).collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..len).collect::<Vec<_>>());
        }

        #[test]
        fn shares_add_up(total in any::<u32>(), weights in prop::collection::vec(0u32..100_000, 1..50)) {
            prop_assume!(weights.iter().any(|w| *w > 0));
            let shares = apportion(total, &weights);
            prop_assert_eq!(shares.iter().map(|s| u64::from(*s)).sum::<u64>(), u64::from(total));
        }
    }
}
