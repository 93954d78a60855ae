//! edge: Parquet: the input's columns as they were, and the vectors as lists of one length.

use super::{Columns, Vectors};
use arrow_array::builder::{FixedSizeListBuilder, Float32Builder};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::errors::{ParquetError, Result};
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

/// Bytes of one row group: it is in memory until it is written.
const GROUP_BYTES: usize = 64 * 1024 * 1024;

pub(super) struct Writer {
    writer: ArrowWriter<File>,
    schema: SchemaRef,
    dimensions: usize,
}

impl Writer {
    pub(super) fn new(path: &Path, columns: Option<&SchemaRef>, vector_column: &str, dimensions: usize) -> Result<Self> {
        let length = i32::try_from(dimensions).map_err(|_| ParquetError::General("the vectors are too long".into()))?;
        let item = Arc::new(Field::new_list_field(DataType::Float32, true));
        let vector = Arc::new(Field::new(vector_column, DataType::FixedSizeList(item, length), true));
        let fields = columns.iter().flat_map(|schema| schema.fields().iter().cloned()).chain([vector]);
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let writer = ArrowWriter::try_new(File::create(path)?, Arc::clone(&schema), Some(properties(vector_column)))?;
        Ok(Self { writer, schema, dimensions })
    }

    pub(super) fn write(&mut self, columns: &Columns, vectors: &Vectors) -> Result<()> {
        let mut arrays = if let Columns::Arrow(batch) = columns { batch.columns().to_vec() } else { Vec::new() };
        arrays.push(self.column(vectors));
        self.writer.write(&RecordBatch::try_new(Arc::clone(&self.schema), arrays)?)?;
        if self.writer.in_progress_size() > GROUP_BYTES {
            self.writer.flush()?;
        }
        Ok(())
    }

    fn column(&self, vectors: &Vectors) -> ArrayRef {
        let length = i32::try_from(self.dimensions).expect("it was checked when the file was made");
        let mut builder = FixedSizeListBuilder::with_capacity(Float32Builder::new(), length, vectors.len());
        for vector in vectors {
            match vector {
                Some(vector) => builder.values().append_slice(vector),
                None => builder.values().append_nulls(self.dimensions),
            }
            builder.append(vector.is_some());
        }
        Arc::new(builder.finish())
    }

    pub(super) fn end(self) -> Result<()> {
        Ok(self.writer.into_inner()?.sync_all()?)
    }
}

/// Vectors neither repeat nor compress.
fn properties(vector_column: &str) -> WriterProperties {
    let vectors = ColumnPath::new(vec![vector_column.to_owned(), "list".into(), "item".into()]);
    WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_column_compression(vectors.clone(), Compression::UNCOMPRESSED)
        .set_column_dictionary_enabled(vectors, false)
        .build()
}
