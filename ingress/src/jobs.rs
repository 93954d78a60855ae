//! edge: a request that outlives its connection: submitted with `Prefer: respond-async` or an `Idempotency-Key`, then polled, attached
//! to, or cancelled.

mod events;
pub(crate) mod notify;
mod object;
pub(crate) mod redrive;
mod submit;
pub(crate) mod sweeper;
mod watch;

pub(crate) use submit::{Errand, fingerprint};
pub(crate) use watch::Watch;

use crate::answer::Reply;
use crate::compose::Composed;
use crate::gate::Gate;
use crate::listing::{Page, Paging};
use crate::native::{self, Answered};
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use shared::broker::Store;
use shared::clock::{self, Time};
use shared::domain::Token;
use shared::error::{Code, Failure};
use shared::identity::Caller;
use shared::jobs::{self, End, Job, State as JobState, Stored};
use std::sync::Arc;
use std::time::Duration;

pub(crate) async fn list(State(gate): State<Arc<Gate>>, Extension(caller): native::Caller, request: Request) -> Answered {
    let (paging, _) = Paging::read(&request, &[])?;
    let all = jobs::all::<Job>(gate.broker(), &caller.tenant.name).await.map_err(|error| native::of_store(&error))?;
    let all = all.into_iter().map(|stored| stored.value).collect();
    let page = Page::cut(all, &paging, |job: &Job| (job.created_ms, job.id.clone()))?;
    Ok(page.respond(|job| Ok(object::of(job, None))))
}

pub(crate) async fn one(State(gate): State<Arc<Gate>>, Extension(caller): native::Caller, Path(id): Path<String>) -> Answered {
    let job = find(&gate, &caller, &id).await?.value;
    let answer = if job.state == JobState::Succeeded { Some(answer(&gate, &job).await?) } else { None };
    Ok(Json(object::of(&job, answer.as_ref())).into_response())
}

/// Cancels a job; one that has ended stays as it is, and is no error.
pub(crate) async fn cancel(State(gate): State<Arc<Gate>>, Extension(caller): native::Caller, Path(id): Path<String>) -> Answered {
    let job = cancel_job(&gate, &caller, &id).await?;
    Ok(Json(object::of(&job, None)).into_response())
}

pub(crate) async fn attach(
    State(gate): State<Arc<Gate>>,
    Extension(caller): native::Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Answered {
    let seen = events::last_seen(&headers)?;
    let job = find(&gate, &caller, &id).await?;
    Ok(events::respond(gate, job, seen))
}

async fn cancel_job(gate: &Gate, caller: &Caller, id: &str) -> Result<Job, Failure> {
    let job = find(gate, caller, id).await?.value;
    let now_ms = clock::unix_ms();
    let ended = jobs::change(gate.broker(), &job.tenant, &job.id, |job: &mut Job| job.ended(End::Cancelled, now_ms));
    let job = ended.await.map_err(|error| native::of_store(&error))?.value;
    gate.road.call_off(vec![submit::request_id(&job.id)]);
    Ok(job)
}

/// A caller's job.
///
/// # Errors
/// `not_found`, also for the jobs of others.
pub(crate) async fn find(gate: &Gate, caller: &Caller, id: &str) -> Result<Stored<Job>, Failure> {
    let not_found = || Failure::new(Code::NotFound, "There is no such job: it was never here, or was kept long enough");
    let id = Token::parse(id).map_err(|_| not_found())?;
    let stored = jobs::get::<Job>(gate.broker(), &caller.tenant.name, &id).await.map_err(|error| native::of_store(&error))?;
    stored.ok_or_else(not_found)
}

/// The answer of a job that succeeded, as its backend gave it.
///
/// # Errors
/// `lost` when it is not there any more.
pub(crate) async fn answer(gate: &Gate, job: &Job) -> Result<Bytes, Failure> {
    let outcomes = jobs::outcomes(gate.broker(), &jobs::topic(&job.id, 0)).await.map_err(|error| native::of_broker(&error))?;
    let lost = || Failure::new(Code::Lost, "The answer is not kept any more: submit the request again");
    let (outcome, body) = outcomes.into_iter().find(|(outcome, _)| outcome.exec == job.winner).ok_or_else(lost)?;
    match outcome.blob {
        None => Ok(body),
        Some(key) => gate.broker().blob_get(Store::Files, &key).await.map_err(|error| native::of_broker(&error))?.ok_or_else(lost),
    }
}

/// The answer to a submission that does not wait.
pub(crate) fn accepted(job: &Job) -> Response {
    let mut response = (StatusCode::ACCEPTED, Json(object::of(job, None))).into_response();
    let location = HeaderValue::try_from(format!("/v1/jobs/{}", job.id)).expect("a token is visible ASCII");
    response.headers_mut().insert(header::LOCATION, location);
    response.headers_mut().insert("preference-applied", HeaderValue::from_static("respond-async"));
    response
}

/// Runs a request as a job: its caller gets the job, or waits for the answer as if they had called directly.
///
/// # Errors
/// Those of [`submit::submit`]; how the job ended, when it ended badly; `deadline_exceeded`.
pub(crate) async fn run(gate: &Gate, composed: Composed, errand: &Errand, fingerprint: Vec<u8>, deadline: Time) -> Result<Reply, Failure> {
    if composed.envelope.stream {
        let message = "`stream` must be false for a job: poll it, or listen to its events";
        return Err(Failure::new(Code::InvalidValue, message).param("stream"));
    }
    let within = if errand.detached { Duration::from_secs(gate.config.jobs.timeout_s) } else { deadline.since(clock::now()) };
    let job = submit::submit(gate, "job", composed, errand.name.as_deref(), fingerprint, within).await?;
    if errand.detached {
        return Ok(Reply::Accepted(Box::new(job)));
    }
    let job = gate.watch.ended(gate.broker(), job, deadline).await?;
    match (job.state, job.failure.as_deref()) {
        (JobState::Succeeded, _) => Ok(Reply::Whole { head: None, body: answer(gate, &job).await? }),
        (_, Some(failure)) => Err(failure.clone()),
        _ => Err(Failure::new(Code::Cancelled, "The job was cancelled")),
    }
}
