//! edge: `GET /v1/jobs/{id}/events`: the states of a job as they come, as server-sent events. The id of an event is the record's
//! revision, so that a caller who comes back with `Last-Event-ID` hears what is new.

use super::object;
use crate::gate::Gate;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, HeaderValue, header};
use shared::error::{Code, Failure};
use shared::jobs::{Job, Stored};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

/// A comment goes out when nothing has happened for this long, so that proxies keep the connection.
const COMMENT_EVERY: Duration = Duration::from_secs(10);

/// The revision that a caller has seen.
///
/// # Errors
/// `invalid_header`.
pub(super) fn last_seen(headers: &HeaderMap) -> Result<u64, Failure> {
    let Some(value) = headers.get("last-event-id") else { return Ok(0) };
    let number = value.to_str().ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| Failure::new(Code::InvalidHeader, "Last-Event-ID must be the id of an event of this job").param("last-event-id"))
}

struct Attached {
    gate: Arc<Gate>,
    job: Stored<Job>,
    seen: u64,
}

pub(super) fn respond(gate: Arc<Gate>, job: Stored<Job>, seen: u64) -> Response {
    let events = stream::unfold(Attached { gate, job, seen }, |mut attached| async move {
        let event = attached.next().await?;
        Some((Ok::<_, Infallible>(event), attached))
    });
    let mut response = Response::new(Body::from_stream(events));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

impl Attached {
    /// `None`: the job has ended and its caller knows.
    async fn next(&mut self) -> Option<Bytes> {
        if self.job.revision > self.seen {
            self.seen = self.job.revision;
            return Some(self.event());
        }
        if self.job.value.state.is_terminal() {
            return None;
        }
        let gate = Arc::clone(&self.gate);
        let listener = gate.watch.listen(self.job.value.id.as_str());
        match listener.next(gate.broker(), &self.job.value, COMMENT_EVERY).await {
            Ok(job) if job.revision > self.seen => {
                (self.seen, self.job) = (job.revision, job);
                Some(self.event())
            }
            Ok(_) => Some(Bytes::from_static(b": still there\n\n")),
            Err(error) => {
                tracing::debug!(%error, "an attached caller is let go");
                None
            }
        }
    }

    fn event(&self) -> Bytes {
        let Stored { value: job, revision } = &self.job;
        format!("id: {revision}\nevent: job.{}\ndata: {}\n\n", job.state.as_str(), object::of(job, None)).into()
    }
}
