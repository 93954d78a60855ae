//! edge: comma-separated values with a head line. All columns are strings; a row that is too short has nulls at its end.

use super::{Bad, Cell, Columns, Input, PIECE_ROWS, Piece, Pieces, Want};
use crate::cli::out::Failed;
use arrow_array::{ArrayRef, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use csv::{ByteRecord, Reader, ReaderBuilder};
use std::fs::File;
use std::sync::Arc;

pub(super) fn pieces(input: &Input, want: Want) -> Result<Pieces, Failed> {
    let mut reader = open(input)?;
    let head = head(input, &mut reader)?;
    let place = head.iter().position(|name| *name == input.column).ok_or_else(|| input.no_column(&head))?;
    Ok(Box::new(Rows { input: input.clone(), reader, schema: schema_of(&head), place, want }))
}

pub(super) fn schema(input: &Input) -> Result<SchemaRef, Failed> {
    let mut reader = open(input)?;
    Ok(schema_of(&head(input, &mut reader)?))
}

fn open(input: &Input) -> Result<Reader<File>, Failed> {
    ReaderBuilder::new().flexible(true).from_path(&input.path).map_err(|error| input.refused(error))
}

fn head(input: &Input, reader: &mut Reader<File>) -> Result<Vec<String>, Failed> {
    let head = reader.headers().map_err(|error| input.refused(error))?;
    // What Excel writes at the beginning of a file.
    Ok(head.iter().map(|name| name.trim_start_matches('\u{feff}').to_owned()).collect())
}

fn schema_of(head: &[String]) -> SchemaRef {
    Arc::new(Schema::new(head.iter().map(|name| Field::new(name, DataType::Utf8, true)).collect::<Vec<_>>()))
}

struct Rows {
    input: Input,
    reader: Reader<File>,
    schema: SchemaRef,
    /// Of the column to embed.
    place: usize,
    want: Want,
}

impl Iterator for Rows {
    type Item = Result<Piece, Failed>;

    fn next(&mut self) -> Option<Self::Item> {
        self.piece().transpose()
    }
}

impl Rows {
    fn piece(&mut self) -> Result<Option<Piece>, Failed> {
        let mut records = Vec::with_capacity(PIECE_ROWS);
        let mut record = ByteRecord::new();
        while records.len() < PIECE_ROWS && self.reader.read_byte_record(&mut record).map_err(|error| self.input.refused(error))? {
            records.push(record.clone());
        }
        if records.is_empty() {
            return Ok(None);
        }
        let cells = records.iter().map(|record| cell(record.get(self.place))).collect();
        let columns = match self.want {
            Want::Texts => Columns::None,
            Want::Json => Columns::Json(records.iter().map(|record| self.object(record)).collect()),
            Want::Arrow => Columns::Arrow(self.batch(&records)),
        };
        Ok(Some(Piece { cells, columns }))
    }

    fn object(&self, record: &ByteRecord) -> String {
        let members = self.schema.fields().iter().zip(record).map(|(field, value)| {
            let (name, value) = (serde_json::Value::from(field.name().as_str()), serde_json::Value::from(String::from_utf8_lossy(value)));
            format!("{name}:{value}")
        });
        format!("{{{}}}", members.collect::<Vec<_>>().join(","))
    }

    fn batch(&self, records: &[ByteRecord]) -> RecordBatch {
        let column = |place: usize| -> ArrayRef {
            let values = records.iter().map(|record| record.get(place).map(String::from_utf8_lossy));
            Arc::new(values.collect::<StringArray>())
        };
        let columns = (0..self.schema.fields().len()).map(column).collect();
        RecordBatch::try_new(Arc::clone(&self.schema), columns).expect("the columns were made for the schema")
    }
}

fn cell(value: Option<&[u8]>) -> Cell {
    match value.map(std::str::from_utf8) {
        Some(Err(_)) => Cell::Bad(Bad::NotText),
        Some(Ok(text)) => Cell::of(Some(text)),
        None => Cell::of(None),
    }
}
