//! core: what many samples come to: medians, spreads, and ratios of what was measured in the same round.

use crate::measure::Sample;
use crate::report::median;
use serde::Serialize;

/// A figure of one sample; `None` where it has none.
pub type Figure = fn(&Sample) -> Option<f64>;

/// The middle of several rounds, and how far they lie apart.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

/// The samples of a comparison, to be asked.
#[derive(Clone, Copy, Debug)]
pub struct Figures<'a>(pub &'a [Sample]);

pub const PER_SECOND: Figure = |sample| Some(sample.summary.per_second);
pub const CPU_US: Figure = |sample| sample.cpu_us;
pub const P50_US: Figure = |sample| answered(sample, sample.summary.p50_us);
pub const P90_US: Figure = |sample| answered(sample, sample.summary.p90_us);
pub const P99_US: Figure = |sample| answered(sample, sample.summary.p99_us);
pub const PEAK_MIB: Figure = |sample| (sample.peak_kib > 0).then_some(sample.peak_kib as f64 / 1024.0);

/// Against this road a latency is an added one.
const DIRECT: &str = "direct";

fn answered(sample: &Sample, us: u64) -> Option<f64> {
    (sample.summary.answered > 0).then_some(us as f64)
}

impl Spread {
    pub fn of(values: Vec<f64>) -> Option<Self> {
        let min = values.iter().copied().reduce(f64::min)?;
        let max = values.iter().copied().reduce(f64::max)?;
        Some(Self { median: median(values), min, max })
    }
}

impl<'a> Figures<'a> {
    pub fn of(&self, scenario: &str, contender: &str) -> impl Iterator<Item = &'a Sample> {
        self.0.iter().filter(move |sample| sample.scenario == scenario && sample.contender == contender)
    }

    pub fn spread(&self, scenario: &str, contender: &str, figure: Figure) -> Option<Spread> {
        Spread::of(self.of(scenario, contender).filter_map(figure).collect())
    }

    /// The median of each round's ratio.
    pub fn ratio(&self, scenario: &str, contender: &str, other: &str, figure: Figure) -> Option<f64> {
        self.paired(scenario, contender, other, |one, two| Some(figure(one)? / figure(two)?))
    }

    /// What a contender adds to the latency of the direct road: the median of each round's difference.
    pub fn added(&self, scenario: &str, contender: &str, latency: Figure) -> Option<f64> {
        self.paired(scenario, contender, DIRECT, |through, direct| Some(latency(through)? - latency(direct)?))
    }

    /// The median of each round's ratio of added latencies.
    pub fn added_ratio(&self, scenario: &str, contender: &str, other: &str, latency: Figure) -> Option<f64> {
        let ratios = self.of(scenario, contender).filter_map(|one| {
            let direct = self.in_round(scenario, DIRECT, one.round)?;
            let two = self.in_round(scenario, other, one.round)?;
            Some((latency(one)? - latency(direct)?) / (latency(two)? - latency(direct)?))
        });
        middle(ratios.collect())
    }

    fn paired(&self, scenario: &str, contender: &str, other: &str, figure: impl Fn(&Sample, &Sample) -> Option<f64>) -> Option<f64> {
        let pairs = self.of(scenario, contender).filter_map(|one| figure(one, self.in_round(scenario, other, one.round)?));
        middle(pairs.collect())
    }

    fn in_round(&self, scenario: &str, contender: &str, round: usize) -> Option<&'a Sample> {
        self.of(scenario, contender).find(|sample| sample.round == round)
    }
}

/// The median of what is a number.
fn middle(values: Vec<f64>) -> Option<f64> {
    Spread::of(values.into_iter().filter(|value| value.is_finite()).collect()).map(|spread| spread.median)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::report::Outcome;
    use std::time::Duration;

    /// One answer of `us` in a second, at `cpu_us`.
    pub(crate) fn sample(scenario: &str, contender: &'static str, round: usize, us: u64, cpu_us: Option<f64>) -> Sample {
        let mut outcome = Outcome::default();
        outcome.elapsed = Duration::from_secs(1);
        outcome.answered(Duration::from_micros(us), Duration::from_micros(us));
        let summary = outcome.summary();
        Sample {
            scenario: scenario.into(),
            contender,
            round,
            summary,
            failures: outcome.failures,
            cpu_us,
            processes: Vec::new(),
            peak_kib: 0,
        }
    }

    fn rounds() -> Vec<Sample> {
        let noise = [100, 300, 200];
        let round = |(round, base): (usize, u64)| {
            [("direct", base, None), ("a", base + 20, Some(base as f64)), ("b", base + 40, Some(base as f64 * 2.0))]
                .map(|(contender, us, cpu)| sample("s", contender, round, us, cpu))
        };
        noise.into_iter().enumerate().flat_map(round).collect()
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let samples = rounds();
        let figures = Figures(&samples);
        assert_eq!(figures.ratio("s", "a", "b", CPU_US), Some(0.5));
        assert_eq!(figures.added("s", "a", P50_US), Some(20.0));
        assert_eq!(figures.added_ratio("s", "b", "a", P50_US), Some(2.0));
    }

    #[test]
    fn a_spread_has_its_ends() {
        let samples = rounds();
        let spread = Figures(&samples).spread("s", "b", CPU_US);
        assert_eq!(spread, Some(Spread { median: 400.0, min: 200.0, max: 600.0 }));
    }

    #[test]
    fn what_was_not_measured_has_no_figure() {
        let samples = rounds();
        let figures = Figures(&samples);
        assert_eq!(figures.ratio("s", "direct", "a", CPU_US), None, "direct has no processes");
        assert_eq!(figures.ratio("s", "a", "litellm", CPU_US), None);
        assert_eq!(figures.spread("other", "a", CPU_US), None);
    }
}
