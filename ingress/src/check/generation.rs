//! core: the view of a chat, completions or responses body.

use super::members::Members;
use super::metadata::{Metadata, metadata};
use super::{invalid, missing};
use bytes::Bytes;
use serde_json::value::RawValue;
use shared::config::Limits;
use shared::domain::Operation;
use shared::error::Failure;

/// What is expected of a generation whose caller gives no limit.
const TOKENS_OUT_DEFAULT: u32 = 256;

/// OpenAI's bound of `n` and `best_of`.
const CHOICES_MAX: u32 = 128;

/// The few fields of a generation's body that the road needs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Generation {
    pub(crate) model: String,
    /// Where the model's value stands in the body that travels, quotes included.
    pub(crate) model_at: (u32, u32),
    pub(crate) stream: bool,
    /// Expected output tokens of all choices together.
    pub(crate) tokens_out: u32,
    pub(crate) background: Option<Background>,
}

/// A response whose caller does not wait for it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Background {
    /// What travels: the body without `background`, which is this server's business.
    pub(crate) body: Bytes,
    pub(crate) metadata: Metadata,
}

/// Checks a body of `op`, which is `Chat`, `Completions` or `Responses`.
///
/// # Errors
/// `invalid_json`, `json_too_deep`, `missing_required_parameter` and `invalid_value`, the latter two with `param`.
pub(crate) fn generation(op: Operation, body: &[u8], limits: &Limits) -> Result<Generation, Failure> {
    let members = Members::parse(body, limits.json_depth_max)?;
    let (model, value) = members.model()?;
    let tokens_out = match op {
        Operation::Completions => completion(&members)?,
        Operation::Responses => response(&members)?,
        _ => chat(&members)?,
    };
    let stream = members.flag("stream")?;
    let view = Generation { model, model_at: members.span(value), stream, tokens_out, background: None };
    if op == Operation::Responses && members.flag("background")? { in_background(&members, view) } else { Ok(view) }
}

fn in_background(members: &Members<'_>, view: Generation) -> Result<Generation, Failure> {
    if members.get("store").is_some_and(|value| value.get() == "false") {
        return Err(invalid("store", "true for a background response, which is kept until it is fetched"));
    }
    let noted = members.get("metadata").map(|value| serde_json::from_str(value.get())).transpose();
    let noted = noted.map_err(|_| invalid("metadata", "an object of strings"))?.unwrap_or_default();
    metadata(&noted)?;
    let (body, model_at) = members.without("background", "model");
    Ok(Generation { model_at, background: Some(Background { body: body.into(), metadata: noted }), ..view })
}

/// Each of these checks what an operation is asked with, and returns the tokens that are expected of it.
fn chat(members: &Members<'_>) -> Result<u32, Failure> {
    match shape(members.required("messages")?) {
        Shape::Full => choices_tokens(members),
        Shape::Empty => Err(missing("messages")),
        Shape::Other => Err(invalid("messages", "an array of messages")),
    }
}

fn completion(members: &Members<'_>) -> Result<u32, Failure> {
    text_or_list(members, "prompt")?;
    choices_tokens(members)
}

fn response(members: &Members<'_>) -> Result<u32, Failure> {
    text_or_list(members, "input")?;
    Ok(members.count("max_output_tokens", u32::MAX)?.unwrap_or(TOKENS_OUT_DEFAULT))
}

fn text_or_list(members: &Members<'_>, name: &str) -> Result<(), Failure> {
    let value = members.required(name)?;
    match shape(value) {
        Shape::Full => Ok(()),
        Shape::Empty => Err(missing(name)),
        Shape::Other if value.get().starts_with('"') => Ok(()),
        Shape::Other => Err(invalid(name, "a string or an array")),
    }
}

fn choices_tokens(members: &Members<'_>) -> Result<u32, Failure> {
    let newer = members.count("max_completion_tokens", u32::MAX)?;
    let older = members.count("max_tokens", u32::MAX)?;
    let n = members.count("n", CHOICES_MAX)?.unwrap_or(1);
    let best_of = members.count("best_of", CHOICES_MAX)?.unwrap_or(1);
    Ok(newer.or(older).unwrap_or(TOKENS_OUT_DEFAULT).saturating_mul(n.max(best_of)))
}

/// An array with or without elements, or no array.
enum Shape {
    Full,
    Empty,
    Other,
}

fn shape(value: &RawValue) -> Shape {
    match value.get().strip_prefix('[') {
        Some(inside) if inside.trim_ascii_start() == "]" => Shape::Empty,
        Some(_) => Shape::Full,
        None => Shape::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::error::Code;

    fn chat(body: &str) -> Result<Generation, Failure> {
        generation(Operation::Chat, body.as_bytes(), &Limits::default())
    }

    fn response(body: &str) -> Result<Generation, Failure> {
        generation(Operation::Responses, body.as_bytes(), &Limits::default())
    }

    #[test]
    fn a_chat_body_shows_what_the_road_needs() {
        let view = chat(r#"{"model":"m","messages":[{}],"stream":true,"max_tokens":9,"n":3,"x_unknown":[1]}"#).unwrap();
        assert_eq!(view, Generation { model: "m".into(), model_at: (9, 12), stream: true, tokens_out: 27, background: None });
    }

    #[test]
    fn the_newer_token_limit_wins_and_none_means_the_default() {
        let both = chat(r#"{"model":"m","messages":[{}],"max_tokens":9,"max_completion_tokens":5}"#).unwrap();
        assert_eq!(both.tokens_out, 5);
        assert_eq!(chat(r#"{"model":"m","messages":[{}],"max_tokens":null}"#).unwrap().tokens_out, TOKENS_OUT_DEFAULT);
    }

    #[test]
    fn a_prompt_is_a_string_or_a_filled_array() {
        for prompt in ["\"\"", "[1,2]", "[\"a\"]", "[[1]]"] {
            let body = format!("{{\"model\":\"m\",\"prompt\":{prompt}}}");
            assert!(generation(Operation::Completions, body.as_bytes(), &Limits::default()).is_ok(), "{prompt}");
        }
        for (prompt, code) in [("[ ]", Code::MissingParameter), ("null", Code::MissingParameter), ("7", Code::InvalidValue)] {
            let body = format!("{{\"model\":\"m\",\"prompt\":{prompt}}}");
            let failure = generation(Operation::Completions, body.as_bytes(), &Limits::default()).unwrap_err();
            assert_eq!((failure.code, failure.param.as_deref()), (code, Some("prompt")), "{prompt}");
        }
    }

    #[test]
    fn a_responses_body_shows_what_the_road_needs() {
        let view = response(r#"{"model":"m","input":[{}],"stream":true,"background":false,"max_output_tokens":9,"max_tokens":1}"#).unwrap();
        assert_eq!(view, Generation { model: "m".into(), model_at: (9, 12), stream: true, tokens_out: 9, background: None });
        assert_eq!(response(r#"{"model":"m","input":"hi"}"#).unwrap().tokens_out, TOKENS_OUT_DEFAULT);
    }

    #[test]
    fn a_background_response_travels_without_the_flag_and_keeps_its_notes() {
        let view = response(r#"{"background" : true, "model":"m","metadata":{"a":"b"},"input":"hi","x":[1, 2]}"#).unwrap();
        let Background { body, metadata } = view.background.unwrap();
        assert_eq!(body, r#"{"input":"hi","metadata":{"a":"b"},"model":"m","x":[1, 2]}"#);
        assert_eq!(&body[view.model_at.0 as usize..view.model_at.1 as usize], b"\"m\"");
        assert_eq!(metadata, Metadata::from([("a".into(), "b".into())]));
        let chat = chat(r#"{"model":"m","messages":[{}],"background":true}"#).unwrap();
        assert!(chat.background.is_none(), "elsewhere the word is the backend's");
    }

    #[test]
    fn every_malformed_field_of_a_response_is_named() {
        let cases = [
            (r#"{"input":"hi"}"#, Code::MissingParameter, "model"),
            (r#"{"model":"m"}"#, Code::MissingParameter, "input"),
            (r#"{"model":"m","input":[]}"#, Code::MissingParameter, "input"),
            (r#"{"model":"m","input":7}"#, Code::InvalidValue, "input"),
            (r#"{"model":"m","input":"hi","stream":1}"#, Code::InvalidValue, "stream"),
            (r#"{"model":"m","input":"hi","background":"no"}"#, Code::InvalidValue, "background"),
            (r#"{"model":"m","input":"hi","background":true,"store":false}"#, Code::InvalidValue, "store"),
            (r#"{"model":"m","input":"hi","background":true,"metadata":{"a":1}}"#, Code::InvalidValue, "metadata"),
            (r#"{"model":"m","input":"hi","max_output_tokens":0}"#, Code::InvalidValue, "max_output_tokens"),
        ];
        for (body, code, param) in cases {
            let failure = response(body).unwrap_err();
            assert_eq!((failure.code, failure.param.as_deref()), (code, Some(param)), "{body}");
        }
    }

    #[test]
    fn every_malformed_field_is_named() {
        let cases = [
            (r#"{"messages":[{}]}"#, Code::MissingParameter, "model"),
            (r#"{"model":null,"messages":[{}]}"#, Code::MissingParameter, "model"),
            (r#"{"model":7,"messages":[{}]}"#, Code::InvalidValue, "model"),
            (r#"{"model":"m"}"#, Code::MissingParameter, "messages"),
            (r#"{"model":"m","messages":[ ]}"#, Code::MissingParameter, "messages"),
            (r#"{"model":"m","messages":"hi"}"#, Code::InvalidValue, "messages"),
            (r#"{"model":"m","messages":{}}"#, Code::InvalidValue, "messages"),
            (r#"{"model":"m","messages":[{}],"stream":"yes"}"#, Code::InvalidValue, "stream"),
            (r#"{"model":"m","messages":[{}],"stream":1}"#, Code::InvalidValue, "stream"),
            (r#"{"model":"m","messages":[{}],"max_tokens":0}"#, Code::InvalidValue, "max_tokens"),
            (r#"{"model":"m","messages":[{}],"max_tokens":-1}"#, Code::InvalidValue, "max_tokens"),
            (r#"{"model":"m","messages":[{}],"max_tokens":1.5}"#, Code::InvalidValue, "max_tokens"),
            (r#"{"model":"m","messages":[{}],"max_tokens":"9"}"#, Code::InvalidValue, "max_tokens"),
            (r#"{"model":"m","messages":[{}],"max_completion_tokens":99999999999}"#, Code::InvalidValue, "max_completion_tokens"),
            (r#"{"model":"m","messages":[{}],"n":0}"#, Code::InvalidValue, "n"),
            (r#"{"model":"m","messages":[{}],"n":129}"#, Code::InvalidValue, "n"),
            (r#"{"model":"m","messages":[{}],"best_of":[]}"#, Code::InvalidValue, "best_of"),
        ];
        for (body, code, param) in cases {
            let failure = chat(body).unwrap_err();
            assert_eq!((failure.code, failure.param.as_deref()), (code, Some(param)), "{body}");
        }
    }
}
