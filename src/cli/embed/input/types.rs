//! core: JSON objects as typed columns. A column is of the narrowest type that holds all its values; where they are of
//! several kinds, or objects and lists, it holds strings, and what is no string stands there as JSON.

use arrow_array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, RecordBatchOptions, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// An object with its members in the order in which they stand.
#[derive(Default)]
pub(super) struct Object(Vec<(String, Value)>);

impl Object {
    pub(super) fn read(line: &[u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }

    /// Of two members of one name the last counts.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value)
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Object(members))
            }
        }
        json.deserialize_map(Members)
    }
}

/// The columns of all objects that were added, in the order in which they were first met.
#[derive(Default)]
pub(super) struct Kinds {
    kinds: Vec<(String, Kind)>,
    places: HashMap<String, usize>,
}

impl Kinds {
    pub(super) fn add(&mut self, object: &Object) {
        for (name, value) in &object.0 {
            let place = *self.places.entry(name.clone()).or_insert_with(|| {
                self.kinds.push((name.clone(), Kind::Null));
                self.kinds.len() - 1
            });
            self.kinds[place].1 = self.kinds[place].1.with(Kind::of(value));
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.kinds.len()
    }

    pub(super) fn schema(&self) -> SchemaRef {
        let fields = self.kinds.iter().map(|(name, kind)| Field::new(name, kind.data_type(), true));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Null,
    Bool,
    Int,
    Float,
    Text,
}

impl Kind {
    fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(_) => Self::Bool,
            Value::Number(number) if number.is_i64() => Self::Int,
            Value::Number(_) => Self::Float,
            Value::String(_) | Value::Array(_) | Value::Object(_) => Self::Text,
        }
    }

    /// The narrowest that holds both.
    fn with(self, other: Self) -> Self {
        match (self, other) {
            (one, another) if one == another => one,
            (Self::Null, one) | (one, Self::Null) => one,
            (Self::Int, Self::Float) | (Self::Float, Self::Int) => Self::Float,
            _ => Self::Text,
        }
    }

    const fn data_type(self) -> DataType {
        match self {
            Self::Bool => DataType::Boolean,
            Self::Int => DataType::Int64,
            Self::Float => DataType::Float64,
            Self::Null | Self::Text => DataType::Utf8,
        }
    }
}

/// The columns of some of the objects that the schema was made of.
pub(super) fn batch(schema: &SchemaRef, objects: &[Object]) -> RecordBatch {
    let columns = schema.fields().iter().map(|field| column(field, objects)).collect();
    // Objects without any member are rows all the same.
    let options = RecordBatchOptions::new().with_row_count(Some(objects.len()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options).expect("the columns were made for the schema")
}

fn column(field: &Field, objects: &[Object]) -> ArrayRef {
    let values = objects.iter().map(|object| object.get(field.name()));
    match field.data_type() {
        DataType::Boolean => Arc::new(values.map(|value| value?.as_bool()).collect::<BooleanArray>()),
        DataType::Int64 => Arc::new(values.map(|value| value?.as_i64()).collect::<Int64Array>()),
        DataType::Float64 => Arc::new(values.map(|value| value?.as_f64()).collect::<Float64Array>()),
        _ => Arc::new(values.map(text).collect::<StringArray>()),
    }
}

fn text(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(lines: &[&str]) -> Vec<(String, Kind)> {
        let mut kinds = Kinds::default();
        lines.iter().for_each(|line| kinds.add(&Object::read(line.as_bytes()).unwrap()));
        kinds.kinds
    }

    #[test]
    fn a_column_is_of_the_narrowest_type_that_holds_all_values() {
        let found = kinds(&[r#"{"z":1,"b":true,"s":"a","n":null,"m":1}"#, r#"{"z":1.5,"b":null,"s":"b","n":null,"m":"x","late":[1]}"#]);
        let expected =
            [("z", Kind::Float), ("b", Kind::Bool), ("s", Kind::Text), ("n", Kind::Null), ("m", Kind::Text), ("late", Kind::Text)];
        assert_eq!(found, expected.map(|(name, kind)| (name.to_owned(), kind)));
    }

    #[test]
    fn values_become_columns_with_nulls_where_there_is_none() {
        let objects = [r#"{"i":7,"t":{"a":[1]}}"#, r#"{"t":"plain"}"#].map(|line| Object::read(line.as_bytes()).unwrap());
        let mut kinds = Kinds::default();
        objects.iter().for_each(|object| kinds.add(object));
        let batch = batch(&kinds.schema(), &objects);
        assert_eq!(batch.column(0).as_ref(), &Int64Array::from(vec![Some(7), None]));
        assert_eq!(batch.column(1).as_ref(), &StringArray::from(vec![r#"{"a":[1]}"#, "plain"]));
    }
}
