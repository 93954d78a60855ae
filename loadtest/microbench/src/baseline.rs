//! core: the recorded counts, and what has become of them.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

/// A count may rise by this many percent. What is left of chance in a count is far below one.
const RISE_PERCENT_MAX: u64 = 5;

/// Counts by the names of the cases.
pub(crate) type Counts = BTreeMap<String, u64>;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the recorded counts is not a name and a number: record them anew")]
pub(crate) struct Unreadable {
    line: usize,
}

/// Reads recorded counts: a name and a number on each line, `#` before what is said about them.
///
/// # Errors
/// A line that is neither.
pub(crate) fn parse(text: &str) -> Result<Counts, Unreadable> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.starts_with('#') && !line.trim().is_empty());
    lines.map(|(index, line)| entry(line).ok_or(Unreadable { line: index + 1 })).collect()
}

fn entry(line: &str) -> Option<(String, u64)> {
    let (name, count) = line.split_once(char::is_whitespace)?;
    Some((name.to_owned(), count.trim().parse().ok()?))
}

/// The counts as they are recorded: sorted, so that a change shows as the lines that changed.
pub(crate) fn render(counts: &Counts, heading: &str) -> String {
    let width = counts.keys().map(String::len).max().unwrap_or(0);
    let mut text: String = heading.lines().map(|line| format!("# {line}\n")).collect();
    for (name, count) in counts {
        writeln!(text, "{name:width$} {count:>9}").expect("a string takes what is written to it");
    }
    text
}

/// One case then and now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Change<'a> {
    name: &'a str,
    recorded: Option<u64>,
    counted: Option<u64>,
}

/// All cases that are recorded or counted, by name.
pub(crate) fn compare<'a>(recorded: &'a Counts, counted: &'a Counts) -> Vec<Change<'a>> {
    let added = counted.keys().filter(|name| !recorded.contains_key(*name));
    let of = |name: &'a String| Change { name, recorded: recorded.get(name).copied(), counted: counted.get(name).copied() };
    let mut changes: Vec<_> = recorded.keys().chain(added).map(of).collect();
    changes.sort_unstable_by_key(|change| change.name);
    changes
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Within,
    /// It fell by more than it may rise: recorded, it cannot creep back.
    Fell,
    Rose,
    Unrecorded,
    Gone,
}

impl Change<'_> {
    pub(crate) fn verdict(&self) -> Verdict {
        match (self.recorded, self.counted) {
            (None, _) => Verdict::Unrecorded,
            (_, None) => Verdict::Gone,
            (Some(then), Some(now)) if now * 100 > then * (100 + RISE_PERCENT_MAX) => Verdict::Rose,
            (Some(then), Some(now)) if now * 100 < then * (100 - RISE_PERCENT_MAX) => Verdict::Fell,
            _ => Verdict::Within,
        }
    }

    /// Whether the counts may stay as they are recorded.
    pub(crate) fn passes(&self) -> bool {
        matches!(self.verdict(), Verdict::Within | Verdict::Fell)
    }
}

impl fmt::Display for Change<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |count: Option<u64>| count.map_or("-".to_owned(), |count| count.to_string());
        write!(f, "{:44} {:>9} {:>9}", self.name, number(self.recorded), number(self.counted))?;
        if let (Some(then), Some(now)) = (self.recorded, self.counted) {
            write!(f, " {:>+7.1} %", (now as f64 / then as f64 - 1.0) * 100.0)?;
        }
        f.write_str(match self.verdict() {
            Verdict::Within => "",
            Verdict::Fell => "  fell: record it",
            Verdict::Rose => "  ROSE",
            Verdict::Unrecorded => "  NOT RECORDED",
            Verdict::Gone => "  NO SUCH CASE",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(of: &[(&str, u64)]) -> Counts {
        of.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    #[test]
    fn what_is_recorded_is_read_again() {
        let of = counts(&[("wire/decode", 7), ("engine/a-long-name", 123_456)]);
        let text = render(&of, "two lines\nof heading");
        assert!(text.starts_with("# two lines\n# of heading\nengine/"), "{text}");
        assert_eq!(parse(&text), Ok(of));
    }

    #[test]
    fn a_line_that_is_no_record_is_refused_by_its_number() {
        assert_eq!(parse("# fine\na 1\nb\n"), Err(Unreadable { line: 3 }));
        assert_eq!(parse("a x"), Err(Unreadable { line: 1 }));
    }

    #[test]
    fn five_percent_more_pass_and_a_hair_above_does_not() {
        let verdict = |then, now| Change { name: "a", recorded: Some(then), counted: Some(now) }.verdict();
        assert_eq!(verdict(1_000, 1_050), Verdict::Within);
        assert_eq!(verdict(1_000, 1_051), Verdict::Rose);
        assert_eq!(verdict(1_000, 950), Verdict::Within);
        assert_eq!(verdict(1_000, 949), Verdict::Fell);
    }

    #[test]
    fn a_case_on_one_side_only_fails_until_it_is_recorded() {
        let (recorded, counted) = (counts(&[("gone", 1), ("kept", 1)]), counts(&[("kept", 1), ("added", 1)]));
        let changes = compare(&recorded, &counted);
        let verdicts: Vec<_> = changes.iter().map(|change| (change.name, change.verdict(), change.passes())).collect();
        assert_eq!(verdicts, [("added", Verdict::Unrecorded, false), ("gone", Verdict::Gone, false), ("kept", Verdict::Within, true)]);
    }
}
