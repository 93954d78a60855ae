//! core: reads the few fields that matter of a whole answer or of one event: `usage`, and an `error` that hides in a success.

use super::{BackendError, classify};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use shared::wire::Usage;

#[derive(Deserialize)]
struct Peek<'a> {
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    choices: Option<&'a RawValue>,
}

/// What one event of a stream says of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) usage: Option<Usage>,
    /// It says nothing else: it has no choice.
    pub(crate) is_only_usage: bool,
}

/// Chat, completions and embeddings count in the first two, responses in the others.
#[derive(Deserialize)]
struct Tokens {
    prompt_tokens: Option<u32>,
    completion_tokens: Option<u32>,
    input_tokens: Option<u32>,
    output_tokens: Option<u32>,
}

/// What a backend says went wrong.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Complaint {
    /// A status that stands in the body, where the one in the status line says nothing.
    pub(crate) status: Option<u16>,
    pub(crate) message: Option<String>,
}

/// Checks in one pass that `json` is a JSON object, and takes its usage.
///
/// # Errors
/// Not a JSON object, or one with an `error`.
pub(crate) fn usage(json: &[u8]) -> Result<Option<Usage>, BackendError> {
    Ok(peek(json)?.usage.and_then(tokens))
}

/// Checks and reads an event, as [`usage`] does a whole answer.
pub(crate) fn chunk(json: &[u8]) -> Result<Chunk, BackendError> {
    let peek = peek(json)?;
    let usage = peek.usage.and_then(tokens);
    let is_empty = |choices: &RawValue| choices.get().bytes().all(|byte| b"[] \t\r\n".contains(&byte));
    Ok(Chunk { is_only_usage: usage.is_some() && peek.choices.is_some_and(is_empty), usage })
}

fn peek(json: &[u8]) -> Result<Peek<'_>, BackendError> {
    let peek: Peek<'_> = object(json)?;
    if peek.error.is_some() { Err(failed(json)) } else { Ok(peek) }
}

/// Reads the fields that `T` names of a JSON object.
pub(crate) fn object<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, BackendError> {
    // A derived reader would take an array of two for the object.
    if json.trim_ascii_start().first() != Some(&b'{') {
        return Err(classify::malformed(&"not a JSON object"));
    }
    let text = std::str::from_utf8(json).map_err(|e| classify::malformed(&e))?;
    serde_json::from_str(text).map_err(|e| malformed_json(&e))
}

/// The error of a body or an event that came with a success.
pub(crate) fn failed(json: &[u8]) -> BackendError {
    /// What an error is taken for that does not say: the backend's own.
    const UNKNOWN: u16 = 502;
    let complaint = complaint(json);
    let mut error = classify::status(complaint.status.unwrap_or(UNKNOWN), None, complaint.message.as_deref());
    error.detail.push_str(", in the body of a success");
    error
}

/// Usage that does not look as expected is as good as none: it is no reason to withhold an answer.
pub(crate) fn tokens(usage: &RawValue) -> Option<Usage> {
    let tokens: Tokens = serde_json::from_str(usage.get()).ok()?;
    let output = tokens.completion_tokens.or(tokens.output_tokens).unwrap_or(0);
    Some(Usage { input: tokens.prompt_tokens.or(tokens.input_tokens)?, output })
}

/// A parse error without serde's quotation of what it found, which may be a prompt.
pub(crate) fn malformed_json(error: &serde_json::Error) -> BackendError {
    classify::malformed(&format_args!("JSON {:?} error at line {} column {}", error.classify(), error.line(), error.column()))
}

/// Finds status and message in the error bodies in use: `{"error":{"message","code"}}`, `{"error":"…"}`, `{"message"}`,
/// and FastAPI's `{"detail":"…"}` and `{"detail":[{"msg"}]}`.
pub(crate) fn complaint(json: &[u8]) -> Complaint {
    let Ok(body) = serde_json::from_slice::<Value>(json) else { return Complaint::default() };
    let error = body.get("error").filter(|error| !error.is_null()).unwrap_or(&body);
    let detail = &body["detail"];
    let message = [error, &error["message"], detail, &detail[0]["msg"]].into_iter().find_map(Value::as_str);
    let status = error["code"].as_u64().and_then(|code| u16::try_from(code).ok()).filter(|code| (400..600).contains(code));
    Complaint { status, message: message.map(str::to_owned) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::error::Code;

    fn code(json: &str) -> Code {
        usage(json.as_bytes()).unwrap_err().failure.code
    }

    #[test]
    fn usage_is_read_where_it_stands_and_missing_otherwise() {
        let read = |json: &str| usage(json.as_bytes()).unwrap();
        let full = r#" {"a":[{"usage":0}],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}"#;
        assert_eq!(read(full), Some(Usage { input: 3, output: 4 }));
        assert_eq!(read(r#"{"usage":{"input_tokens":3,"output_tokens":4}}"#), Some(Usage { input: 3, output: 4 }));
        for none in [r#"{}"#, r#"{"usage":null}"#, r#"{"usage":{"prompt_tokens":"3"}}"#, r#"{"error":null}"#] {
            assert_eq!(read(none), None, "{none}");
        }
    }

    #[test]
    fn an_event_that_says_nothing_but_usage_is_known() {
        let is_only_usage = |json: &str| chunk(json.as_bytes()).unwrap().is_only_usage;
        assert!(is_only_usage(r#"{"choices":[ ],"usage":{"prompt_tokens":3}}"#));
        for other in [
            r#"{"choices":[]}"#,
            r#"{"choices":[],"usage":null}"#,
            r#"{"usage":{"prompt_tokens":3}}"#,
            r#"{"choices":[{"delta":{}}],"usage":{"prompt_tokens":3}}"#,
        ] {
            assert!(!is_only_usage(other), "{other}");
        }
    }

    #[test]
    fn what_is_not_a_json_object_is_malformed() {
        for bad in ["", "[null,null]", "[]", "\"x\"", r#"{"a":1"#, r#"{"a":1}}"#, "<html>"] {
            assert_eq!(code(bad), Code::BackendMalformed, "{bad}");
        }
        assert!(usage(b"{\"a\":\"\xff\"}").is_err());
    }

    #[test]
    fn an_error_in_a_success_is_an_error_with_the_status_it_names() {
        assert_eq!(code(r#"{"error":{"message":"m","code":400}}"#), Code::BackendRejected);
        assert_eq!(code(r#"{"error":{"message":"m","code":"overloaded"}}"#), Code::BackendStatus);
        assert_eq!(code(r#"{"error":"out of memory","usage":{}}"#), Code::BackendStatus);
    }

    #[test]
    fn a_parse_error_does_not_repeat_the_answer() {
        let error = usage(br#"{"usage":tell-nobody}"#).unwrap_err();
        assert!(!error.detail.contains("tell"), "{}", error.detail);
    }

    #[test]
    fn the_message_is_found_in_each_servers_form() {
        let forms = [
            r#"{"error":{"message":"why","code":"x"}}"#,
            r#"{"error":"why"}"#,
            r#"{"object":"error","message":"why","code":40001}"#,
            r#"{"detail":"why"}"#,
            r#"{"detail":[{"loc":["body"],"msg":"why"}]}"#,
        ];
        for form in forms {
            assert_eq!(complaint(form.as_bytes()), Complaint { status: None, message: Some("why".into()) }, "{form}");
        }
        assert_eq!(complaint(b"<html>502</html>"), Complaint::default());
    }
}
