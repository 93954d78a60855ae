//! core: what a run of callers came to, and how it is printed.

use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// The kinds of failure kept by name; the rest is counted under one.
const FAILURE_KINDS_MAX: usize = 32;

/// Latencies above an hour count as an hour: no deadline is longer.
const LATENCY_US_MAX: u64 = 3_600_000_000;

/// Answers, failures and latencies of one run.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub elapsed: Duration,
    pub failures: BTreeMap<String, u64>,
    first_byte: Histogram<u64>,
    whole: Histogram<u64>,
}

/// The figures of one run. Latencies in microseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    pub answered: u64,
    pub failed: u64,
    pub seconds: f64,
    pub per_second: f64,
    pub p50_us: u64,
    pub p90_us: u64,
    pub p99_us: u64,
    pub max_us: u64,
    pub first_byte_p50_us: u64,
}

impl Default for Outcome {
    fn default() -> Self {
        let histogram = || Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("these bounds are within what a histogram supports");
        Self { elapsed: Duration::ZERO, failures: BTreeMap::new(), first_byte: histogram(), whole: histogram() }
    }
}

impl Outcome {
    pub fn answered(&mut self, first_byte: Duration, whole: Duration) {
        self.first_byte.saturating_record(micros(first_byte));
        self.whole.saturating_record(micros(whole));
    }

    pub fn failed(&mut self, kind: String) {
        let known = self.failures.len() < FAILURE_KINDS_MAX || self.failures.contains_key(&kind);
        *self.failures.entry(if known { kind } else { "other failures".into() }).or_default() += 1;
    }

    pub fn add(&mut self, other: &Self) {
        self.first_byte.add(&other.first_byte).expect("equal histograms add up");
        self.whole.add(&other.whole).expect("equal histograms add up");
        for (kind, count) in &other.failures {
            *self.failures.entry(kind.clone()).or_default() += count;
        }
    }

    pub fn summary(&self) -> Summary {
        let seconds = self.elapsed.as_secs_f64();
        let answered = self.whole.len();
        let at = |quantile| self.whole.value_at_quantile(quantile);
        Summary {
            answered,
            failed: self.failures.values().sum(),
            seconds,
            per_second: if seconds > 0.0 { answered as f64 / seconds } else { 0.0 },
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            max_us: self.whole.max(),
            first_byte_p50_us: self.first_byte.value_at_quantile(0.5),
        }
    }

    /// The 95th percentile of latency, in milliseconds.
    pub fn p95_ms(&self) -> f64 {
        self.whole.value_at_quantile(0.95) as f64 / 1e3
    }

    /// The summary and the failures by kind.
    pub fn json(&self) -> Value {
        json!({ "summary": self.summary(), "failures": self.failures })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = self.summary();
        writeln!(f, "answered   {:>10}   failed {}   in {:.2} s", s.answered, s.failed, s.seconds)?;
        writeln!(f, "per second {:>10.1}", s.per_second)?;
        writeln!(f, "latency    p50 {} µs   p90 {} µs   p99 {} µs   max {} µs", s.p50_us, s.p90_us, s.p99_us, s.max_us)?;
        writeln!(f, "first byte p50 {} µs", s.first_byte_p50_us)?;
        for (kind, count) in &self.failures {
            writeln!(f, "failed     {count:>10}   {kind}")?;
        }
        Ok(())
    }
}

/// The middle of the values; zero of none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_add_up() {
        let mut all = Outcome::default();
        for ms in [1, 2, 3] {
            let mut one = Outcome::default();
            one.answered(Duration::from_millis(ms), Duration::from_millis(ms * 10));
            one.failed("503 overloaded".into());
            all.add(&one);
        }
        all.elapsed = Duration::from_secs(1);
        let summary = all.summary();
        assert_eq!((summary.answered, summary.failed), (3, 3));
        assert!((19_900..=20_100).contains(&summary.p50_us), "{}", summary.p50_us);
        assert_eq!(all.failures["503 overloaded"], 3);
    }

    #[test]
    fn kinds_of_failure_are_bounded() {
        let mut outcome = Outcome::default();
        (0..1_000).for_each(|i| outcome.failed(format!("kind {i}")));
        assert_eq!(outcome.failures.len(), FAILURE_KINDS_MAX + 1);
        assert_eq!(outcome.summary().failed, 1_000);
    }

    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!(median(vec![]).to_bits(), 0.0_f64.to_bits());
        assert!((median(vec![9.0, 1.0, 5.0]) - 5.0).abs() < 1e-9);
        assert!((median(vec![1.0, 3.0]) - 2.0).abs() < 1e-9);
    }
}
