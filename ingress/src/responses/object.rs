//! core: a background response as its caller sees it: OpenAI's object, made here until its backend has answered, and from then on the
//! backend's own under the id that the caller knows.

use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};
use shared::config::EventKind;
use shared::error::{Code, Failure};
use shared::jobs::{Job, State};
use std::collections::BTreeMap;

/// A response that has no answer: not yet, or for good.
pub(super) fn unanswered(job: &Job) -> Value {
    json!({
        "id": job.id,
        "object": "response",
        "created_at": job.created_ms / 1_000,
        "status": status(job.state),
        "background": true,
        "error": job.failure.as_ref().map(|failure| json!({ "code": failure.code.as_str(), "message": failure.message })),
        "incomplete_details": null,
        "instructions": null,
        "metadata": job.metadata,
        "model": job.model,
        "output": [],
        "parallel_tool_calls": true,
        "temperature": null,
        "tool_choice": "auto",
        "tools": [],
        "top_p": null,
        "usage": null,
    })
}

const fn status(state: State) -> &'static str {
    match state {
        State::Accepted | State::Queued => "queued",
        State::Running => "in_progress",
        State::Succeeded => "completed",
        State::Cancelled => "cancelled",
        State::Failed | State::Expired => "failed",
    }
}

/// The backend's response, as JSON.
///
/// # Errors
/// `backend_malformed`.
pub(super) fn answered(job: &Job, answer: &[u8]) -> Result<Vec<u8>, Failure> {
    let malformed = |_| Failure::new(Code::BackendMalformed, "The backend's answer was not a response: submit the request again");
    let mut members: BTreeMap<String, &RawValue> = serde_json::from_slice(answer).map_err(malformed)?;
    let own = own_members(job);
    members.extend(own.iter().map(|(name, value)| ((*name).to_owned(), &**value)));
    Ok(serde_json::to_vec(&members).expect("raw JSON under names is JSON"))
}

/// What is this server's business, whatever the backend says.
fn own_members(job: &Job) -> [(&'static str, Box<RawValue>); 4] {
    let raw = |value: Value| to_raw_value(&value).expect("a value is JSON");
    [
        ("id", raw(json!(job.id))),
        ("background", raw(json!(true))),
        ("created_at", raw(json!(job.created_ms / 1_000))),
        ("metadata", raw(json!(job.metadata))),
    ]
}

#[derive(Deserialize)]
struct Answered<'a> {
    #[serde(borrow)]
    status: Option<&'a str>,
}

/// How a response ended that its backend has answered.
pub(super) fn event(answer: &[u8]) -> EventKind {
    match serde_json::from_slice(answer) {
        Ok(Answered { status: Some("incomplete") }) => EventKind::ResponseIncomplete,
        Ok(Answered { status: Some("failed") }) => EventKind::ResponseFailed,
        Ok(Answered { status: Some("cancelled") }) => EventKind::ResponseCancelled,
        _ => EventKind::ResponseCompleted,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use shared::domain::{Operation, Token};

    pub(crate) fn job(state: State) -> Job {
        Job {
            id: Token::parse("resp_1").unwrap(),
            tenant: "t".into(),
            model: "chat".into(),
            op: Operation::Responses,
            stream: false,
            state,
            attempts: 1,
            created_ms: 7_000,
            started_ms: None,
            ended_ms: None,
            deadline_ms: 9_000,
            fingerprint: Vec::new(),
            place: None,
            exec: None,
            winner: None,
            failure: None,
            usage: None,
            notified: false,
            redrive_of: None,
            metadata: BTreeMap::from([("a".into(), "b".into())]),
        }
    }

    #[test]
    fn a_response_that_is_not_answered_says_how_it_stands() {
        let states = [State::Accepted, State::Queued, State::Running, State::Cancelled, State::Failed, State::Expired];
        let shown = states.map(|state| unanswered(&job(state))["status"].as_str().unwrap().to_owned());
        assert_eq!(shown, ["queued", "queued", "in_progress", "cancelled", "failed", "failed"]);
        let failed = Job { failure: Some(Box::new(Failure::new(Code::BackendStatus, "x"))), ..job(State::Failed) };
        assert_eq!(unanswered(&failed)["error"], json!({ "code": "backend_status", "message": "x" }));
    }

    #[test]
    fn an_answer_keeps_the_backends_words_under_the_callers_id() {
        let answer = br#"{"id":"resp_of_backend","output":[1.50],"status":"completed","metadata":null}"#;
        let shown = answered(&job(State::Succeeded), answer).unwrap();
        let expected = r#"{"background":true,"created_at":7,"id":"resp_1","metadata":{"a":"b"},"output":[1.50],"status":"completed"}"#;
        assert_eq!(std::str::from_utf8(&shown).unwrap(), expected);
        assert_eq!(answered(&job(State::Succeeded), b"[]").unwrap_err().code, Code::BackendMalformed);
    }

    #[test]
    fn its_end_is_told_as_the_backend_put_it() {
        let of = |status: &str| event(format!("{{\"status\":{status}}}").as_bytes());
        assert_eq!(of("\"completed\""), EventKind::ResponseCompleted);
        assert_eq!(of("\"incomplete\""), EventKind::ResponseIncomplete);
        assert_eq!(of("\"failed\""), EventKind::ResponseFailed);
        assert_eq!(of("null"), EventKind::ResponseCompleted);
    }
}
