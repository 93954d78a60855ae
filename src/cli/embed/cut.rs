//! edge: cuts the input into parts: files of requests that a batch can be made of, one line for each row that has a text.

use super::input::{Cell, Input, Pieces, Want};
use crate::cli::out::Failed;
use serde_json::Value;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::path::Path;

/// Lines of one batch: what OpenAI takes, and Tidemill unless it was told otherwise.
pub(super) const LINES_MAX: u64 = 50_000;

/// Bytes of one file: below the 200 MB that those take.
const BYTES_MAX: u64 = 150_000_000;

/// Goes through the input once, from its beginning to its end.
pub(super) struct Cutter {
    pieces: Pieces,
    cells: std::vec::IntoIter<Cell>,
    /// The next row.
    at: u64,
    lines_max: u64,
    /// What is the same in every line.
    around: (String, String),
}

impl Cutter {
    /// Begins at row `at`.
    pub(super) fn new(input: &Input, at: u64, lines_max: u64, model: &str, dimensions: Option<u32>) -> Result<Self, Failed> {
        let mut cutter =
            Self { pieces: input.pieces(Want::Texts)?, cells: Vec::new().into_iter(), at: 0, lines_max, around: around(model, dimensions) };
        while cutter.at < at && cutter.cell()?.is_some() {}
        Ok(cutter)
    }

    /// Writes the next part. `None`: no row that is left has a text.
    pub(super) fn cut(&mut self, path: &Path) -> Result<Option<Range<u64>>, Failed> {
        let failed = |error: io::Error| Failed::broken(format!("{}: {error}", path.display()));
        let mut file = BufWriter::with_capacity(1 << 20, File::create(path).map_err(failed)?);
        let first = self.at;
        let (mut lines, mut bytes) = (0, 0);
        while lines < self.lines_max && bytes < BYTES_MAX {
            let row = self.at;
            let Some(cell) = self.cell()? else { break };
            if let Cell::Text(text) = cell {
                let line = self.line(row, &text);
                file.write_all(line.as_bytes()).map_err(failed)?;
                lines += 1;
                bytes += line.len() as u64;
            }
        }
        file.flush().map_err(failed)?;
        Ok((lines > 0).then_some(first..self.at))
    }

    fn cell(&mut self) -> Result<Option<Cell>, Failed> {
        loop {
            if let Some(cell) = self.cells.next() {
                self.at += 1;
                return Ok(Some(cell));
            }
            match self.pieces.next().transpose()? {
                Some(piece) => self.cells = piece.cells.into_iter(),
                None => return Ok(None),
            }
        }
    }

    fn line(&self, row: u64, text: &str) -> String {
        let (before, after) = &self.around;
        format!("{{\"custom_id\":\"{row}\",{before}{}{after}\n", Value::from(text))
    }
}

/// Vectors come as base64: a third of the bytes, and exact.
fn around(model: &str, dimensions: Option<u32>) -> (String, String) {
    let dimensions = dimensions.map(|dimensions| format!(r#","dimensions":{dimensions}"#)).unwrap_or_default();
    let model = Value::from(model);
    let before =
        format!(r#""method":"POST","url":"/v1/embeddings","body":{{"model":{model},"encoding_format":"base64"{dimensions},"input":"#);
    (before, "}}".into())
}

#[cfg(test)]
mod tests {
    use super::super::format::Format;
    use super::*;

    fn lines(path: &Path) -> Vec<Value> {
        std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn parts_follow_each_other_and_hold_the_rows_that_have_a_text() {
        let folder = tempfile::tempdir().unwrap();
        let (path, part) = (folder.path().join("in.jsonl"), folder.path().join("part"));
        std::fs::write(&path, "{\"t\":\"a\\\"\"}\n\nnot json\n{\"t\":\"b\"}\n{\"t\":null}\n{\"t\":\"c\"}\n{\"t\":\" \"}\n").unwrap();
        let input = Input { path, format: Format::Jsonl, column: "t".into() };
        let mut cutter = Cutter::new(&input, 0, 2, "m", Some(8)).unwrap();
        assert_eq!(cutter.cut(&part).unwrap(), Some(0..3));
        let body = serde_json::json!({ "model": "m", "encoding_format": "base64", "dimensions": 8, "input": "a\"" });
        assert_eq!(lines(&part)[0], serde_json::json!({ "custom_id": "0", "method": "POST", "url": "/v1/embeddings", "body": body }));
        assert_eq!(lines(&part)[1]["custom_id"], "2");

        let mut resumed = Cutter::new(&input, 3, 2, "m", None).unwrap();
        assert_eq!(resumed.cut(&part).unwrap(), Some(3..6));
        assert_eq!((lines(&part).len(), &lines(&part)[0]["custom_id"]), (1, &Value::from("4")));
        assert_eq!(resumed.cut(&part).unwrap(), None, "nothing is left to embed");
    }
}
