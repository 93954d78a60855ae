//! edge: the output: the input's rows in their order, each with its vector, or null and a line in the file of errors.

mod errors;
mod jsonl;
mod npy;
mod parquet;

use super::folder::Folder;
use super::format::Format;
use super::input::{Columns, Input, Want};
use super::plan::Plan;
use super::spool;
use crate::cli::out::Failed;
use ::parquet::errors::ParquetError;
use errors::Errors;
use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

type Vectors = [Option<Vec<f32>>];

/// What the output is to be.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) path: PathBuf,
    pub(super) format: Format,
    /// False: the vectors alone.
    pub(super) columns: bool,
    /// The name of the vectors' column.
    pub(super) vector_column: String,
}

/// Why a file could not be written.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Parquet(#[from] ParquetError),
}

enum Writer {
    Jsonl(jsonl::Writer),
    Npy(npy::Writer),
    Parquet(Box<parquet::Writer>),
}

impl Target {
    /// What must be read of the input's columns for it.
    fn want(&self) -> Want {
        match self.format {
            Format::Parquet if self.columns => Want::Arrow,
            Format::Jsonl if self.columns => Want::Json,
            _ => Want::Texts,
        }
    }

    /// Refuses what could not be written in the end.
    pub(super) fn check(&self, input: &Input) -> Result<(), Failed> {
        if self.format == Format::Csv {
            return Err(Failed::refused(format!("{}: write a .parquet, .jsonl or .npy file", self.path.display())));
        }
        input.pieces(self.want()).map(drop)?;
        if self.want() == Want::Arrow && input.schema()?.column_with_name(&self.vector_column).is_some() {
            let name = &self.vector_column;
            return Err(Failed::refused(format!("the input has a column `{name}` already: name the vectors' with --vector-column")));
        }
        Ok(())
    }

    fn writer(&self, input: &Input, path: &Path, rows: u64, dimensions: usize) -> Result<Writer, Failed> {
        let schema = if self.want() == Want::Arrow { Some(input.schema()?) } else { None };
        let made = match self.format {
            Format::Npy => npy::Writer::new(path, rows, dimensions).map(Writer::Npy).map_err(Fault::from),
            Format::Parquet => {
                let writer = parquet::Writer::new(path, schema.as_ref(), &self.vector_column, dimensions);
                writer.map(|writer| Writer::Parquet(Box::new(writer))).map_err(Fault::from)
            }
            Format::Jsonl | Format::Csv => jsonl::Writer::new(path, &self.vector_column).map(Writer::Jsonl).map_err(Fault::from),
        };
        made.map_err(|error| self.broken(error))
    }

    fn broken(&self, why: impl Display) -> Failed {
        Failed::broken(format!("{}: {why}", self.path.display()))
    }
}

impl Writer {
    fn write(&mut self, columns: &Columns, vectors: &Vectors) -> Result<(), Fault> {
        match self {
            Self::Jsonl(writer) => Ok(writer.write(columns, vectors)?),
            Self::Npy(writer) => Ok(writer.write(vectors)?),
            Self::Parquet(writer) => Ok(writer.write(columns, vectors)?),
        }
    }

    fn end(self) -> Result<(), Fault> {
        match self {
            Self::Jsonl(writer) => Ok(writer.end()?),
            Self::Npy(writer) => Ok(writer.end()?),
            Self::Parquet(writer) => Ok(writer.end()?),
        }
    }
}

/// Writes the output and the file of errors, each under its name when it is whole. Without a single vector there is no output.
/// Returns how many rows have none.
pub(super) fn write(plan: &Plan, input: &Input, target: &Target, folder: &Folder) -> Result<u64, Failed> {
    let path = folder.output();
    let mut errors = Errors::new(folder, plan)?;
    let mut vectors = spool::Reader::open(&folder.spool(), plan.dimensions).map_err(|error| folder.broken(error))?;
    let mut writer = plan.dimensions.map(|dimensions| target.writer(input, &path, plan.rows, dimensions)).transpose()?;
    for piece in input.pieces(target.want())? {
        let piece = piece?;
        let rows = piece.cells.iter().map(|_| vectors.next()).collect::<Result<Vec<_>, _>>().map_err(|error| folder.broken(error))?;
        errors.add(&piece.cells, &rows)?;
        if let Some(writer) = &mut writer {
            writer.write(&piece.columns, &rows).map_err(|error| target.broken(error))?;
        }
    }
    if let Some(writer) = writer {
        writer.end().map_err(|error| target.broken(error))?;
        std::fs::rename(&path, &target.path).map_err(|error| target.broken(error))?;
    }
    errors.end(&target.path)
}
