//! core: what a token costs in calls of each size, as lately seen: sizes in classes of an eighth of an octave.
//!
//! Not a formula: where memory or caches run out, none fits. A memory fades with the calls that have been made since. What
//! was seen in one class moves the others a little, so that a backend that became slower altogether does not leave
//! memories behind that are too good to be true.

use std::collections::BTreeMap;

/// A size's class: the largest size of class k is 2^(k/8), so that neighbours are 9 % apart.
pub(super) type Class = u32;

/// Classes that double the size.
pub(super) const OCTAVE: Class = 8;

/// Calls that the memory of a class is made of, at most.
const MEMORY: f64 = 12.0;

/// Calls after which a memory is worth half.
const HALF_LIFE: f64 = 32.0;

/// A memory worth less than half a call is none.
const KNOWN: f64 = 0.5;

/// A call this many times dearer than known, or cheaper, counts as just so: one stall is no trend.
const OUTLIER: f64 = 3.0;

/// How much of a change in one class the others follow.
const TOGETHER: f64 = 0.06;

/// How much the classes beside one tell of it.
const BESIDE: f64 = 0.25;

/// How fast the scatter of calls is learnt, and where it starts (relative to what they cost).
const SCATTER_GAIN: f64 = 0.05;
const SCATTER_START: f64 = 0.1;

pub(super) fn class(size: f64) -> Class {
    (f64::from(OCTAVE) * size.max(1.0).log2() - 1e-9).ceil().max(0.0) as Class
}

pub(super) fn largest(class: Class) -> f64 {
    (f64::from(class) / f64::from(OCTAVE)).exp2()
}

#[derive(Clone, Copy, Debug)]
struct Rate {
    /// Seconds for a token.
    cost: f64,
    /// Calls it is made of, when it was last seen.
    weight: f64,
    seen: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Curve {
    /// At most 8 for each of the 32 octaves there are.
    rates: BTreeMap<Class, Rate>,
    calls: u64,
    /// Standard deviation of a call's time, relative to it.
    scatter: f64,
}

impl Default for Curve {
    fn default() -> Self {
        Self { rates: BTreeMap::new(), calls: 0, scatter: SCATTER_START }
    }
}

impl Curve {
    /// Calls learnt from.
    pub(super) fn calls(&self) -> u64 {
        self.calls
    }

    /// A call of this class took so many seconds for each token.
    pub(super) fn learn(&mut self, class: Class, cost: f64) {
        self.calls += 1;
        let before = self.rates.get(&class).copied().unwrap_or(Rate { cost, weight: 0.0, seen: self.calls });
        let weight = self.worth(&before);
        let mut ratio = cost / before.cost;
        if weight >= 2.0 {
            ratio = ratio.clamp(1.0 / OUTLIER, OUTLIER);
            self.note_scatter(ratio);
            self.rates.values_mut().for_each(|rate| rate.cost *= ratio.powf(TOGETHER));
        }
        let weight = (weight + 1.0).min(MEMORY);
        let cost = before.cost * (1.0 + (ratio - 1.0) / weight);
        self.rates.insert(class, Rate { cost, weight, seen: self.calls });
    }

    /// Calls of this class fail: they are taken to cost a multiple, for as long as a memory lasts.
    pub(super) fn condemn(&mut self, class: Class) {
        self.calls += 1;
        let cost = self.cost(class).or_else(|| self.least()).unwrap_or(1.0) * OUTLIER;
        self.rates.insert(class, Rate { cost, weight: MEMORY, seen: self.calls });
    }

    fn note_scatter(&mut self, ratio: f64) {
        let error = (ratio - 1.0).powi(2).min(0.25);
        self.scatter = (self.scatter.powi(2) * (1.0 - SCATTER_GAIN) + error * SCATTER_GAIN).sqrt();
    }

    fn worth(&self, rate: &Rate) -> f64 {
        rate.weight * (-((self.calls - rate.seen) as f64) / HALF_LIFE).exp2()
    }

    /// Seconds for a token in calls of this class, as far as it and those beside it are known.
    pub(super) fn cost(&self, class: Class) -> Option<f64> {
        let near = self.rates.range(class.saturating_sub(1)..=class + 1);
        let (sum, worth) = near.fold((0.0, 0.0), |(sum, worth), (k, rate)| {
            let w = self.worth(rate) * if *k == class { 1.0 } else { BESIDE };
            (sum + w * rate.cost, worth + w)
        });
        (worth >= KNOWN).then(|| sum / worth)
    }

    /// The least that a token was seen to cost.
    pub(super) fn least(&self) -> Option<f64> {
        self.rates.values().map(|rate| rate.cost).reduce(f64::min)
    }

    /// Seconds that most calls of this class stay below; told from the nearest smaller one that is known, 0 if none is.
    pub(super) fn time(&self, class: Class) -> f64 {
        let known = self.rates.range(..=class).rev().find(|(_, rate)| self.worth(rate) >= KNOWN);
        known.map_or(0.0, |(_, rate)| rate.cost * largest(class) * (1.0 + self.scatter))
    }

    /// Seconds that the shortest call of any known class takes.
    pub(super) fn shortest(&self) -> f64 {
        let known = self.rates.iter().filter(|(_, rate)| self.worth(rate) >= KNOWN);
        known.map(|(class, rate)| rate.cost * largest(*class)).fold(f64::INFINITY, f64::min)
    }

    /// The cheapest of the classes that are known and `allowed`, the larger of equals.
    pub(super) fn cheapest(&self, allowed: impl Fn(Class) -> bool) -> Option<(Class, f64)> {
        let known = self.rates.keys().filter(|class| allowed(**class)).filter_map(|class| Some((*class, self.cost(*class)?)));
        known.reduce(|best, next| if next.1 <= best.1 { next } else { best })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_and_sizes_agree() {
        assert_eq!([1.0, 2.0, 512.0, 65_536.0].map(class), [0, 8, 72, 128]);
        assert!((1..200).all(|k| class(largest(k)) == k && class(largest(k) * 1.01) == k + 1));
    }

    #[test]
    fn a_class_is_known_by_its_last_calls_and_forgotten_with_time() {
        let mut curve = Curve::default();
        (0..12).for_each(|_| curve.learn(80, 2.0));
        assert_eq!(curve.cost(80), Some(2.0));
        assert_eq!(curve.cost(90), None);
        (0..1_000).for_each(|_| curve.learn(100, 2.0));
        assert_eq!(curve.cost(80), None);
    }

    #[test]
    fn a_backend_that_became_slower_is_so_in_every_class() {
        let mut curve = Curve::default();
        (0..12).for_each(|_| curve.learn(80, 1.0));
        (0..12).for_each(|_| curve.learn(84, 1.0));
        (0..40).for_each(|_| curve.learn(84, 4.0));
        assert!(curve.cost(84).unwrap() > 3.5 && curve.cost(80).unwrap() > 2.0, "{curve:?}");
    }

    #[test]
    fn what_failed_is_avoided_for_a_while() {
        let mut curve = Curve::default();
        (0..12).for_each(|_| curve.learn(80, 1.0));
        curve.condemn(96);
        assert_eq!(curve.cheapest(|_| true).map(|(class, _)| class), Some(80));
        assert!(curve.cost(96).unwrap() > 2.0);
    }
}
