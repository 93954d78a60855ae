//! core: what a fixed batch in arrival order would reach on a model that pads: the bound that sorting by length must beat.

use crate::backend::accelerator::Cost;
use crate::backend::padded_tokens;

/// The largest fixed batch looked at.
const BATCH_MAX: usize = 64;

/// Texts a second of the best fixed batch of two or more, with the accelerator never idle. `lengths` in bytes, in arrival order.
pub(super) fn best_fixed(lengths: &[usize], cost: Cost) -> f64 {
    (2..=BATCH_MAX).map(|batch| fixed(lengths, batch, cost)).fold(0.0, f64::max)
}

fn fixed(lengths: &[usize], batch: usize, cost: Cost) -> f64 {
    let calls = lengths.chunks(batch).map(|call| cost.of(padded_tokens(call.iter().copied())).as_secs_f64());
    lengths.len() as f64 / calls.sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_lengths_are_best_in_the_largest_batch() {
        let cost = Cost { call_ms: 6.4, unit_ms: 0.1 };
        let best = best_fixed(&[4; 640], cost);
        assert!((best - 5_000.0).abs() < 1.0, "0.1 ms of the call and 0.1 ms of its token each: {best}");
    }

    #[test]
    fn one_long_text_spoils_a_batch() {
        let cost = Cost { call_ms: 0.0, unit_ms: 1.0 };
        assert!(fixed(&[4, 40], 2, cost) < fixed(&[4, 40], 1, cost));
    }
}
