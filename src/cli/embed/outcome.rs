//! core: one line of a batch's output or error file: what became of a row.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;
use workers::backend::read_embeddings;

/// Characters of a reason: it begins with what matters.
const MESSAGE_CHARS_MAX: usize = 300;

#[derive(Debug, PartialEq)]
pub(super) struct Outcome {
    pub(super) row: u64,
    pub(super) result: Result<Vec<f32>, Refusal>,
}

/// Why a row has no vector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Refusal {
    pub(super) code: String,
    pub(super) message: String,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    custom_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    response: Option<Response<'a>>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Response<'a> {
    status_code: u16,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
}

impl Outcome {
    /// `None`: it is of no row that this program has sent.
    pub(super) fn read(line: &[u8]) -> Option<Self> {
        let line: Line<'_> = serde_json::from_slice(line).ok()?;
        let row = line.custom_id.as_ref()?.parse().ok()?;
        Some(Self { row, result: line.result() })
    }
}

impl Line<'_> {
    fn result(self) -> Result<Vec<f32>, Refusal> {
        if let Some(error) = self.error.filter(|error| !error.is_null()) {
            return Err(Refusal::said(&error));
        }
        let nothing = || Refusal::new("no_answer", "The line has neither an answer nor an error.");
        let response = self.response.ok_or_else(nothing)?;
        let body = response.body.ok_or_else(nothing)?.get();
        if response.status_code != 200 {
            let body: Value = serde_json::from_str(body).unwrap_or_default();
            return Err(Refusal::said(&body["error"]));
        }
        match read_embeddings(body.as_bytes(), 1) {
            Ok(mut embedded) => Ok(embedded.vectors.swap_remove(0)),
            Err(error) => Err(Refusal::new(error.failure.code.as_str(), error.failure.message)),
        }
    }
}

impl Refusal {
    pub(super) fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into().chars().take(MESSAGE_CHARS_MAX).collect() }
    }

    fn said(error: &Value) -> Self {
        let message = error["message"].as_str().unwrap_or("The server does not say why.");
        Self::new(error["code"].as_str().unwrap_or("error"), message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(line: &Value) -> Option<Outcome> {
        Outcome::read(line.to_string().as_bytes())
    }

    #[test]
    fn an_answer_is_a_vector_in_either_form() {
        for embedding in [json!("AACAPwAAAMA="), json!([1.0, -2.0])] {
            let body = json!({ "object": "list", "data": [{ "object": "embedding", "index": 0, "embedding": embedding }] });
            let line =
                json!({ "id": "x", "custom_id": "17", "response": { "status_code": 200, "request_id": "r", "body": body }, "error": null });
            assert_eq!(read(&line), Some(Outcome { row: 17, result: Ok(vec![1.0, -2.0]) }));
        }
    }

    #[test]
    fn a_refusal_keeps_its_code_wherever_it_stands() {
        let error = json!({ "code": "batch_expired", "message": "Too late." });
        let refused = Some(Outcome { row: 3, result: Err(Refusal::new("batch_expired", "Too late.")) });
        assert_eq!(read(&json!({ "custom_id": "3", "response": null, "error": error })), refused);
        let response = json!({ "status_code": 400, "body": { "error": error } });
        assert_eq!(read(&json!({ "custom_id": "3", "response": response, "error": null })), refused);
    }

    #[test]
    fn an_answer_that_cannot_be_used_is_an_error_of_its_row() {
        let response = json!({ "status_code": 200, "body": { "data": [] } });
        let outcome = read(&json!({ "custom_id": "3", "response": response })).unwrap();
        assert_eq!(outcome.result.unwrap_err().code, "backend_wrong_count");
        assert_eq!(read(&json!({ "custom_id": "3" })).unwrap().result.unwrap_err().code, "no_answer");
    }

    #[test]
    fn what_was_never_sent_is_nothing() {
        assert_eq!(read(&json!({ "custom_id": null, "error": { "code": "invalid_json" } })), None);
        assert_eq!(Outcome::read(b"{"), None);
    }
}
