//! core: which of those who wait share a call where the backend pads: neighbours of similar length.
//!
//! What waits is sorted by length and cut into calls that together take the least time, by the model `a + b·inputs·longest`:
//! one more call costs its overhead `a`, one fewer costs padding. The best cut is found by dynamic programming over the
//! sorted lengths ("TurboTransformers", PPoPP'21, algorithm 3), with the overhead as it was learnt from the backend instead
//! of a table measured beforehand. Only the call that holds the first in fair order goes out; the next one is cut anew.
//!
//! So nobody starves: whoever is k-th in fair order goes with the k-th call at the latest, unless others come before.

use super::call::{Bounds, Measure};
use super::item::Shape;

/// Items that are sorted and cut at most: O(items · inputs of a call) steps, some 10 µs.
pub(super) const ITEMS_MAX: usize = 256;

/// Places in `window` of those who share the call of the first, longest first. `overhead`: what a call costs before its
/// first token, in tokens.
pub(super) fn with_first(window: &[&Shape], bounds: &Bounds, overhead: u64) -> Vec<usize> {
    let mut by_length: Vec<usize> = (0..window.len()).collect();
    by_length.sort_unstable_by_key(|n| std::cmp::Reverse((window[*n].longest, *n)));
    let sorted: Vec<&Shape> = by_length.iter().map(|n| window[*n]).collect();
    let first = by_length.iter().position(|n| *n == 0).unwrap_or(0);
    let (mut end, starts) = (sorted.len(), best_starts(&sorted, bounds, overhead));
    while end > 0 {
        let start = starts[end];
        if start <= first {
            return by_length[start..end].to_vec();
        }
        end = start;
    }
    Vec::new()
}

/// For each n, where the last call begins in the best cut of the first n.
fn best_starts(sorted: &[&Shape], bounds: &Bounds, overhead: u64) -> Vec<usize> {
    let mut costs = vec![0; sorted.len() + 1];
    let mut starts = vec![0; sorted.len() + 1];
    for end in 1..=sorted.len() {
        let mut call = Measure::default();
        costs[end] = u64::MAX;
        for start in (0..end).rev() {
            call = call.with(sorted[start]);
            if start + 1 < end && !call.is_within(bounds) {
                break;
            }
            let cost = costs[start] + overhead + call.size(true);
            if cost <= costs[end] {
                (costs[end], starts[end]) = (cost, start);
            }
        }
    }
    starts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use shared::domain::RequestId;

    const BOUNDS: Bounds = Bounds { inputs: 8, tokens: 1_000, bytes: 1_000, padded: true };

    fn shapes(lengths: &[u32]) -> Vec<Shape> {
        let shape = |longest: u32| Shape {
            id: RequestId(uuid::Uuid::nil()),
            compat: 0,
            cost: 1,
            inputs: 1,
            tokens: longest,
            longest,
            bytes: 1,
            is_alone: false,
            is_retry: false,
        };
        lengths.iter().copied().map(shape).collect()
    }

    /// The lengths in the call of the first.
    fn call_of(lengths: &[u32], overhead: u64) -> Vec<u32> {
        let shapes = shapes(lengths);
        with_first(&shapes.iter().collect::<Vec<_>>(), &BOUNDS, overhead).into_iter().map(|n| lengths[n]).collect()
    }

    #[test]
    fn neighbours_of_similar_length_go_together() {
        assert_eq!(call_of(&[10, 100, 11, 90, 9, 95], 30), [11, 10, 9]);
        assert_eq!(call_of(&[100, 10, 11, 90, 9, 95], 30), [100, 95, 90]);
        assert_eq!(call_of(&[50, 10, 100], 30), [50], "an odd length goes, even alone");
    }

    #[test]
    fn a_costly_call_is_worth_more_padding() {
        assert_eq!(call_of(&[10, 100, 11, 90, 9, 95], 1_000), [100, 95, 90, 11, 10, 9]);
        assert_eq!(call_of(&[10, 10, 11], 0), [10, 10], "none without need");
    }

    #[test]
    fn a_call_keeps_its_bounds_and_what_is_too_large_goes_alone() {
        assert_eq!(call_of(&[10; 20], 1_000), [10; 8], "inputs");
        assert_eq!(call_of(&[300; 8], 1_000), [300; 3], "tokens");
        assert_eq!(call_of(&[2_000, 10], 1_000), [2_000]);
    }

    /// The least that any cut of the sorted lengths costs, tried one by one.
    fn least(sorted: &[u32], overhead: u64) -> u64 {
        let sizes = 1..=sorted.len();
        let cost = |n: usize| n as u64 * u64::from(sorted[0]);
        let fits = |n: usize| n == 1 || (n <= 8 && cost(n) <= 1_000);
        sizes.filter(|n| fits(*n)).map(|n| overhead + cost(n) + least(&sorted[n..], overhead)).min().unwrap_or(0)
    }

    proptest! {
        #[test]
        fn no_other_cut_takes_less(mut lengths in prop::collection::vec(1u32..400, 1..10), overhead in 0u64..300) {
            lengths.sort_unstable_by(|a, b| b.cmp(a));
            let shapes = shapes(&lengths);
            let sorted: Vec<&Shape> = shapes.iter().collect();
            let starts = best_starts(&sorted, &BOUNDS, overhead);
            let (mut cost, mut end) = (0, sorted.len());
            while end > 0 {
                cost += overhead + (end - starts[end]) as u64 * u64::from(lengths[starts[end]]);
                end = starts[end];
            }
            prop_assert_eq!(cost, least(&lengths, overhead));
        }
    }
}
