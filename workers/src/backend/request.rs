//! core: the bodies of backend calls, made by concatenation: what a caller wrote is copied once and not parsed again.

use super::{BackendError, Blame, EmbedCall};
use bytes::Bytes;
use serde_json::value::RawValue;
use shared::error::{Code, Failure};
use shared::wire::Fault;
use std::collections::BTreeMap;

/// The body of an array call. Always asks for base64: it is shorter and quicker to read than decimals.
pub(crate) fn embeddings(model: &str, call: &EmbedCall<'_>) -> Bytes {
    const FIXED: usize = r#"{"model":,"encoding_format":"base64",,"input":[]}"#.len();
    let inputs: usize = call.inputs.iter().map(|input| input.len() + 1).sum();
    let mut body = Vec::with_capacity(FIXED + model.len() + call.params.len() + inputs);
    for piece in [r#"{"model":"#, model, r#","encoding_format":"base64""#] {
        body.extend_from_slice(piece.as_bytes());
    }
    if !call.params.is_empty() {
        body.push(b',');
        body.extend_from_slice(call.params.as_bytes());
    }
    body.extend_from_slice(br#","input":["#);
    for (index, input) in call.inputs.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(input);
    }
    body.extend_from_slice(b"]}");
    body.into()
}

/// The caller's body with the model's name at the backend in place of its public one.
pub(crate) fn generation(body: &Bytes, model_at: Option<(u32, u32)>, model: &str) -> Result<Bytes, BackendError> {
    match model_at.and_then(|span| split(body, span)) {
        Some((before, after)) => Ok([before, model.as_bytes(), after].concat().into()),
        None => parsed(body, model),
    }
}

/// What stands before and after the model's value; `None` when the span does not hold a string.
fn split(body: &[u8], (start, end): (u32, u32)) -> Option<(&[u8], &[u8])> {
    let (start, end) = (start as usize, end as usize);
    let value = body.get(start..end)?;
    let quoted = value.len() >= 2 && value.starts_with(b"\"") && value.ends_with(b"\"");
    quoted.then(|| (&body[..start], &body[end..]))
}

fn parsed(body: &[u8], model: &str) -> Result<Bytes, BackendError> {
    let read = serde_json::from_slice::<BTreeMap<&str, &RawValue>>(body);
    let model = serde_json::from_str(model).expect("a model's name was made a JSON string");
    let written = read.and_then(|mut members| {
        members.insert("model", model);
        serde_json::to_vec(&members)
    });
    written.map(Bytes::from).map_err(|_| BackendError {
        failure: Failure::new(Code::InvalidJson, "The body is not a JSON object; send one with `model` in it."),
        fault: Fault::Rejected,
        blame: Blame::MaybeItem,
        detail: "the body to send is not a JSON object".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn embeddings_body(inputs: &[&'static str], params: &str) -> Value {
        let inputs: Vec<_> = inputs.iter().map(|i| Bytes::from_static(i.as_bytes())).collect();
        let call = EmbedCall { inputs: &inputs, count: 0, params, traceparent: None };
        serde_json::from_slice(&embeddings("\"m\"", &call)).unwrap()
    }

    #[test]
    fn the_inputs_of_several_requests_become_one_list_in_order() {
        let body = embeddings_body(&[r#""a","b""#, "[1,2]"], "");
        assert_eq!(body, json!({ "model": "m", "encoding_format": "base64", "input": ["a", "b", [1, 2]] }));
    }

    #[test]
    fn the_callers_further_fields_come_along() {
        let body = embeddings_body(&[r#""a""#], r#""dimensions":8,"x":null"#);
        assert_eq!((&body["dimensions"], &body["x"], &body["input"]), (&json!(8), &Value::Null, &json!(["a"])));
    }

    fn generated(body: &'static str, at: Option<(u32, u32)>) -> String {
        let body = generation(&Bytes::from_static(body.as_bytes()), at, "\"new\"").unwrap();
        String::from_utf8(body.to_vec()).unwrap()
    }

    #[test]
    fn the_models_name_is_exchanged_in_place() {
        assert_eq!(generated(r#"{"x":1.50, "model": "old" }"#, Some((20, 25))), r#"{"x":1.50, "model": "new" }"#);
    }

    #[test]
    fn without_a_span_that_holds_a_string_the_body_is_parsed() {
        for at in [None, Some((1, 5)), Some((20, 900)), Some((25, 20))] {
            assert_eq!(generated(r#"{"x":1.50, "model": "old" }"#, at), r#"{"model":"new","x":1.50}"#, "{at:?}");
        }
    }

    #[test]
    fn a_body_that_is_no_object_is_the_callers_error() {
        let error = generation(&Bytes::from_static(b"[1]"), None, "\"m\"").unwrap_err();
        assert_eq!(error.failure.code, Code::InvalidJson);
    }
}
