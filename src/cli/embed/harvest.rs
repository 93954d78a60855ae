//! edge: fetches what came of one batch: vectors into the spool, and the errors of its rows.

use super::folder::Folder;
use super::outcome::{Outcome, Refusal};
use super::spool::Spool;
use crate::cli::api::{Api, Batch, Trouble};
use crate::cli::out::Failed;
use std::collections::BTreeMap;
use std::ops::Range;

pub(super) struct Harvest<'a> {
    folder: &'a Folder,
    /// Of the part; an outcome of any other row is not ours.
    rows: Range<u64>,
    all_rows: u64,
    dimensions: Option<usize>,
    spool: Option<Spool>,
    errors: BTreeMap<u64, Refusal>,
    /// Which of the rows have a vector.
    there: Vec<bool>,
}

impl<'a> Harvest<'a> {
    /// `dimensions`, when an earlier part has told them.
    pub(super) fn new(folder: &'a Folder, rows: Range<u64>, all_rows: u64, dimensions: Option<usize>) -> Self {
        let there = vec![false; usize::try_from(rows.end - rows.start).expect("a part was in memory's reach when it was cut")];
        Self { folder, rows, all_rows, dimensions, spool: None, errors: BTreeMap::new(), there }
    }

    pub(super) const fn dimensions(&self) -> Option<usize> {
        self.dimensions
    }

    /// Reads both files of a batch. Trying again does no harm.
    pub(super) async fn gather(&mut self, api: &Api, batch: &Batch) -> Result<(), Trouble> {
        for file in [&batch.output_file_id, &batch.error_file_id].into_iter().flatten() {
            let mut content = api.content(file).await?;
            while let Some(line) = content.line().await? {
                if let Some(outcome) = Outcome::read(line).filter(|outcome| self.rows.contains(&outcome.row)) {
                    self.take(outcome)?;
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, Outcome { row, result }: Outcome) -> Result<(), Failed> {
        match result {
            Ok(vector) if self.dimensions.is_none_or(|known| known == vector.len()) => self.put(row, &vector),
            Ok(vector) => {
                let message = format!("The vector has {} numbers, and others have not.", vector.len());
                self.errors.insert(row, Refusal::new("wrong_dimensions", message));
                Ok(())
            }
            Err(refusal) => {
                self.errors.insert(row, refusal);
                Ok(())
            }
        }
    }

    fn put(&mut self, row: u64, vector: &[f32]) -> Result<(), Failed> {
        self.dimensions = Some(vector.len());
        if self.spool.is_none() {
            let spool = Spool::open(&self.folder.spool(), self.all_rows, vector.len());
            self.spool = Some(spool.map_err(|error| self.folder.broken(error))?);
        }
        if let Some(spool) = &mut self.spool {
            spool.put(row, vector).map_err(|error| self.folder.broken(error))?;
        }
        let place = usize::try_from(row - self.rows.start).expect("the row is one of the part's");
        self.there[place] = true;
        Ok(())
    }

    /// Everything that was gathered is on the disk when this returns. How many rows of the part have no vector.
    pub(super) fn store(&self, part: usize) -> Result<u64, Failed> {
        if let Some(spool) = &self.spool {
            spool.sync().map_err(|error| self.folder.broken(error))?;
        }
        self.folder.keep_errors(part, &self.errors)?;
        Ok(self.there.iter().filter(|there| !**there).count() as u64)
    }
}
