//! edge: JSON objects, one on each line. Empty lines are no rows.

use super::types::{self, Kinds, Object};
use super::{Bad, Cell, Columns, Input, PIECE_ROWS, Piece, Pieces, Want};
use crate::cli::out::Failed;
use arrow_schema::SchemaRef;
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};

/// Bytes of one line: a row with its other columns.
const LINE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What some editors write at the beginning of a file in UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Columns of one file: each is held in memory for the rows of a piece.
const COLUMNS_MAX: usize = 1_000;

pub(super) fn pieces(input: &Input, want: Want) -> Result<Pieces, Failed> {
    let lines = Lines::open(input)?;
    let schema = if want == Want::Arrow { Some(schema(input)?) } else { None };
    Ok(Box::new(Rows { lines, want, schema }))
}

/// What all the lines have together.
pub(super) fn schema(input: &Input) -> Result<SchemaRef, Failed> {
    let mut lines = Lines::open(input)?;
    let mut kinds = Kinds::default();
    while let Some(line) = lines.next()? {
        kinds.add(&Object::read(&line).unwrap_or_default());
        if kinds.len() > COLUMNS_MAX {
            return Err(input.refused(format!("its objects have more than {COLUMNS_MAX} different members: use --only-vectors")));
        }
    }
    Ok(kinds.schema())
}

/// The lines of the file, as long as there are any.
struct Lines {
    input: Input,
    reader: BufReader<File>,
}

impl Lines {
    fn open(input: &Input) -> Result<Self, Failed> {
        let file = File::open(&input.path).map_err(|error| input.refused(error))?;
        let mut reader = BufReader::with_capacity(1 << 20, file);
        if reader.fill_buf().map_err(|error| input.refused(error))?.starts_with(BYTE_ORDER_MARK) {
            reader.consume(BYTE_ORDER_MARK.len());
        }
        Ok(Self { input: input.clone(), reader })
    }

    /// The next line that is not empty.
    fn next(&mut self) -> Result<Option<Vec<u8>>, Failed> {
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
    schema: Option<SchemaRef>,
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
        let columns = match (self.want, &self.schema) {
            (Want::Json, _) => Columns::Json(texts),
            (Want::Arrow, Some(schema)) => Columns::Arrow(types::batch(schema, &objects)),
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

#[cfg(test)]
mod tests {
    use super::super::super::format::Format;
    use super::*;

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_row() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("in.jsonl");
        std::fs::write(&path, "\u{feff}{\"t\":\"a\"}\n\u{feff}{\"t\":\"b\"}\n").unwrap();
        let input = Input { path, format: Format::Jsonl, column: "t".into() };
        let piece = pieces(&input, Want::Json).unwrap().next().unwrap().unwrap();
        assert_eq!(piece.cells, [Cell::Text("a".into()), Cell::Bad(Bad::NotJson)]);
        let Columns::Json(objects) = piece.columns else { panic!("no JSON") };
        assert_eq!(objects, [r#"{"t":"a"}"#, "{}"]);
        assert_eq!(schema(&input).unwrap().fields().len(), 1);
    }
}
