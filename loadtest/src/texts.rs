//! edge: texts to embed: real ones where the machine has them, else synthetic ones of the same lengths.

use crate::draw;
use std::collections::HashSet;
use std::path::Path;
use std::process::Command;

/// Texts, and where they are from.
#[derive(Clone, Debug)]
pub struct Texts {
    pub lines: Vec<String>,
    pub origin: &'static str,
}

/// The lengths of Debian's package descriptions in bytes: their 0th, 10th, … 100th percentile.
const LENGTH_DECILES: [usize; 11] = [8, 27, 33, 38, 42, 46, 50, 54, 59, 64, 160];

/// Of the order of the lengths.
const SEED: u64 = 1;

const WORDS: [&str; 24] = [
    "library",
    "for",
    "the",
    "fast",
    "parsing",
    "of",
    "network",
    "protocol",
    "files",
    "development",
    "headers",
    "graphical",
    "tool",
    "and",
    "simple",
    "client",
    "with",
    "support",
    "Python",
    "bindings",
    "to",
    "manage",
    "large",
    "datasets",
];

/// `count` different descriptions of Debian packages; synthetic texts where there are not enough.
pub fn descriptions(count: usize) -> Texts {
    let mut lines = package_descriptions();
    if lines.len() < count {
        return synthetic(count);
    }
    let step = lines.len() / count;
    lines = lines.into_iter().step_by(step).take(count).collect();
    Texts { lines, origin: "package descriptions" }
}

/// The lines of a file that are not empty.
pub fn from_file(path: &Path) -> std::io::Result<Texts> {
    let lines = std::fs::read_to_string(path)?.lines().map(str::trim).filter(|l| !l.is_empty()).map(str::to_owned).collect();
    Ok(Texts { lines, origin: "file" })
}

fn package_descriptions() -> Vec<String> {
    let listed = Command::new("apt-cache").arg("dumpavail").output().map(|output| output.stdout).unwrap_or_default();
    let known = std::fs::read("/var/lib/dpkg/available").unwrap_or_default();
    let text = String::from_utf8_lossy(if listed.is_empty() { &known } else { &listed }).into_owned();
    let mut seen = HashSet::new();
    let lines = text.lines().filter_map(|line| line.strip_prefix("Description: "));
    lines.filter(|line| seen.insert(*line)).map(str::to_owned).collect()
}

/// Deterministic texts, each different, with the lengths of package descriptions.
pub fn synthetic(count: usize) -> Texts {
    Texts { lines: with_lengths(count, &LENGTH_DECILES), origin: "synthetic, with the lengths of package descriptions" }
}

/// Deterministic texts, each different, in a random order, whose lengths in bytes follow these quantiles.
pub fn with_lengths(count: usize, quantiles: &[usize]) -> Vec<String> {
    let mut ranks: Vec<usize> = (0..count).collect();
    ranks.sort_by_key(|&rank| draw::bits(SEED, rank as u64));
    ranks.into_iter().enumerate().map(|(index, rank)| synthetic_line(index, length(rank, count, quantiles))).collect()
}

/// The length of rank `rank` of `count`, between the quantiles on its both sides.
fn length(rank: usize, count: usize, quantiles: &[usize]) -> usize {
    let position = rank * (quantiles.len() - 1);
    let (quantile, rest) = (position / count, position % count);
    let (low, high) = (quantiles[quantile], quantiles[(quantile + 1).min(quantiles.len() - 1)]);
    low + high.saturating_sub(low) * rest / count
}

fn synthetic_line(index: usize, length: usize) -> String {
    let mut line = format!("{index:x}");
    let own = line.len();
    let mut draw = index;
    while line.len() < length {
        draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        line.push(' ');
        line.push_str(WORDS[(draw >> 33) % WORDS.len()]);
    }
    // What makes it different stays, however short it is to be.
    line.truncate(length.max(own));
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn synthetic_texts_differ_and_have_the_lengths_of_real_ones() {
        let texts = synthetic(2_000).lines;
        assert_eq!(texts.iter().collect::<HashSet<_>>().len(), 2_000);
        let mean = texts.iter().map(String::len).sum::<usize>() / texts.len();
        assert!((40..65).contains(&mean), "the real mean is 46 bytes, this is {mean}");
    }

    #[test]
    fn lengths_follow_their_quantiles_in_no_order() {
        let lengths: Vec<usize> = with_lengths(1_000, &[10, 20, 1_000]).iter().map(String::len).collect();
        let short = lengths.iter().filter(|length| **length < 20).count();
        assert_eq!(short, 500, "half are below the median");
        assert!(lengths.iter().max().is_some_and(|longest| (990..1_000).contains(longest)));
        assert!(!lengths.is_sorted());
        assert!(with_lengths(10, &[400]).iter().all(|text| text.len() == 400));
    }

    #[test]
    fn as_many_descriptions_come_as_were_asked_for() {
        let texts = descriptions(100);
        assert_eq!(texts.lines.len(), 100, "{}", texts.origin);
        assert_eq!(texts.lines.iter().collect::<HashSet<_>>().len(), 100);
    }
}
