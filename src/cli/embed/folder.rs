//! edge: the folder beside the output in which a run keeps what it needs to go on after a kill, until the output is whole.

use super::outcome::Refusal;
use crate::cli::out::Failed;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

pub(super) struct Folder(PathBuf);

#[derive(Serialize, Deserialize)]
struct Line {
    row: u64,
    #[serde(flatten)]
    refusal: Refusal,
}

impl Folder {
    /// The folder of this output: `OUTPUT.progress`.
    pub(super) fn beside(output: &Path) -> Self {
        Self(crate::cli::batch::with_ending(output, ".progress"))
    }

    pub(super) fn exists(&self) -> bool {
        self.0.exists()
    }

    pub(super) fn make(&self) -> Result<(), Failed> {
        std::fs::create_dir_all(&self.0).map_err(|error| self.broken(error))
    }

    pub(super) fn remove(&self) -> Result<(), Failed> {
        std::fs::remove_dir_all(&self.0).map_err(|error| self.broken(error))
    }

    pub(super) fn journal(&self) -> PathBuf {
        self.0.join("journal.jsonl")
    }

    pub(super) fn spool(&self) -> PathBuf {
        self.0.join("vectors")
    }

    /// The part that is about to be uploaded.
    pub(super) fn part(&self) -> PathBuf {
        self.0.join("part.jsonl")
    }

    /// The output while it is written.
    pub(super) fn output(&self) -> PathBuf {
        self.0.join("output")
    }

    /// The errors of all rows while they are written.
    pub(super) fn all_errors(&self) -> PathBuf {
        self.0.join("errors.jsonl")
    }

    /// Keeps the errors of a part. They are on the disk when this returns.
    pub(super) fn keep_errors(&self, part: usize, errors: &BTreeMap<u64, Refusal>) -> Result<(), Failed> {
        let write = || -> io::Result<()> {
            let mut file = BufWriter::new(File::create(self.errors_of(part))?);
            for (&row, refusal) in errors {
                serde_json::to_writer(&mut file, &Line { row, refusal: refusal.clone() })?;
                file.write_all(b"\n")?;
            }
            file.flush()?;
            file.get_ref().sync_data()
        };
        write().map_err(|error| self.broken(error))
    }

    /// What was kept of a part's errors.
    pub(super) fn errors(&self, part: usize) -> Result<BTreeMap<u64, Refusal>, Failed> {
        let text = std::fs::read_to_string(self.errors_of(part)).map_err(|error| self.broken(error))?;
        let lines = text.lines().map(|line| serde_json::from_str::<Line>(line).map(|line| (line.row, line.refusal)));
        lines.collect::<Result<_, _>>().map_err(|error| self.broken(error))
    }

    fn errors_of(&self, part: usize) -> PathBuf {
        self.0.join(format!("errors-{part}.jsonl"))
    }

    pub(super) fn broken(&self, why: impl Display) -> Failed {
        Failed::broken(format!("{}: {why}", self.0.display()))
    }

    pub(super) fn refused(&self, why: impl Display) -> Failed {
        Failed::refused(format!("{}: {why}", self.0.display()))
    }
}
