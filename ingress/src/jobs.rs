//! edge: a request that outlives its connection: submitted with `Prefer: respond-async` or an `Idempotency-Key`, then polled, attached
//! to, or cancelled.

mod events;
pub(crate) mod notify;
mod object;
pub(crate) mod redrive;
mod reel;
mod replay;
mod submit;
pub(crate) mod sweeper;
pub(crate) mod tail;
mod watch;

pub(crate) use events::{STILL_THERE, event_stream};
pub(crate) use submit::{Errand, fingerprint};
pub use submit::{accept, addressed, request_id};
pub(crate) use sweeper::forget;
pub(crate) use watch::Watch;

use crate::answer::Reply;
use crate::compose::Composed;
use crate::forecasts::Standing;
use crate::gate::Gate;
use crate::listing::{Page, Paging};
use crate::native::{self, Answered};
use crate::responses;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use shared::broker::{Broker, BrokerError, Store};
use shared::clock::{self, Time};
use shared::domain::Token;
use shared::error::{Code, Failure};
use shared::identity::Caller;
use shared::jobs::{self, End, Job, Outcome, State as JobState, Stored};
use std::sync::Arc;
use std::time::Duration;
use submit::Returns;
use tail::{After, Tail};

pub(crate) async fn list(State(gate): State<Arc<Gate>>, Extension(caller): native::Caller, request: Request) -> Answered {
    let (paging, _) = Paging::read(&request, &[])?;
    let all = jobs::all::<Job>(gate.broker(), &caller.tenant.name).await.map_err(|error| native::of_store(&error))?;
    let all = all.into_iter().map(|stored| stored.value).collect();
    let page = Page::cut(all, &paging, |job: &Job| (job.created_ms, job.id.clone()))?;
    Ok(page.respond(|job| Ok(object::of(job, None, standing(&gate, job)))))
}

pub(crate) async fn one(State(gate): State<Arc<Gate>>, Extension(caller): native::Caller, Path(id): Path<String>) -> Answered {
    let job = find(&gate, &caller, &id).await?.value;
    let answer = if job.state == JobState::Succeeded { Some(answer(&gate, &job).await?) } else { None };
    Ok(Json(object::of(&job, answer.as_ref(), standing(&gate, &job))).into_response())
}

/// Where a job stands that waits.
fn standing(gate: &Gate, job: &Job) -> Option<Standing> {
    let place = job.place.as_ref().filter(|_| job.state == JobState::Queued)?;
    gate.road.forecasts.standing(&Token::of_model(&job.model), place, clock::now(), clock::unix_ms())
}

/// Cancels a job; one that has ended stays as it is, and is no error.
pub(crate) async fn cancel(State(gate): State<Arc<Gate>>, Extension(caller): native::Caller, Path(id): Path<String>) -> Answered {
    let job = call_off(&gate, &find(&gate, &caller, &id).await?.value).await?;
    Ok(Json(object::of(&job, None, None)).into_response())
}

pub(crate) async fn attach(
    State(gate): State<Arc<Gate>>,
    Extension(caller): native::Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Answered {
    let seen = events::last_seen(&headers)?;
    let job = find(&gate, &caller, &id).await?;
    Ok(events::respond(Tail::new(gate, job, seen)?, seen))
}

/// # Errors
/// `not_found`, `broker_unavailable`.
pub(crate) async fn call_off(gate: &Gate, job: &Job) -> Result<Job, Failure> {
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
/// `lost` when it is not there any more; `broker_unavailable`.
pub(crate) async fn answer(gate: &Gate, job: &Job) -> Result<Bytes, Failure> {
    let kept = kept_answer(gate.broker(), job).await.map_err(|error| native::of_broker(&error))?;
    kept.ok_or_else(|| Failure::new(Code::Lost, "The answer is not kept any more: submit the request again"))
}

/// The same; none when it is not there any more.
///
/// # Errors
/// Those of the broker.
pub(crate) async fn kept_answer(broker: &dyn Broker, job: &Job) -> Result<Option<Bytes>, BrokerError> {
    // Which one won is said by the record: the first to write there, not in the journal.
    let outcomes = jobs::all_outcomes(broker, &jobs::topic(&job.id, 0)).await?;
    let found = outcomes.into_iter().find(|(outcome, _)| outcome.exec == job.winner);
    match found {
        Some((Outcome { blob: Some(key), .. }, _)) => broker.blob_get(Store::Files, &key).await,
        found => Ok(found.map(|(_, body)| body)),
    }
}

/// The answer to a submission that does not wait.
fn accepted(job: &Job) -> Response {
    let mut response = (StatusCode::ACCEPTED, Json(object::of(job, None, None))).into_response();
    let location = HeaderValue::try_from(format!("/v1/jobs/{}", job.id)).expect("a token is visible ASCII");
    response.headers_mut().insert(header::LOCATION, location);
    response.headers_mut().insert("preference-applied", HeaderValue::from_static("respond-async"));
    response
}

/// Runs a request as a job: its caller gets the job or the response, or waits for the answer as if they had called directly.
///
/// # Errors
/// Those of [`submit::submit`]; how the job ended, when it ended badly; `deadline_exceeded`.
pub(crate) async fn run(
    gate: &Arc<Gate>,
    composed: Composed,
    errand: &Errand,
    fingerprint: Vec<u8>,
    deadline: Time,
) -> Result<Reply, Failure> {
    let later = Duration::from_secs(gate.config.jobs.timeout_s);
    let within = if errand.returns == Returns::Answer { deadline.since(clock::now()) } else { later };
    let job = submit::submit(gate, composed, errand, fingerprint, within).await?;
    match errand.returns {
        Returns::Answer if job.stream => {
            let tail = Tail::new(Arc::clone(gate), look(gate, &job).await?, After::default())?;
            Ok(Reply::Later(replay::respond(tail)))
        }
        Returns::Answer => wait(gate, job, deadline).await,
        Returns::Job => Ok(Reply::Later(accepted(&job))),
        Returns::Response if job.stream => responses::stream(gate, look(gate, &job).await?, None).map(Reply::Later),
        Returns::Response => responses::show(gate, &job).await.map(Reply::Later),
    }
}

async fn look(gate: &Gate, job: &Job) -> Result<Stored<Job>, Failure> {
    watch::look(gate.broker(), job).await.map_err(|error| native::of_store(&error))
}

async fn wait(gate: &Gate, job: Job, deadline: Time) -> Result<Reply, Failure> {
    let job = gate.watch.ended(gate.broker(), job, deadline).await?;
    match (job.state, job.failure.as_deref()) {
        (JobState::Succeeded, _) => Ok(Reply::Whole { head: None, body: answer(gate, &job).await? }),
        (_, Some(failure)) => Err(failure.clone()),
        _ => Err(Failure::new(Code::Cancelled, "The job was cancelled")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::broker::Journal;
    use shared::broker::memory::MemoryBroker;
    use shared::domain::ExecId;
    use shared::entropy;
    use shared::jobs::Commit;
    use shared::wire::{JobRef, Usage, encode_one};

    #[tokio::test]
    async fn the_answer_is_the_winners_wherever_it_lies() {
        let (broker, id) = (MemoryBroker::new(), Token::parse("job_1").unwrap());
        let (job, _) = submit::tests::request(&id);
        jobs::create(broker.as_ref(), &job).await.unwrap();
        let outcome = |exec: ExecId| Outcome {
            row: 0,
            id: submit::request_id(&id),
            exec: Some(exec),
            failure: None,
            usage: Usage::default(),
            blob: None,
        };
        let entry = encode_one(&outcome(entropy::exec_id()), b"1"); // Its worker dies before it has ended the job.
        broker.append(Journal::Results, &jobs::topic(&id, 0), "1", entry).await.unwrap();
        let of = JobRef { job: id.clone(), part: 0, row: 0, line: false, again: false };
        let second = Commit { tenant: job.tenant.clone(), of, outcome: outcome(entropy::exec_id()), body: "2".into() };
        jobs::commit(broker.as_ref(), vec![second]).await;
        let ended = jobs::get::<Job>(broker.as_ref(), &job.tenant, &id).await.unwrap().unwrap().value;
        assert_eq!(kept_answer(broker.as_ref(), &ended).await.unwrap(), Some("2".into()));
    }
}
