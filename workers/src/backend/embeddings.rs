//! core: reads an embeddings answer in one pass: base64 or decimals straight into numbers, ordered by `index`, checked.

use super::{BackendError, Embedded, answer, classify};
use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

#[derive(Deserialize)]
struct Body<'a> {
    data: Option<Vec<Row>>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Row {
    index: Option<usize>,
    embedding: Vector,
}

struct Vector(Vec<f32>);

/// Reads the answer to `count` inputs.
///
/// # Errors
/// Unreadable, an `error` in the body, another count than `count`, an index that is missing or there twice, lengths that
/// differ, no numbers, numbers that are not finite.
pub fn read(json: &[u8], count: u32) -> Result<Embedded, BackendError> {
    let body: Body<'_> = serde_json::from_slice(json).map_err(|e| answer::malformed_json(&e))?;
    match body {
        Body { error: Some(_), .. } => Err(answer::failed(json)),
        Body { data: None, .. } => Err(classify::malformed(&"no `data`")),
        Body { data: Some(rows), usage, .. } => {
            let vectors = ordered(rows, count)?;
            check(&vectors)?;
            Ok(Embedded { vectors, prompt_tokens: usage.and_then(answer::tokens).map(|usage| usage.input) })
        }
    }
}

/// Puts the vectors where their indices say. Servers that give no index at all answer in order.
fn ordered(rows: Vec<Row>, count: u32) -> Result<Vec<Vec<f32>>, BackendError> {
    if rows.len() != count as usize {
        return Err(classify::wrong_count(rows.len(), count));
    }
    let mut vectors = vec![Vec::new(); rows.len()];
    for (position, row) in rows.into_iter().enumerate() {
        match vectors.get_mut(row.index.unwrap_or(position)) {
            Some(place) if place.is_empty() => *place = row.embedding.0,
            _ => return Err(classify::malformed(&"an `index` is out of range or there twice")),
        }
    }
    Ok(vectors)
}

/// All of one length, and of finite numbers.
pub(crate) fn check(vectors: &[Vec<f32>]) -> Result<(), BackendError> {
    let dimensions = vectors.first().map_or(0, Vec::len);
    if vectors.iter().any(|v| v.is_empty() || v.len() != dimensions) {
        return Err(classify::malformed(&"vectors are empty or of different lengths"));
    }
    if !vectors.iter().flatten().all(|x| x.is_finite()) {
        return Err(classify::malformed(&"a vector holds a number that is not finite"));
    }
    Ok(())
}

impl<'de> Deserialize<'de> for Vector {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_any(EitherForm).map(Self)
    }
}

/// A string is base64, an array is decimals; servers that do not know `encoding_format` send the latter.
struct EitherForm;

impl<'de> Visitor<'de> for EitherForm {
    type Value = Vec<f32>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a vector as base64 or as an array of numbers")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        decode(text.as_bytes()).ok_or_else(|| E::custom("not base64 of 32-bit numbers"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut numbers: A) -> Result<Self::Value, A::Error> {
        let mut vector = Vec::new();
        while let Some(number) = numbers.next_element::<f32>()? {
            vector.push(number);
        }
        Ok(vector)
    }
}

const BASE64: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));

/// Little-endian 32-bit numbers from base64, through a buffer on the stack: 1,024 characters are 192 numbers exactly.
fn decode(text: &[u8]) -> Option<Vec<f32>> {
    const CHARS: usize = 1_024;
    let mut buffer = [0; CHARS / 4 * 3];
    let mut vector = Vec::with_capacity(text.len() / 16 * 3 + 3);
    let mut bytes = 0;
    for piece in text.chunks(CHARS) {
        let length = BASE64.decode_slice(piece, &mut buffer).ok()?;
        vector.extend(buffer[..length].chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])));
        bytes += length;
    }
    (bytes == vector.len() * 4).then_some(vector)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::prelude::BASE64_STANDARD;
    use proptest::prelude::*;
    use serde_json::json;
    use shared::error::Code;

    fn encode(vector: &[f32]) -> String {
        BASE64_STANDARD.encode(vector.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>())
    }

    fn read_rows(rows: &serde_json::Value, count: u32) -> Result<Vec<Vec<f32>>, Code> {
        let body = json!({ "data": rows, "usage": { "prompt_tokens": 5, "total_tokens": 5 } }).to_string();
        read(body.as_bytes(), count).map(|e| e.vectors).map_err(|e| e.failure.code)
    }

    #[test]
    fn both_forms_are_read_and_ordered_by_index() {
        let rows = json!([{ "index": 1, "embedding": [0.5, -1] }, { "index": 0, "embedding": encode(&[0.1, 2.0]) }]);
        assert_eq!(read_rows(&rows, 2), Ok(vec![vec![0.1, 2.0], vec![0.5, -1.0]]));
    }

    #[test]
    fn rows_without_indices_are_in_order() {
        assert_eq!(read_rows(&json!([{ "embedding": [1] }, { "embedding": [2] }]), 2), Ok(vec![vec![1.0], vec![2.0]]));
    }

    #[test]
    fn usage_is_taken_along() {
        let body = json!({ "data": [{ "embedding": [1] }], "usage": { "prompt_tokens": 5 } }).to_string();
        assert_eq!(read(body.as_bytes(), 1).unwrap().prompt_tokens, Some(5));
    }

    #[test]
    fn another_count_is_an_error_in_both_directions() {
        let rows = json!([{ "index": 0, "embedding": [1] }, { "index": 1, "embedding": [2] }]);
        assert_eq!(read_rows(&rows, 1), Err(Code::BackendWrongCount));
        assert_eq!(read_rows(&rows, 3), Err(Code::BackendWrongCount));
        assert_eq!(read_rows(&json!([]), 1), Err(Code::BackendWrongCount));
    }

    #[test]
    fn vectors_that_cannot_be_told_apart_or_used_are_malformed() {
        let bad = [
            json!([{ "index": 0, "embedding": [1] }, { "index": 0, "embedding": [2] }]),
            json!([{ "index": 0, "embedding": [1] }, { "index": 2, "embedding": [2] }]),
            json!([{ "index": 0, "embedding": [1] }, { "index": 1, "embedding": [2, 3] }]),
            json!([{ "index": 0, "embedding": [] }, { "index": 1, "embedding": [] }]),
            json!([{ "index": 0, "embedding": encode(&[1.0]) }, { "index": 1, "embedding": encode(&[f32::NAN]) }]),
            json!([{ "index": 0, "embedding": encode(&[1.0]) }, { "index": 1, "embedding": [1e60] }]),
            json!([{ "index": 0, "embedding": "AAAAAA" }, { "index": 1, "embedding": "%" }]),
            json!([{ "index": 0, "embedding": "AAAAAAA=" }, { "index": 1, "embedding": "AAAAAAA=" }]),
            json!([{ "index": 0 }, { "index": 1 }]),
            json!(null),
        ];
        for rows in bad {
            assert_eq!(read_rows(&rows, 2), Err(Code::BackendMalformed), "{rows}");
        }
    }

    #[test]
    fn an_error_in_a_success_is_not_taken_for_a_missing_answer() {
        let error = read(br#"{"error":{"message":"too long","code":400}}"#, 1).unwrap_err();
        assert_eq!(error.failure.code, Code::BackendRejected);
    }

    proptest! {
        #[test]
        fn base64_of_any_length_gives_back_the_same_bits(vector in prop::collection::vec(any::<f32>(), 0..900)) {
            let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            let padded = encode(&vector);
            prop_assert_eq!(bits(&decode(padded.as_bytes()).unwrap()), bits(&vector));
            prop_assert_eq!(bits(&decode(padded.trim_end_matches('=').as_bytes()).unwrap()), bits(&vector));
        }
    }
}
