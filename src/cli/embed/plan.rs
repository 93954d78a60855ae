//! core: where a run stands, as its journal tells it.

use super::journal::{Entry, Purpose};
use std::ops::Range;

#[derive(Debug)]
pub(super) struct Plan {
    pub(super) rows: u64,
    pub(super) purpose: Purpose,
    pub(super) parts: Vec<Part>,
    /// Numbers in a vector, since one has come.
    pub(super) dimensions: Option<usize>,
}

/// Rows that follow each other, and the batch of their texts.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) rows: Range<u64>,
    pub(super) file: String,
    pub(super) step: Step,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Uploaded,
    Submitted { batch: String },
    Fetched { failed: u64 },
}

/// The journal does not tell one story.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the journal is damaged")]
pub(super) struct Damaged;

impl Plan {
    /// `None`: nothing was begun.
    pub(super) fn read(entries: Vec<Entry>) -> Result<Option<Self>, Damaged> {
        let mut entries = entries.into_iter();
        let mut plan = match entries.next() {
            None => return Ok(None),
            Some(Entry::Begun { rows, purpose }) => Self { rows, purpose, parts: Vec::new(), dimensions: None },
            Some(_) => return Err(Damaged),
        };
        for entry in entries {
            plan.apply(entry)?;
        }
        Ok(Some(plan))
    }

    pub(super) fn apply(&mut self, entry: Entry) -> Result<(), Damaged> {
        match entry {
            Entry::Begun { .. } => Err(Damaged),
            Entry::Uploaded { part, rows, file } if part == self.parts.len() && rows.start >= self.next_row() => {
                self.parts.push(Part { rows, file, step: Step::Uploaded });
                Ok(())
            }
            Entry::Uploaded { .. } => Err(Damaged),
            Entry::Submitted { part, batch } => self.step(part, Step::Submitted { batch }),
            Entry::Refused { part } => self.step(part, Step::Uploaded),
            Entry::Fetched { part, dimensions, failed } => {
                self.dimensions = self.dimensions.or(dimensions);
                self.step(part, Step::Fetched { failed })
            }
        }
    }

    fn step(&mut self, part: usize, step: Step) -> Result<(), Damaged> {
        self.parts.get_mut(part).ok_or(Damaged)?.step = step;
        Ok(())
    }

    /// The first row that is in no part yet.
    pub(super) fn next_row(&self) -> u64 {
        self.parts.last().map_or(0, |part| part.rows.end)
    }

    /// Parts on their way.
    pub(super) fn open(&self) -> Vec<usize> {
        (0..self.parts.len()).filter(|&part| !matches!(self.parts[part].step, Step::Fetched { .. })).collect()
    }

    /// Rows of fetched parts, and how many of them have no vector.
    pub(super) fn fetched(&self) -> (u64, u64) {
        let parts = self.parts.iter().filter_map(|part| match part.step {
            Step::Fetched { failed } => Some((part.rows.end - part.rows.start, failed)),
            _ => None,
        });
        parts.fold((0, 0), |(rows, all_failed), (own, failed)| (rows + own, all_failed + failed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun() -> Entry {
        let purpose = Purpose { input: "h".into(), column: "text".into(), model: "m".into(), dimensions: None };
        Entry::Begun { rows: 100, purpose }
    }

    fn uploaded(part: usize, rows: Range<u64>) -> Entry {
        Entry::Uploaded { part, rows, file: "file-1".into() }
    }

    #[test]
    fn a_run_goes_on_where_its_journal_ends() {
        let entries = vec![
            begun(),
            uploaded(0, 0..60),
            Entry::Submitted { part: 0, batch: "b0".into() },
            uploaded(1, 60..90),
            Entry::Fetched { part: 0, dimensions: Some(3), failed: 2 },
        ];
        let plan = Plan::read(entries).unwrap().unwrap();
        assert_eq!((plan.next_row(), plan.open(), plan.fetched(), plan.dimensions), (90, vec![1], (60, 2), Some(3)));
        assert_eq!(plan.parts[1].step, Step::Uploaded);
    }

    #[test]
    fn a_refused_part_is_to_be_submitted_again() {
        let entries = vec![begun(), uploaded(0, 0..9), Entry::Submitted { part: 0, batch: "b".into() }, Entry::Refused { part: 0 }];
        assert_eq!(Plan::read(entries).unwrap().unwrap().parts[0].step, Step::Uploaded);
    }

    #[test]
    fn a_journal_that_contradicts_itself_is_damaged() {
        let wrong =
            [vec![uploaded(0, 0..1)], vec![begun(), begun()], vec![begun(), uploaded(1, 0..1)], vec![begun(), Entry::Refused { part: 0 }]];
        for entries in wrong {
            assert_eq!(Plan::read(entries).err(), Some(Damaged));
        }
        assert!(Plan::read(Vec::new()).unwrap().is_none());
    }
}
