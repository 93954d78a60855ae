//! edge: a Parquet file. Its other columns keep their types where the output is Parquet too.

mod json;

use super::{Cell, Columns, Input, PIECE_ROWS, Piece, Pieces, Want};
use crate::cli::out::Failed;
use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, SchemaRef};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use std::fs::File;

pub(super) fn pieces(input: &Input, want: Want) -> Result<Pieces, Failed> {
    let builder = open(input)?;
    let names: Vec<String> = builder.schema().fields().iter().map(|field| field.name().clone()).collect();
    let place = names.iter().position(|name| *name == input.column).ok_or_else(|| input.no_column(&names))?;
    check_texts(input, builder.schema().field(place).data_type())?;
    if want == Want::Json {
        json::check(builder.schema()).map_err(|why| input.refused(why))?;
    }
    let mask = ProjectionMask::roots(builder.parquet_schema(), [place]);
    let builder = if want == Want::Texts { builder.with_projection(mask) } else { builder };
    let reader = builder.with_batch_size(PIECE_ROWS).build().map_err(|error| input.refused(error))?;
    Ok(Box::new(Rows { input: input.clone(), reader, want }))
}

pub(super) fn schema(input: &Input) -> Result<SchemaRef, Failed> {
    Ok(open(input)?.schema().clone())
}

fn open(input: &Input) -> Result<ParquetRecordBatchReaderBuilder<File>, Failed> {
    let file = File::open(&input.path).map_err(|error| input.refused(error))?;
    ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| input.refused(error))
}

fn check_texts(input: &Input, found: &DataType) -> Result<(), Failed> {
    match found {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Ok(()),
        other => Err(input.refused(format!("column `{}` holds {other} and no strings", input.column))),
    }
}

struct Rows {
    input: Input,
    reader: ParquetRecordBatchReader,
    want: Want,
}

impl Iterator for Rows {
    type Item = Result<Piece, Failed>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.reader.next()?;
        Some(batch.map(|batch| self.piece(batch)).map_err(|error| self.input.refused(error)))
    }
}

impl Rows {
    fn piece(&self, batch: RecordBatch) -> Piece {
        let texts = batch.column_by_name(&self.input.column).expect("the column was found when the file was opened");
        let cells = (0..texts.len()).map(|row| Cell::of(text(texts.as_ref(), row))).collect();
        let columns = match self.want {
            Want::Texts => Columns::None,
            Want::Json => Columns::Json(json::objects(&batch)),
            Want::Arrow => Columns::Arrow(batch),
        };
        Piece { cells, columns }
    }
}

/// `None`: null, or no string.
fn text(array: &dyn Array, row: usize) -> Option<&str> {
    if array.is_null(row) {
        return None;
    }
    match array.data_type() {
        DataType::Utf8 => Some(array.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => Some(array.as_string::<i64>().value(row)),
        DataType::Utf8View => Some(array.as_string_view().value(row)),
        _ => None,
    }
}
