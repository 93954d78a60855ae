//! core: the report as Markdown: a table for each scenario, and the targets.

use super::Report;
use super::figures::{CPU_US, Figures, P50_US, P90_US, P99_US, PEAK_MIB, PER_SECOND, Spread};
use super::targets::{self, Bound, Target, Verdict};
use crate::contender;
use crate::scenario::{Arrival, Scenario};
use std::fmt::{self, Write};

/// The peer to whom CPU time is compared.
const YARDSTICK: &str = "vllm-router";

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for scenario in &self.scenarios {
            write_scenario(f, self, scenario)?;
        }
        for skipped in &self.skipped {
            writeln!(f, "{} was not measured: {}\n", skipped.contender, skipped.reason.lines().last().unwrap_or_default())?;
        }
        write_targets(f, &targets::of(self))
    }
}

fn write_scenario(f: &mut fmt::Formatter<'_>, report: &Report, scenario: &Scenario) -> fmt::Result {
    let figures = Figures(&report.samples);
    let alone = matches!(scenario.arrival, Arrival::Closed { callers: 1 });
    writeln!(f, "### {}: {}\n", scenario.name, scenario.about)?;
    let added = if alone { " added p50 / p99 µs |" } else { "" };
    writeln!(f, "| | req/s | ÷ direct | p50 / p90 / p99 µs |{added} CPU µs/req | ÷ {YARDSTICK} | peak MiB | failed |")?;
    writeln!(f, "|---|---|---|---|{}---|---|---|---|", if alone { "---|" } else { "" })?;
    for name in contender::ALL.map(contender::Contender::name) {
        if figures.of(&scenario.name, name).next().is_some() {
            write_row(f, figures, &scenario.name, name, alone)?;
        }
    }
    writeln!(f)
}

fn write_row(f: &mut fmt::Formatter<'_>, figures: Figures<'_>, scenario: &str, name: &str, alone: bool) -> fmt::Result {
    let spread = |figure| figures.spread(scenario, name, figure);
    let middle = |figure| number(spread(figure).map(|spread| spread.median));
    write!(f, "| {name} | {} | {} |", with_spread(spread(PER_SECOND)), number(figures.ratio(scenario, name, "direct", PER_SECOND)))?;
    write!(f, " {} / {} / {} |", middle(P50_US), middle(P90_US), middle(P99_US))?;
    if alone {
        write!(f, " {} / {} |", number(figures.added(scenario, name, P50_US)), number(figures.added(scenario, name, P99_US)))?;
    }
    let cpu_ratio = number(figures.ratio(scenario, name, YARDSTICK, CPU_US));
    let failed: u64 = figures.of(scenario, name).map(|sample| sample.summary.failed).sum();
    writeln!(f, " {} | {cpu_ratio} | {} | {failed} |", with_spread(spread(CPU_US)), middle(PEAK_MIB))
}

fn write_targets(f: &mut fmt::Formatter<'_>, targets: &[Target]) -> fmt::Result {
    writeln!(f, "### Targets\n\n| # | what | measured | must | aim | |\n|---|---|---|---|---|---|")?;
    for target in targets {
        let sign = if target.bound == Bound::AtMost { "≤" } else { "≥" };
        let verdict = match target.verdict() {
            Verdict::NotMeasured => "not measured",
            Verdict::Missed => "**missed**",
            Verdict::Must => "met",
            Verdict::Aim => "met, and the aim",
        };
        let Target { id, what, must, aim, measured, .. } = target;
        writeln!(f, "| {id} | {what} | {} | {sign} {must} | {sign} {aim} | {verdict} |", number(*measured))?;
    }
    Ok(())
}

fn with_spread(spread: Option<Spread>) -> String {
    let mut text = number(spread.map(|spread| spread.median));
    if let Some(Spread { min, max, .. }) = spread.filter(|spread| spread.min < spread.max) {
        let _ = write!(text, " ({}–{})", number(Some(min)), number(Some(max)));
    }
    text
}

/// Three figures or all whole ones; a dash for what there is not.
fn number(value: Option<f64>) -> String {
    match value {
        None => "–".into(),
        Some(value) if value.abs() >= 100.0 => thousands(value),
        Some(value) if value.abs() >= 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.2}"),
    }
}

fn thousands(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    format!("{}{}", if value < 0.0 { "-" } else { "" }, groups.join(","))
}

#[cfg(test)]
mod tests {
    use super::super::figures::tests::sample;
    use super::*;
    use crate::compare::Skipped;
    use crate::scenario;

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.123, 12.34, 123.4, 12_345.6, -1_234.0].map(|x| number(Some(x))), ["0.12", "12.3", "123", "12,346", "-1,234"]);
        assert_eq!(number(None), "–");
    }

    #[test]
    fn a_report_has_a_table_for_each_scenario_and_the_targets() {
        let samples = vec![sample("chat-1", "direct", 0, 100, None), sample("chat-1", "vllm-router", 0, 220, Some(150.0))];
        let skipped = vec![Skipped { contender: "litellm", reason: "long log\nno network".into() }];
        let report = Report { scenarios: vec![scenario::named("chat-1").unwrap()], costs: None, samples, skipped };
        let text = report.to_string();
        assert!(text.contains("| vllm-router | 1.00 | 1.00 | 220 / 220 / 220 | 120 / 120 | 150 | 1.00 | – | 0 |"), "{text}");
        assert!(text.contains("litellm was not measured: no network\n"), "{text}");
        assert!(text.contains("| P10 |") && text.contains("not measured"), "{text}");
    }
}
