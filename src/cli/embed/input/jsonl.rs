//! edge: JSON objects, one on each line. Empty lines are no rows.

use super::types::{Object, Types};
use super::{Bad, Cell, Columns, Input, PIECE_ROWS, Piece, Pieces, Want};
use crate::cli::out::Failed;
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};

/// Bytes of one line: a row with its other columns.
const LINE_BYTES_MAX: u64 = 64 * 1024 * 1024;

pub(super) fn pieces(input: &Input, want: Want) -> Result<Pieces, Failed> {
    let lines = Lines::open(input)?;
    let types = if want == Want::Arrow { Some(Types::of(input.schema()?)) } else { None };
    Ok(Box::new(Rows { lines, want, types }))
}

/// The lines of the file, as long as there are any.
pub(super) struct Lines {
    input: Input,
    reader: BufReader<File>,
}

impl Lines {
    pub(super) fn open(input: &Input) -> Result<Self, Failed> {
        let file = File::open(&input.path).map_err(|error| input.refused(error))?;
        Ok(Self { input: input.clone(), reader: BufReader::with_capacity(1 << 20, file) })
    }

    /// The next line that is not empty.
    pub(super) fn next(&mut self) -> Result<Option<Vec<u8>>, Failed> {
        loop {
            let mut line = Vec::new();
            let read = (&mut self.reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).map_err(|error| self.input.refused(error))?;
            if read == 0 {
                return Ok(None);
            }
            if read as u64 == LINE_BYTES_MAX {
                return Err(self.input.refused("a line has more than 64 MiB: is this JSONL?"));
            }
            let line = line.trim_ascii();
            if !line.is_empty() {
                return Ok(Some(line.to_vec()));
            }
        }
    }
}

struct Rows {
    lines: Lines,
    want: Want,
    types: Option<Types>,
}

impl Iterator for Rows {
    type Item = Result<Piece, Failed>;

    fn next(&mut self) -> Option<Self::Item> {
        self.piece().transpose()
    }
}

impl Rows {
    fn piece(&mut self) -> Result<Option<Piece>, Failed> {
        let (mut cells, mut texts, mut objects) = (Vec::new(), Vec::new(), Vec::new());
        while cells.len() < PIECE_ROWS
            && let Some(line) = self.lines.next()?
        {
            let object = Object::read(&line);
            cells.push(cell(object.as_ref(), &self.lines.input.column));
            match self.want {
                Want::Texts => {}
                Want::Json => texts.push(if object.is_some() { String::from_utf8_lossy(&line).into_owned() } else { "{}".into() }),
                Want::Arrow => objects.push(object.unwrap_or_default()),
            }
        }
        if cells.is_empty() {
            return Ok(None);
        }
        let columns = match (self.want, &self.types) {
            (Want::Json, _) => Columns::Json(texts),
            (Want::Arrow, Some(types)) => Columns::Arrow(types.batch(&objects)),
            _ => Columns::None,
        };
        Ok(Some(Piece { cells, columns }))
    }
}

fn cell(object: Option<&Object>, column: &str) -> Cell {
    match object.map(|object| object.get(column)) {
        None => Cell::Bad(Bad::NotJson),
        Some(None | Some(Value::Null)) => Cell::Bad(Bad::Null),
        Some(Some(Value::String(text))) => Cell::of(Some(text)),
        Some(Some(_)) => Cell::Bad(Bad::NotText),
    }
}
