//! core: the view of a chat or completions body.

use super::members::Members;
use super::{invalid, missing};
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
    /// Where the model's value stands in the body, quotes included.
    pub(crate) model_at: (u32, u32),
    pub(crate) stream: bool,
    /// Expected output tokens of all choices together.
    pub(crate) tokens_out: u32,
}

/// Checks a body of `op`, which is `Chat` or `Completions`.
///
/// # Errors
/// `invalid_json`, `json_too_deep`, `missing_required_parameter` and `invalid_value`, the latter two with `param`.
pub(crate) fn generation(op: Operation, body: &[u8], limits: &Limits) -> Result<Generation, Failure> {
    let members = Members::parse(body, limits.json_depth_max)?;
    let (model, value) = members.model()?;
    match op {
        Operation::Completions => prompt(members.required("prompt")?)?,
        _ => messages(members.required("messages")?)?,
    }
    let stream = members.flag("stream")?;
    let tokens_out = tokens_out(&members)?;
    Ok(Generation { model, model_at: members.span(value), stream, tokens_out })
}

fn messages(value: &RawValue) -> Result<(), Failure> {
    match shape(value) {
        Shape::Full => Ok(()),
        Shape::Empty => Err(missing("messages")),
        Shape::Other => Err(invalid("messages", "an array of messages")),
    }
}

fn prompt(value: &RawValue) -> Result<(), Failure> {
    match shape(value) {
        Shape::Full => Ok(()),
        Shape::Empty => Err(missing("prompt")),
        Shape::Other if value.get().starts_with('"') => Ok(()),
        Shape::Other => Err(invalid("prompt", "a string or an array")),
    }
}

fn tokens_out(members: &Members<'_>) -> Result<u32, Failure> {
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

    #[test]
    fn a_chat_body_shows_what_the_road_needs() {
        let view = chat(r#"{"model":"m","messages":[{}],"stream":true,"max_tokens":9,"n":3,"x_unknown":[1]}"#).unwrap();
        assert_eq!(view, Generation { model: "m".into(), model_at: (9, 12), stream: true, tokens_out: 27 });
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
