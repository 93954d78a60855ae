//! core: the project's targets P1 to P10, and whether what was measured meets them.

use super::Report;
use super::figures::{CPU_US, Figures, P50_US, PEAK_MIB, PER_SECOND};
use super::padding;
use crate::scenario::IN_CALLS;
use serde::Serialize;

/// One target, measured or not.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Target {
    pub id: &'static str,
    pub what: &'static str,
    pub bound: Bound,
    pub must: f64,
    pub aim: f64,
    pub measured: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    AtMost,
    AtLeast,
}

/// How far a target was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    NotMeasured,
    Missed,
    Must,
    Aim,
}

const MEMORY: &str = "tidemill-memory";
const JETSTREAM: &str = "tidemill-jetstream";
const VLLM: &str = "vllm-router";
const DIRECT: &str = "direct";

impl Target {
    pub fn verdict(&self) -> Verdict {
        let Some(measured) = self.measured else { return Verdict::NotMeasured };
        let meets = |limit: f64| match self.bound {
            Bound::AtMost => measured <= limit,
            Bound::AtLeast => measured >= limit,
        };
        match () {
            () if meets(self.aim) => Verdict::Aim,
            () if meets(self.must) => Verdict::Must,
            () => Verdict::Missed,
        }
    }
}

/// All targets, with what the report says of them.
pub fn of(report: &Report) -> Vec<Target> {
    let figures = Figures(&report.samples);
    let (at_most, at_least) = (Bound::AtMost, Bound::AtLeast);
    let target = |id, what, bound, (must, aim), measured| Target { id, what, bound, must, aim, measured };
    let rate = |scenario, one, other| figures.ratio(scenario, one, other, PER_SECOND);
    let cpu = |scenario, one, other| figures.ratio(scenario, one, other, CPU_US);
    let added = |one, other| figures.added_ratio("chat-1", one, other, P50_US);
    vec![
        target("P1", "CPU at 64 callers, JetStream ÷ vllm-router", at_most, (1.25, 0.9), cpu("chat-64", JETSTREAM, VLLM)),
        target("P2", "requests/s at 64 callers, JetStream ÷ vllm-router", at_least, (0.9, 1.2), rate("chat-64", JETSTREAM, VLLM)),
        target("P3", "the same ÷ LiteLLM", at_least, (100.0, 180.0), rate("chat-64", JETSTREAM, "litellm")),
        target("P3", "the same ÷ Portkey", at_least, (12.0, 20.0), rate("chat-64", JETSTREAM, "portkey")),
        target("P3", "the same ÷ TensorZero (in no registry)", at_least, (1.5, 2.2), None),
        target("P4", "added p50 at 1 caller, JetStream ÷ vllm-router", at_most, (5.4, 4.2), added(JETSTREAM, VLLM)),
        target("P5", "CPU at 64 callers, in process ÷ vllm-router", at_most, (0.6, 0.4), cpu("chat-64", MEMORY, VLLM)),
        target("P5", "added p50 at 1 caller, in process ÷ vllm-router", at_most, (1.0, 0.6), added(MEMORY, VLLM)),
        target("P6", "CPU per stream at 16 callers, JetStream ÷ vllm-router", at_most, (2.0, 1.0), cpu("stream-16", JETSTREAM, VLLM)),
        target("P6", "the same, in process", at_most, (2.0, 1.0), cpu("stream-16", MEMORY, VLLM)),
        target(
            "P7",
            "single-text embeddings/s at 64 callers, in process ÷ direct",
            at_least,
            (18.0, 20.0),
            rate("embed-64", MEMORY, DIRECT),
        ),
        target("P7", "the same, JetStream ÷ direct", at_least, (16.0, 18.0), rate("embed-64", JETSTREAM, DIRECT)),
        target("P8", "the same at 1 caller, in process ÷ direct", at_least, (0.96, 0.98), rate("embed-1", MEMORY, DIRECT)),
        target("P8", "the same at 1 caller, JetStream ÷ direct", at_least, (0.88, 0.92), rate("embed-1", JETSTREAM, DIRECT)),
        target(
            "P9",
            "mixed lengths on a padding model, in process ÷ the better of one by one and the best fixed batch",
            at_least,
            (1.25, 1.45),
            padded(report, MEMORY),
        ),
        target("P9", "the same, JetStream", at_least, (1.25, 1.45), padded(report, JETSTREAM)),
        target(
            "P10",
            "peak MiB under 256 callers, in process",
            at_most,
            (64.0, 32.0),
            figures.spread("chat-256", MEMORY, PEAK_MIB).map(|s| s.median),
        ),
    ]
}

/// One by one is what the direct road does: the accelerator takes one call at a time.
fn padded(report: &Report, contender: &str) -> Option<f64> {
    const SCENARIO: &str = "mixed-64";
    let figures = Figures(&report.samples);
    let rate = |scenario: &str, contender| figures.spread(scenario, contender, PER_SECOND).map(|spread| spread.median);
    let best_fixed = match report.costs {
        Some(costs) => {
            let kind = report.scenarios.iter().find(|scenario| scenario.name == SCENARIO)?.mix.first()?;
            let lengths: Vec<usize> = kind.texts().iter().map(String::len).collect();
            padding::best_fixed(&lengths, costs.by_padded_tokens())
        }
        None => {
            let fixed = report.scenarios.iter().filter(|scenario| scenario.name.starts_with(&format!("{SCENARIO}{IN_CALLS}")));
            fixed.filter_map(|scenario| Some(rate(&scenario.name, DIRECT)? * scenario.inputs() as f64)).fold(0.0, f64::max)
        }
    };
    Some(rate(SCENARIO, contender)? / rate(SCENARIO, DIRECT)?.max(best_fixed))
}

#[cfg(test)]
mod tests {
    use super::super::figures::tests::sample;
    use super::*;

    fn report(samples: Vec<crate::measure::Sample>) -> Report {
        Report { scenarios: Vec::new(), costs: None, samples, skipped: Vec::new() }
    }

    #[test]
    fn bounds_are_kept_in_their_direction() {
        let verdict = |bound, measured| {
            Target { id: "P", what: "", bound, must: 2.0, aim: if bound == Bound::AtMost { 1.0 } else { 3.0 }, measured }.verdict()
        };
        assert_eq!([0.5, 1.5, 2.5].map(|x| verdict(Bound::AtMost, Some(x))), [Verdict::Aim, Verdict::Must, Verdict::Missed]);
        assert_eq!([3.5, 2.5, 1.5].map(|x| verdict(Bound::AtLeast, Some(x))), [Verdict::Aim, Verdict::Must, Verdict::Missed]);
        assert_eq!(verdict(Bound::AtMost, None), Verdict::NotMeasured);
    }

    #[test]
    fn each_target_asks_for_its_own_figure() {
        let samples = vec![sample("chat-64", JETSTREAM, 0, 100, Some(90.0)), sample("chat-64", VLLM, 0, 100, Some(100.0))];
        let targets = of(&report(samples));
        let measured: Vec<(&str, f64)> = targets.iter().filter_map(|target| Some((target.id, target.measured?))).collect();
        assert_eq!(measured, [("P1", 0.9), ("P2", 1.0)]);
    }
}
