//! edge: the rows to embed, read from a file in pieces: each row's text, and its other columns as far as the output wants them.
//!
//! A file is read from its beginning more than once (to count, to cut, to write the output), always in the same order.

mod csv;
mod jsonl;
mod parquet;
mod types;

use super::format::Format;
use crate::cli::out::Failed;
use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use std::fmt::Display;
use std::fs::File;
use std::path::PathBuf;

/// Rows of one piece.
pub(super) const PIECE_ROWS: usize = 1_024;

/// Bytes of one text: more than any embedding model reads, and a line of a batch still.
const TEXT_BYTES_MAX: usize = 1024 * 1024;

/// The file, and what is to be embedded of it.
#[derive(Clone, Debug)]
pub(super) struct Input {
    pub(super) path: PathBuf,
    pub(super) format: Format,
    pub(super) column: String,
}

/// What is wanted of the columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    Texts,
    Json,
    Arrow,
}

/// Rows that follow each other.
pub(super) struct Piece {
    pub(super) cells: Vec<Cell>,
    pub(super) columns: Columns,
}

/// What a row has to embed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cell {
    Text(String),
    Bad(Bad),
}

/// Why a row has nothing to embed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bad {
    Null,
    Empty,
    NotText,
    NotJson,
    TooLong,
}

pub(super) enum Columns {
    None,
    /// An object for each row.
    Json(Vec<String>),
    Arrow(RecordBatch),
}

pub(super) type Pieces = Box<dyn Iterator<Item = Result<Piece, Failed>>>;

impl Input {
    /// # Errors
    /// No file that can be read, or none with this column.
    pub(super) fn pieces(&self, want: Want) -> Result<Pieces, Failed> {
        match self.format {
            Format::Jsonl => jsonl::pieces(self, want),
            Format::Csv => csv::pieces(self, want),
            Format::Parquet => parquet::pieces(self, want),
            Format::Npy => Err(self.refused("a .npy file holds no texts: use .jsonl, .csv or .parquet")),
        }
    }

    /// The columns as Arrow has them, all of the input's.
    pub(super) fn schema(&self) -> Result<SchemaRef, Failed> {
        match self.format {
            Format::Jsonl => jsonl::schema(self),
            Format::Csv => csv::schema(self),
            Format::Parquet | Format::Npy => parquet::schema(self),
        }
    }

    /// How many rows there are.
    pub(super) fn count(&self) -> Result<u64, Failed> {
        let mut rows = 0;
        for piece in self.pieces(Want::Texts)? {
            rows += piece?.cells.len() as u64;
        }
        if rows == 0 { Err(self.refused("there are no rows")) } else { Ok(rows) }
    }

    /// Of all its bytes, so that a run goes on with the same rows or not at all.
    pub(super) fn hash(&self) -> Result<String, Failed> {
        let file = File::open(&self.path).map_err(|error| self.refused(error))?;
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(file).map_err(|error| self.refused(error))?;
        Ok(hasher.finalize().to_hex().to_string())
    }

    fn refused(&self, why: impl Display) -> Failed {
        Failed::refused(format!("{}: {why}", self.path.display()))
    }

    fn no_column(&self, there: &[String]) -> Failed {
        self.refused(format!("there is no column `{}` (--column); there are {}", self.column, there.join(", ")))
    }
}

impl Cell {
    fn of(text: Option<&str>) -> Self {
        match text {
            None => Self::Bad(Bad::Null),
            Some(text) if text.trim().is_empty() => Self::Bad(Bad::Empty),
            Some(text) if text.len() > TEXT_BYTES_MAX => Self::Bad(Bad::TooLong),
            Some(text) => Self::Text(text.to_owned()),
        }
    }
}

impl Bad {
    pub(super) const fn code(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Empty => "empty",
            Self::NotText => "not_text",
            Self::NotJson => "not_json",
            Self::TooLong => "too_long",
        }
    }

    pub(super) const fn sentence(self) -> &'static str {
        match self {
            Self::Null => "The row has no value in this column.",
            Self::Empty => "The text is empty.",
            Self::NotText => "The value in this column is no text.",
            Self::NotJson => "The line is no JSON object.",
            Self::TooLong => "The text has more than 1 MiB.",
        }
    }
}
