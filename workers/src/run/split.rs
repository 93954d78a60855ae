//! core: which requests share a call: a batch is halved until the guilty one stands alone.

use std::ops::Range;

/// The groups still to be called, as ranges of the batch.
#[derive(Debug)]
pub(super) struct Groups {
    pending: Vec<Range<usize>>,
}

impl Groups {
    pub(super) fn whole(len: usize) -> Self {
        Self { pending: (len > 0).then_some(0..len).into_iter().collect() }
    }

    pub(super) fn next(&mut self) -> Option<Range<usize>> {
        self.pending.pop()
    }

    /// The call of `group` failed for what may be one item's fault: its halves are to be tried. False: it cannot be halved.
    pub(super) fn halve(&mut self, group: &Range<usize>) -> bool {
        if group.len() < 2 {
            return false;
        }
        let middle = group.start + group.len() / 2;
        self.pending.push(middle..group.end);
        self.pending.push(group.start..middle);
        true
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

    /// Calls groups until all are settled; a group fails while it holds a guilty item. Returns calls, answered, blamed.
    fn bisect(len: usize, guilty: &[usize]) -> (usize, Vec<usize>, Vec<usize>) {
        let (mut groups, mut calls, mut answered, mut blamed) = (Groups::whole(len), 0, Vec::new(), Vec::new());
        while let Some(group) = groups.next() {
            calls += 1;
            if !guilty.iter().any(|g| group.contains(g)) {
                answered.extend(group);
            } else if !groups.halve(&group) {
                blamed.extend(group);
            }
        }
        (calls, answered, blamed)
    }

    #[test]
    fn one_guilty_item_costs_two_calls_per_halving() {
        let (calls, answered, blamed) = bisect(64, &[37]);
        assert_eq!((calls, answered.len(), blamed), (13, 63, vec![37]));
    }

    proptest! {
        #[test]
        fn only_the_guilty_are_blamed_and_everybody_is_settled_once(len in 0usize..100, guilty in prop::collection::btree_set(0usize..100, 0..8)) {
            let guilty: Vec<usize> = guilty.into_iter().filter(|g| *g < len).collect();
            let (_, mut answered, blamed) = bisect(len, &guilty);
            prop_assert_eq!(blamed, guilty);
            answered.extend(bisect(len, &[]).1.into_iter().filter(|i| !answered.contains(i)).collect::<Vec<_>>());
            answered.sort_unstable();
            prop_assert_eq!(answered, (0..len).collect::<Vec<_>>());
        }

        #[test]
        fn shares_add_up(total in any::<u32>(), weights in prop::collection::vec(0u32..100_000, 1..50)) {
            prop_assume!(weights.iter().any(|w| *w > 0));
            let shares = apportion(total, &weights);
            prop_assert_eq!(shares.iter().map(|s| u64::from(*s)).sum::<u64>(), u64::from(total));
        }
    }
}
