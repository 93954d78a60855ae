//! edge: `/v1/responses/{id}`: background responses, in OpenAI's shape. Each is a job whose id begins with `resp_`, so whatever holds of
//! jobs holds of them: any ingress knows them, and no crash loses them.

mod events;
mod object;

use crate::gate::Gate;
use crate::jobs::tail::Tail;
use crate::jobs::{answer, call_off, forget, kept_answer};
use crate::native::{self, Answered};
use crate::query::Query;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::{HeaderValue, header};
use serde_json::json;
use shared::broker::BrokerError;
use shared::config::EventKind;
use shared::domain::Token;
use shared::error::{Code, Failure};
use shared::identity::Caller;
use shared::jobs::{self, Job, State as JobState, Stored};
use std::sync::Arc;

/// What a query may hold that asks for one. Of these `include` asks for parts of an answer that are there anyway.
const QUERY: [&str; 5] = ["stream", "starting_after", "include", "include[]", "include_obfuscation"];

pub(crate) async fn one(
    State(gate): State<Arc<Gate>>,
    Extension(caller): native::Caller,
    Path(id): Path<String>,
    request: Request,
) -> Answered {
    let query = Query::of(request.uri(), &QUERY)?;
    let stored = find(&gate, &caller, &id).await?;
    if !query.flag("stream")? {
        return Ok(show(&gate, &stored.value).await?);
    }
    if !stored.value.stream {
        let message = "`stream` must be false: this response was not asked for with `stream`";
        return Err(Failure::new(Code::InvalidValue, message).param("stream").into());
    }
    Ok(stream(&gate, stored, query.number("starting_after")?)?)
}

/// A response's events, from those on that its reader has seen.
///
/// # Errors
/// `overloaded`.
pub(crate) fn stream(gate: &Arc<Gate>, job: Stored<Job>, starting_after: Option<u64>) -> Result<Response, Failure> {
    let tail = Tail::new(Arc::clone(gate), job, events::place(starting_after))?;
    Ok(events::respond(tail, starting_after))
}

/// Cancels a response; one that has ended stays as it is, and is no error.
pub(crate) async fn cancel(State(gate): State<Arc<Gate>>, Extension(caller): native::Caller, Path(id): Path<String>) -> Answered {
    let job = find(&gate, &caller, &id).await?.value;
    let job = call_off(&gate, &job).await?;
    Ok(show(&gate, &job).await?)
}

/// Deletes a response and all that is kept of it. One that still runs is cancelled first.
pub(crate) async fn delete(State(gate): State<Arc<Gate>>, Extension(caller): native::Caller, Path(id): Path<String>) -> Answered {
    let job = find(&gate, &caller, &id).await?.value;
    call_off(&gate, &job).await?;
    forget(gate.broker(), &job).await.map_err(|error| native::of_store(&error))?;
    Ok(Json(json!({ "id": job.id, "object": "response", "deleted": true })).into_response())
}

/// A response as it is now.
///
/// # Errors
/// `lost` when its answer is not there any more; `broker_unavailable`.
pub(crate) async fn show(gate: &Gate, job: &Job) -> Result<Response, Failure> {
    if job.state != JobState::Succeeded {
        return Ok(Json(object::unanswered(job)).into_response());
    }
    let json = object::answered(job, &answer(gate, job).await?)?;
    let mut response = Response::new(Body::from(json));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// What its tenant is told of a response that has ended.
///
/// # Errors
/// Those of the broker.
pub(crate) async fn event(gate: &Gate, job: &Job) -> Result<EventKind, BrokerError> {
    Ok(match job.state {
        JobState::Cancelled => EventKind::ResponseCancelled,
        JobState::Succeeded => object::event(&kept_answer(gate.broker(), job).await?.unwrap_or_default()),
        _ => EventKind::ResponseFailed,
    })
}

/// A caller's response.
///
/// # Errors
/// `not_found`, also for those of others.
async fn find(gate: &Gate, caller: &Caller, id: &str) -> Result<Stored<Job>, Failure> {
    let not_found =
        || Failure::new(Code::NotFound, "There is no such response: it was not asked for with `background`, or was kept long enough");
    let id = Token::parse(id).map_err(|_| not_found())?;
    let stored = jobs::get::<Job>(gate.broker(), &caller.tenant.name, &id).await.map_err(|error| native::of_store(&error))?;
    stored.filter(|stored| stored.value.is_response()).ok_or_else(not_found)
}
