//! edge: `GET /v1/jobs/{id}/events`: the states of a job as they come and, if its answer is streamed, its events, as server-sent events.
//!
//! The id of one is the record's revision and, behind a dot, the number of the last event of the answer: a caller who comes back
//! with `Last-Event-ID` hears what is new. Events of the answer are as a direct call would have them; the job's own have names.

use super::object;
use super::tail::{After, Tail, Told};
use crate::refusal;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, HeaderValue, header};
use serde_json::json;
use shared::error::{Code, Failure};
use shared::jobs::Job;
use std::convert::Infallible;

/// A comment, so that proxies keep a connection on which nothing happens.
pub(crate) const STILL_THERE: Bytes = Bytes::from_static(b": still there\n\n");

/// What a caller has seen.
///
/// # Errors
/// `invalid_header`.
pub(super) fn last_seen(headers: &HeaderMap) -> Result<After, Failure> {
    let Some(value) = headers.get("last-event-id") else { return Ok(After::default()) };
    let invalid = || Failure::new(Code::InvalidHeader, "Last-Event-ID must be the id of an event of this job").param("last-event-id");
    value.to_str().ok().and_then(parse).ok_or_else(invalid)
}

fn parse(id: &str) -> Option<After> {
    match id.split_once('.') {
        None => Some(After { revision: id.parse().ok()?, event: None }),
        Some((revision, event)) => Some(After { revision: revision.parse().ok()?, event: Some(event.parse().ok()?) }),
    }
}

pub(super) fn respond(tail: Tail, after: After) -> Response {
    let attached = Attached { tail, last: after.event, is_over: false };
    event_stream(Body::from_stream(stream::unfold(attached, |mut attached| async move {
        let event = attached.next().await?;
        Some((Ok::<_, Infallible>(event), attached))
    })))
}

/// The answer whose body are events.
pub(crate) fn event_stream(body: Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

struct Attached {
    tail: Tail,
    /// The last event of the answer that its caller has.
    last: Option<u64>,
    is_over: bool,
}

impl Attached {
    /// `None`: the job has ended and its caller knows.
    async fn next(&mut self) -> Option<Bytes> {
        if self.is_over {
            return None;
        }
        match self.tail.next().await {
            Ok(told) => Some(self.tell(told?)),
            Err(failure) => {
                self.is_over = true;
                Some(refusal::event(None, &failure))
            }
        }
    }

    fn tell(&mut self, told: Told) -> Bytes {
        match told {
            Told::State => {
                let job = &self.tail.job.value;
                named(&self.id(), job.state.as_str(), &object::of(job, None, None))
            }
            Told::Event(event) => {
                self.last = Some(event.number);
                [self.id().as_bytes(), &event.frame].concat().into()
            }
            Told::Restarted => {
                self.last = None;
                let Job { id, attempts, .. } = &self.tail.job.value;
                named(&self.id(), "restarted", &json!({ "id": id, "attempts": attempts }))
            }
            Told::Idle => STILL_THERE,
        }
    }

    fn id(&self) -> String {
        let revision = self.tail.job.revision;
        self.last.map_or_else(|| format!("id: {revision}\n"), |event| format!("id: {revision}.{event}\n"))
    }
}

fn named(id: &str, name: &str, data: &serde_json::Value) -> Bytes {
    format!("{id}event: job.{name}\ndata: {data}\n\n").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_what_was_seen_of_the_record_and_of_the_answer() {
        assert_eq!(parse("7"), Some(After { revision: 7, event: None }));
        assert_eq!(parse("7.0"), Some(After { revision: 7, event: Some(0) }));
        for bad in ["", ".", "7.", ".7", "7.x", "-1", "1.2.3"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
