//! core: rows of Arrow columns as JSON objects: strings, numbers and truth values. Other types have no one form in JSON.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, Schema};
use serde_json::Value;

/// # Errors
/// A column has no form in JSON.
pub(super) fn check(schema: &Schema) -> Result<(), String> {
    match schema.fields().iter().find(|field| !is_known(field.data_type())) {
        Some(field) => Err(format!(
            "column `{}` holds {}, which a .jsonl file has no form for: write a .parquet file, or use --only-vectors",
            field.name(),
            field.data_type()
        )),
        None => Ok(()),
    }
}

fn is_known(found: &DataType) -> bool {
    let other =
        [DataType::Null, DataType::Boolean, DataType::Float32, DataType::Float64, DataType::Utf8, DataType::LargeUtf8, DataType::Utf8View];
    found.is_integer() || other.contains(found)
}

/// An object for each row.
pub(super) fn objects(batch: &RecordBatch) -> Vec<String> {
    let schema = batch.schema();
    let names: Vec<String> = schema.fields().iter().map(|field| Value::from(field.name().as_str()).to_string()).collect();
    let object = |row: usize| {
        let members = names.iter().zip(batch.columns()).map(|(name, column)| format!("{name}:{}", value(column.as_ref(), row)));
        format!("{{{}}}", members.collect::<Vec<_>>().join(","))
    };
    (0..batch.num_rows()).map(object).collect()
}

fn value(array: &dyn Array, row: usize) -> Value {
    if array.is_null(row) {
        return Value::Null;
    }
    match array.data_type() {
        DataType::Boolean => array.as_boolean().value(row).into(),
        DataType::Int8 => number::<Int8Type>(array, row),
        DataType::Int16 => number::<Int16Type>(array, row),
        DataType::Int32 => number::<Int32Type>(array, row),
        DataType::Int64 => number::<Int64Type>(array, row),
        DataType::UInt8 => number::<UInt8Type>(array, row),
        DataType::UInt16 => number::<UInt16Type>(array, row),
        DataType::UInt32 => number::<UInt32Type>(array, row),
        DataType::UInt64 => number::<UInt64Type>(array, row),
        DataType::Float32 => number::<Float32Type>(array, row),
        DataType::Float64 => number::<Float64Type>(array, row),
        _ => super::text(array, row).into(),
    }
}

fn number<T: ArrowPrimitiveType>(array: &dyn Array, row: usize) -> Value
where
    T::Native: Into<Value>,
{
    array.as_primitive::<T>().value(row).into()
}
