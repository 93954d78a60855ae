//! core: the bodies of backend calls, made by concatenation: what a caller wrote is copied once and not parsed again.

use super::{BackendError, Blame, EmbedCall};
use bytes::Bytes;
use memchr::{memchr, memmem};
use serde_json::value::RawValue;
use shared::error::{Code, Failure};
use shared::wire::Fault;
use std::borrow::Cow;
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

/// The caller's body with the model's name at the backend in place of its public one; and, where `asks` says so, with the
/// wish to be told a stream's usage. The second is whether that was not the caller's own wish.
pub(crate) fn generation(body: &Bytes, model_at: Option<(u32, u32)>, model: &str, asks: bool) -> Result<(Bytes, bool), BackendError> {
    // Nobody who has written no such name has a member of it. Who has is read.
    let may_ask_itself = asks && memmem::find(body, OPTIONS.as_bytes()).is_some();
    let parts = model_at.filter(|_| !may_ask_itself).and_then(|span| split(body, span));
    let Some((before, after)) = parts else { return parsed(body, model, asks) };
    if !asks {
        return Ok(([before, model.as_bytes(), after].concat().into(), false));
    }
    let Some(begin) = memchr(b'{', before) else { return parsed(body, model, asks) };
    let (open, rest) = before.split_at(begin + 1);
    Ok(([open, b"\"", OPTIONS.as_bytes(), b"\":", USAGE_WANTED.as_bytes(), b",", rest, model.as_bytes(), after].concat().into(), true))
}

const OPTIONS: &str = "stream_options";
const USAGE_WANTED: &str = r#"{"include_usage":true}"#;

/// What stands before and after the model's value; `None` when the span does not hold a string.
fn split(body: &[u8], (start, end): (u32, u32)) -> Option<(&[u8], &[u8])> {
    let (start, end) = (start as usize, end as usize);
    let value = body.get(start..end)?;
    let quoted = value.len() >= 2 && value.starts_with(b"\"") && value.ends_with(b"\"");
    quoted.then(|| (&body[..start], &body[end..]))
}

type Members<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

fn parsed(body: &[u8], model: &str, asks: bool) -> Result<(Bytes, bool), BackendError> {
    let rewritten = || {
        let mut members: Members<'_> = serde_json::from_slice(body)?;
        members.insert("model".into(), serde_json::from_str(model)?);
        let wish = asks.then(|| wish(members.get(OPTIONS).copied())).flatten();
        if let Some(wish) = &wish {
            members.insert(OPTIONS.into(), wish);
        }
        Ok((serde_json::to_vec(&members)?.into(), wish.is_some()))
    };
    rewritten().map_err(|_: serde_json::Error| BackendError {
        failure: Failure::new(Code::InvalidJson, "The body is not a JSON object; send one with `model` in it."),
        fault: Fault::Rejected,
        blame: Blame::MaybeItem,
        detail: "the body to send is not a JSON object".into(),
    })
}

/// The caller's `stream_options` with the wish for usage in it; `None` where it is there, or they are not what a backend takes.
fn wish(options: Option<&RawValue>) -> Option<Box<RawValue>> {
    let options = options.filter(|options| options.get() != "null");
    let mut options: Members<'_> = options.map_or_else(|| Ok(Members::new()), |raw| serde_json::from_str(raw.get())).ok()?;
    let wanted: &RawValue = serde_json::from_str("true").ok()?;
    let before = options.insert("include_usage".into(), wanted);
    if before.is_some_and(|value| value.get() == wanted.get()) {
        return None;
    }
    serde_json::value::to_raw_value(&options).ok()
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
        let (body, _) = generation(&Bytes::from_static(body.as_bytes()), at, "\"new\"", false).unwrap();
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
        let error = generation(&Bytes::from_static(b"[1]"), None, "\"m\"", false).unwrap_err();
        assert_eq!(error.failure.code, Code::InvalidJson);
    }

    /// What is sent for a stream, and whether its usage is kept from its caller.
    fn streamed(body: &str) -> (Value, bool) {
        let at = body.find("\"old\"").map(|at| u32::try_from(at).unwrap()).map(|at| (at, at + 5));
        let (sent, hides) = generation(&Bytes::copy_from_slice(body.as_bytes()), at, "\"new\"", true).unwrap();
        (serde_json::from_slice(&sent).unwrap(), hides)
    }

    #[test]
    fn a_streams_usage_is_asked_for_whoever_wants_it() {
        for (options, sent) in [
            ("", json!({ "include_usage": true })),
            (r#","stream_options":null"#, json!({ "include_usage": true })),
            (r#","stream_options":{}"#, json!({ "include_usage": true })),
            (r#","stream_options":{"include_usage":false,"x":1}"#, json!({ "include_usage": true, "x": 1 })),
            (r#","note":"of \"stream_options\"""#, json!({ "include_usage": true })),
        ] {
            let (body, hides) = streamed(&format!(" {{\"a\":[1],\"model\":\"old\",\"stream\":true{options}}}"));
            assert_eq!((&body["stream_options"], hides), (&sent, true), "{options}");
            assert_eq!((&body["model"], &body["a"], &body["stream"]), (&json!("new"), &json!([1]), &json!(true)), "{options}");
        }
    }

    #[test]
    fn who_asks_for_usage_gets_it_and_what_no_backend_takes_is_left_to_it() {
        for options in [r#"{"include_usage":true}"#, r#"{"include_usage":true,"x":1}"#, "7", "[]"] {
            let (body, hides) = streamed(&format!(r#"{{"model":"old","stream_options":{options}}}"#));
            assert_eq!((body["stream_options"].to_string(), hides), (options.to_owned(), false));
        }
    }
}
