//! edge: the file of errors: a line for each row that has no vector, in the order of the rows.

use super::Vectors;
use crate::cli::embed::errors_path;
use crate::cli::embed::folder::Folder;
use crate::cli::embed::input::Cell;
use crate::cli::embed::outcome::Refusal;
use crate::cli::embed::plan::{Part, Plan};
use crate::cli::out::Failed;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, ErrorKind, Write};
use std::path::Path;

/// The rows without a vector, and why.
pub(super) struct Errors<'a> {
    folder: &'a Folder,
    parts: &'a [Part],
    /// The errors of the part at hand.
    known: BTreeMap<u64, Refusal>,
    /// The parts whose errors are or were at hand.
    seen: usize,
    file: BufWriter<File>,
    row: u64,
    count: u64,
}

impl<'a> Errors<'a> {
    pub(super) fn new(folder: &'a Folder, plan: &'a Plan) -> Result<Self, Failed> {
        let file = File::create(folder.all_errors()).map_err(|error| folder.broken(error))?;
        Ok(Self { folder, parts: &plan.parts, known: BTreeMap::new(), seen: 0, file: BufWriter::new(file), row: 0, count: 0 })
    }

    pub(super) fn add(&mut self, cells: &[Cell], vectors: &Vectors) -> Result<(), Failed> {
        for (cell, vector) in cells.iter().zip(vectors) {
            if vector.is_none() {
                let refusal = self.reason(cell)?;
                let line = json!({ "row": self.row, "code": refusal.code, "message": refusal.message });
                writeln!(self.file, "{line}").map_err(|error| self.folder.broken(error))?;
                self.count += 1;
            }
            self.row += 1;
        }
        Ok(())
    }

    fn reason(&mut self, cell: &Cell) -> Result<Refusal, Failed> {
        if let Cell::Bad(bad) = cell {
            return Ok(Refusal::new(bad.code(), bad.sentence()));
        }
        while self.parts.get(self.seen).is_some_and(|part| part.rows.start <= self.row) {
            self.known = self.folder.errors(self.seen)?;
            self.seen += 1;
        }
        let unsaid = || Refusal::new("no_answer", "The batch ended without an outcome for this row; embed it again.");
        Ok(self.known.remove(&self.row).unwrap_or_else(unsaid))
    }

    /// Puts the file beside the output if there are any.
    pub(super) fn end(mut self, output: &Path) -> Result<u64, Failed> {
        let target = errors_path(output);
        self.file.flush().map_err(|error| self.folder.broken(error))?;
        let placed = match self.count {
            0 => std::fs::remove_file(&target),
            _ => std::fs::rename(self.folder.all_errors(), &target),
        };
        match placed {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(Failed::broken(format!("{}: {error}", target.display()))),
            _ => Ok(self.count),
        }
    }
}
