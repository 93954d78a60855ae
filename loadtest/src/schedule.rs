//! core: when the requests of an open loop are meant to start: a Poisson process, whatever the server does meanwhile.

use crate::draw;
use std::time::Duration;

/// Every contender meets the same arrivals.
const SEED: u64 = 0x7469_6465_6d69_6c6c;

/// Intended starts from the run's beginning, in order, until the end.
#[derive(Clone, Debug)]
pub struct Schedule {
    rate: f64,
    end: Duration,
    at_s: f64,
    draws: u64,
}

impl Schedule {
    /// `rate` requests a second on average, until `end`.
    pub fn new(rate: f64, end: Duration) -> Self {
        Self { rate, end, at_s: 0.0, draws: 0 }
    }
}

impl Iterator for Schedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        // Exponential gaps: the inverse of their distribution at an even draw.
        self.at_s -= (1.0 - draw::unit(SEED, self.draws)).ln() / self.rate;
        self.draws += 1;
        let at = Duration::try_from_secs_f64(self.at_s).ok()?;
        (at < self.end).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn starts() -> Vec<Duration> {
        Schedule::new(1_000.0, Duration::from_secs(10)).collect()
    }

    #[test]
    fn the_rate_is_kept() {
        assert!((9_700..10_300).contains(&starts().len()), "{}", starts().len());
        assert!(starts().is_sorted());
    }

    #[test]
    fn gaps_are_those_of_a_poisson_process() {
        let starts = starts();
        let gaps: Vec<f64> = starts.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
        let longer = gaps.iter().filter(|gap| **gap > 0.001).count() as f64 / gaps.len() as f64;
        assert!((longer - (-1.0_f64).exp()).abs() < 0.02, "the share above the mean is 1/e, here {longer}");
    }

    #[test]
    fn everybody_meets_the_same_arrivals() {
        assert_eq!(starts(), starts());
    }
}
