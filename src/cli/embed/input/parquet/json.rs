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

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::{ArrayRef, BooleanArray, Float32Array, ListArray, StringArray, UInt8Array};
    use std::sync::Arc;

    #[test]
    fn strings_numbers_and_truth_values_become_members() {
        let columns: [(&str, ArrayRef); 4] = [
            ("a\"", Arc::new(StringArray::from(vec![Some("x"), None]))),
            ("n", Arc::new(UInt8Array::from(vec![7, 8]))),
            ("f", Arc::new(Float32Array::from(vec![0.5, 2.0]))),
            ("b", Arc::new(BooleanArray::from(vec![true, false]))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        check(&batch.schema()).unwrap();
        assert_eq!(objects(&batch), [r#"{"a\"":"x","n":7,"f":0.5,"b":true}"#, r#"{"a\"":null,"n":8,"f":2.0,"b":false}"#]);
    }

    #[test]
    fn a_list_has_no_form() {
        let list = ListArray::from_iter_primitive::<Float32Type, _, _>([Some([Some(1.0)])]);
        let batch = RecordBatch::try_from_iter([("vectors", Arc::new(list) as ArrayRef)]).unwrap();
        assert!(check(&batch.schema()).unwrap_err().contains("vectors"));
    }
}
