//! core: reads what matters of one event of a `responses` stream: whether it is the last, which carries the response with its
//! usage, or the error in its place.

use super::{BackendError, answer};
use serde::Deserialize;
use serde_json::value::RawValue;
use shared::wire::Usage;

/// The types of the last event, as they stand in the JSON. Each carries the response as it has become, so its caller hears of a
/// failure from the backend itself.
const LAST: [&str; 3] = [r#""response.completed""#, r#""response.incomplete""#, r#""response.failed""#];

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    r#type: Option<&'a RawValue>,
    #[serde(borrow)]
    response: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Response<'a> {
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
}

/// What an event says beside its text.
#[derive(Debug, Default)]
pub(crate) struct Read<'a> {
    pub(crate) usage: Option<Usage>,
    /// Nothing comes after it.
    pub(crate) is_last: bool,
    /// The response as it has become, with the last.
    pub(crate) response: Option<&'a RawValue>,
}

///
/// # Errors
/// Not a JSON object, an event of the type `error`, or one with an `error`.
pub(crate) fn read(json: &[u8]) -> Result<Read<'_>, BackendError> {
    let event: Event<'_> = answer::object(json)?;
    let kind = event.r#type.map_or("", RawValue::get);
    if event.error.is_some() || kind == r#""error""# {
        return Err(answer::failed(json));
    }
    if !LAST.contains(&kind) {
        return Ok(Read::default());
    }
    Ok(Read { usage: event.response.and_then(usage), is_last: true, response: event.response })
}

fn usage(response: &RawValue) -> Option<Usage> {
    let response: Response<'_> = serde_json::from_str(response.get()).ok()?;
    response.usage.and_then(answer::tokens)
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::error::Code;

    #[test]
    fn the_last_event_is_known_by_its_type_and_carries_the_usage() {
        let usage = Some(Usage { input: 3, output: 4 });
        for kind in ["completed", "incomplete", "failed"] {
            let with = format!(r#"{{"type":"response.{kind}","response":{{"usage":{{"input_tokens":3,"output_tokens":4}}}}}}"#);
            let last = read(with.as_bytes()).unwrap();
            assert_eq!((last.usage, last.is_last), (usage, true), "{kind}");
            assert!(last.response.unwrap().get().starts_with(r#"{"usage""#), "{kind}");
            let without = format!(r#"{{"response":{{"usage":null}},"type":"response.{kind}"}}"#);
            let last = read(without.as_bytes()).unwrap();
            assert_eq!((last.usage, last.is_last), (None, true), "{kind}");
        }
        let created = r#"{"type":"response.created","response":{"usage":{"input_tokens":3}}}"#;
        for other in [created.as_bytes(), br#"{"delta":"response.completed"}"#] {
            let read = read(other).unwrap();
            assert!(!read.is_last && read.usage.is_none() && read.response.is_none());
        }
    }

    #[test]
    fn an_error_in_either_form_is_one() {
        for error in [r#"{"type":"error","code":null,"message":"m"}"#, r#"{"error":{"message":"m"}}"#] {
            let error = read(error.as_bytes()).unwrap_err();
            assert_eq!(error.failure.code, Code::BackendStatus);
        }
        assert_eq!(read(b"[DONE]").unwrap_err().failure.code, Code::BackendMalformed);
    }
}
