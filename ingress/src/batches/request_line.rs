//! core: one line of a batch's input: `{"custom_id", "method", "url", "body"}`.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use shared::domain::Operation;
use shared::error::{Code, Failure};
use std::borrow::Cow;

/// Bytes of a `custom_id`.
const CUSTOM_ID_BYTES_MAX: usize = 512;

/// A line's name, where it has one, and its request or what is wrong with it.
#[derive(Debug)]
pub(crate) struct RequestLine {
    pub(crate) custom_id: Option<Box<str>>,
    /// A slice of the line.
    pub(crate) body: Result<Bytes, Failure>,
}

#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow, default)]
    custom_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    method: Option<&'a RawValue>,
    #[serde(borrow, default)]
    url: Option<&'a RawValue>,
    #[serde(borrow, default)]
    body: Option<&'a RawValue>,
}

/// A string, copied only where something in it is escaped.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl RequestLine {
    /// Reads a line of a batch whose requests are `op`. `None`: the line is longer than a request may be.
    pub(crate) fn read(op: Operation, line: Option<&Bytes>) -> Self {
        let Some(line) = line else {
            let failure = Failure::new(Code::BodyTooLarge, "The line is longer than a request may be: split the request");
            return Self { custom_id: None, body: Err(failure) };
        };
        let is_object = line.trim_ascii_start().starts_with(b"{"); // An array would be read as the fields in their order.
        match serde_json::from_slice::<Fields<'_>>(line) {
            Ok(_) if !is_object => Self { custom_id: None, body: Err(no_object()) },
            Ok(fields) => Self { custom_id: custom_id(&fields), body: fields.check(op).map(|body| line.slice_ref(body.as_bytes())) },
            Err(error) => {
                let is_json = !error.is_syntax() && !error.is_eof();
                let message = || format!("The line is not JSON: mend it at column {}", error.column());
                let failure = if is_json { no_object() } else { Failure::new(Code::InvalidJson, message()) };
                Self { custom_id: None, body: Err(failure) }
            }
        }
    }
}

fn custom_id(fields: &Fields<'_>) -> Option<Box<str>> {
    let text: String = serde_json::from_str(fields.custom_id?.get()).ok()?;
    (text.len() <= CUSTOM_ID_BYTES_MAX).then(|| text.into())
}

impl<'a> Fields<'a> {
    fn check(&self, op: Operation) -> Result<&'a str, Failure> {
        if self.custom_id.is_some() && custom_id(self).is_none() {
            return Err(invalid("custom_id", &format!("a string of at most {CUSTOM_ID_BYTES_MAX} bytes")));
        }
        if self.method.is_some_and(|method| !is(method, "POST")) {
            return Err(invalid("method", "\"POST\""));
        }
        let url = format!("/v1/{}", op.path());
        if self.url.is_some_and(|own| !is(own, &url)) {
            return Err(invalid("url", &format!("the batch's endpoint, \"{url}\"")));
        }
        let body = self.body.ok_or_else(|| Failure::new(Code::MissingParameter, "`body` is required: add it to the line").param("body"))?;
        if body.get().starts_with('{') { Ok(body.get()) } else { Err(invalid("body", "an object")) }
    }
}

/// Whether a member is this text, however it is escaped: PHP writes a slash as `\/`.
fn is(member: &RawValue, text: &str) -> bool {
    serde_json::from_str::<Text<'_>>(member.get()).is_ok_and(|own| own.0 == text)
}

fn no_object() -> Failure {
    Failure::new(Code::InvalidJson, "The line is not a JSON object with custom_id, method, url and body: mend it")
}

fn invalid(name: &str, expected: &str) -> Failure {
    Failure::new(Code::InvalidValue, format!("`{name}` must be {expected}")).param(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(line: &str) -> RequestLine {
        RequestLine::read(Operation::Embeddings, Some(&Bytes::copy_from_slice(line.as_bytes())))
    }

    #[test]
    fn a_line_gives_its_name_and_its_body_as_it_stands() {
        let line = read(r#"{"custom_id":"é-1","method":"POST","url":"/v1/embeddings","body":{"input": "a"}}"#);
        assert_eq!((line.custom_id.as_deref(), &line.body.unwrap()[..]), (Some("é-1"), &br#"{"input": "a"}"#[..]));
        assert!(read(r#"{"body":{}}"#).body.is_ok(), "what the batch says need not be said again");
    }

    #[test]
    fn a_text_is_the_same_however_it_is_escaped() {
        let of_php = br#"{"method":"\u0050OST","url":"\/v1\/chat\/completions","body":{}}"#;
        assert!(RequestLine::read(Operation::Chat, Some(&Bytes::from_static(of_php))).body.is_ok());
    }

    #[test]
    fn a_line_that_cannot_be_read_says_why() {
        let cases = [
            ("", Code::InvalidJson, None),
            ("{", Code::InvalidJson, None),
            ("nonsense", Code::InvalidJson, None),
            ("[1]", Code::InvalidJson, None),
            (r#"{"body":{}} x"#, Code::InvalidJson, None),
            (r#"{"custom_id":"a"}"#, Code::MissingParameter, Some("a")),
            (r#"{"custom_id":"a","body":null}"#, Code::MissingParameter, Some("a")),
            (r#"{"custom_id":"a","body":"x"}"#, Code::InvalidValue, Some("a")),
            (r#"{"custom_id":7,"body":{}}"#, Code::InvalidValue, None),
            (r#"{"custom_id":"a","method":"GET","body":{}}"#, Code::InvalidValue, Some("a")),
            (r#"{"custom_id":"a","method":["POST"],"body":{}}"#, Code::InvalidValue, Some("a")),
            (r#"{"custom_id":"a","url":"/v1/chat/completions","body":{}}"#, Code::InvalidValue, Some("a")),
        ];
        for (line, code, id) in cases {
            let read = read(line);
            assert_eq!((read.body.unwrap_err().code, read.custom_id.as_deref()), (code, id), "{line}");
        }
        assert_eq!(RequestLine::read(Operation::Chat, None).body.unwrap_err().code, Code::BodyTooLarge);
    }

    /// Pieces of lines in any order: closer to a request than noise.
    fn pieces() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ":",
            ",",
            "\"",
            "\\u00e9",
            "\"custom_id\":",
            "\"a\"",
            "\"method\":\"POST\"",
            "\"url\":\"/v1/embeddings\"",
            "\"body\":",
            "{\"body\":{}",
            "null",
            "7",
            " ",
            "é",
        ]);
        prop::collection::vec(piece, 0..16).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn every_line_is_a_request_or_its_callers_to_mend(noise in prop::collection::vec(any::<u8>(), 0..120), text in pieces(), name in "\\PC{0,600}") {
            let named = serde_json::json!({ "custom_id": name, "body": { "input": name } }).to_string();
            for line in [noise, text.into_bytes(), named.into_bytes()] {
                let line = Bytes::from(line);
                let read = RequestLine::read(Operation::Embeddings, Some(&line));
                prop_assert!(read.custom_id.is_none_or(|id| id.len() <= CUSTOM_ID_BYTES_MAX));
                match read.body {
                    Ok(body) => prop_assert!(serde_json::from_slice::<serde_json::Value>(&body).unwrap().is_object()),
                    Err(failure) => prop_assert!((400..500).contains(&failure.code.status()), "{:?}", failure),
                }
            }
        }
    }
}
