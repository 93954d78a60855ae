//! edge: `/v1/batches`, in OpenAI's shape: a file of requests, run in the bulk lane on whatever backends the model has.

mod driver;
mod input;
mod lines;
mod output;
mod publish;
mod request_line;
mod segment;
pub(crate) mod steward;
mod tenure;
mod yard;

pub use driver::Driver;
pub use publish::Batched;
pub(crate) use request_line::RequestLine;
pub use segment::row_id;
pub use tenure::claim;
pub use yard::{Composer, Yard};

use crate::check::{self, Metadata};
use crate::files;
use crate::gate::Gate;
use crate::idempotency;
use crate::listing::{Page, Paging};
use crate::native::{self, Answered};
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};
use shared::clock;
use shared::domain::{Lane, Operation, Token};
use shared::error::{Code, Failure};
use shared::identity::Caller;
use shared::jobs::{self, Batch, BatchState, Counts, Created, Cursor, Purpose};
use std::sync::Arc;

/// Bytes of the body that creates a batch: its metadata, mostly.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// Batches of one tenant that have not ended.
const UNFINISHED_MAX: usize = 256;

/// The shortest and the longest completion window, in seconds: what the bulk lane keeps is younger than the latter.
const WINDOW_S: std::ops::RangeInclusive<u64> = 1..=30 * 86_400;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Creation {
    input_file_id: String,
    endpoint: String,
    completion_window: Box<str>,
    #[serde(default)]
    metadata: Option<Metadata>,
}

pub(crate) async fn create(State(gate): State<Arc<Gate>>, Extension(caller): native::Caller, request: Request) -> Answered {
    let name = idempotency::name(request.headers())?;
    let body = native::body(&gate, request, BODY_BYTES_MAX).await?;
    let id = idempotency::id("batch_", &caller.tenant.name, name.as_deref());
    let fingerprint = blake3::hash(&body).as_bytes().to_vec();
    // One that is there is not checked anew: its file may be gone by now.
    if name.is_some()
        && let Some(known) = get(&gate, &caller, &id).await?
    {
        return Ok(again(&known, &fingerprint)?);
    }
    let batch = accept(&gate, &caller, native::parse(&body)?, id, fingerprint).await?;
    match jobs::create(gate.broker(), &batch).await.map_err(|error| native::of_store(&error))? {
        Created::New { .. } => Ok(Json(object(&batch)).into_response()),
        Created::Known(known) => Ok(again(&known.value, &batch.fingerprint)?),
    }
}

/// The batch that has this name already.
fn again(known: &Batch, fingerprint: &[u8]) -> Result<Response, Failure> {
    if known.fingerprint == fingerprint { Ok(Json(object(known)).into_response()) } else { Err(idempotency::mismatch()) }
}

pub(crate) async fn list(State(gate): State<Arc<Gate>>, Extension(caller): native::Caller, request: Request) -> Answered {
    let (paging, _) = Paging::read(&request, &[])?;
    let page = Page::cut(all(&gate, &caller).await?, &paging, |batch| (batch.created_ms, batch.id.clone()))?;
    Ok(page.respond(|batch| Ok(object(batch))))
}

pub(crate) async fn one(State(gate): State<Arc<Gate>>, Extension(caller): native::Caller, Path(id): Path<String>) -> Answered {
    let batch = find(&gate, &caller, &id).await?;
    Ok(Json(object(&batch)).into_response())
}

/// A batch that has ended stays as it is, and is no error.
pub(crate) async fn cancel(State(gate): State<Arc<Gate>>, Extension(caller): native::Caller, Path(id): Path<String>) -> Answered {
    let batch = find(&gate, &caller, &id).await?;
    let cancelled = jobs::change(gate.broker(), &batch.tenant, &batch.id, |batch: &mut Batch| {
        let runs = matches!(batch.state, BatchState::Validating | BatchState::InProgress);
        if runs {
            batch.state = BatchState::Cancelling;
            batch.cancelling_ms = Some(clock::unix_ms());
        }
        runs
    });
    let stored = cancelled.await.map_err(|error| native::of_store(&error))?;
    Ok(Json(object(&stored.value)).into_response())
}

async fn accept(gate: &Gate, caller: &Caller, wanted: Creation, id: Token, fingerprint: Vec<u8>) -> Result<Batch, Failure> {
    let path = wanted.endpoint.strip_prefix("/v1/");
    let op = Operation::ALL.into_iter().find(|op| Some(op.path()) == path);
    let op = op.ok_or_else(|| invalid("endpoint", "one of those that a batch can call, such as /v1/embeddings"))?;
    caller.may_call(op, Lane::Bulk)?;
    let window_s = window(&wanted.completion_window)?;
    let metadata = wanted.metadata.unwrap_or_default();
    check::metadata(&metadata)?;
    let file = files::find(gate, &caller.tenant.name, &wanted.input_file_id).await.map_err(|failure| failure.param("input_file_id"))?;
    let limits = &gate.config.jobs;
    if file.purpose != Purpose::Batch {
        return Err(invalid("input_file_id", "a file whose purpose is batch"));
    }
    if file.lines == 0 || file.lines > limits.batch_lines_max || file.bytes > limits.batch_bytes_max {
        let expected = format!("a file of 1 to {} lines and {} bytes: split it", limits.batch_lines_max, limits.batch_bytes_max);
        return Err(invalid("input_file_id", &expected));
    }
    let unfinished = all(gate, caller).await?.iter().filter(|batch| !batch.state.is_terminal()).count();
    if unfinished >= UNFINISHED_MAX {
        let message = format!("You have {UNFINISHED_MAX} batches that have not ended: wait for some");
        return Err(Failure::new(Code::QueueFull, message).retry_after_ms(60_000));
    }
    let now_ms = clock::unix_ms();
    Ok(Batch {
        id,
        tenant: caller.tenant.name.as_ref().into(),
        role: caller.role.name.as_str().into(),
        key: caller.key.as_ref().map(|key| key.id.as_ref().into()),
        scope: caller.narrowed_to(),
        op,
        input: file.id,
        window: wanted.completion_window,
        metadata,
        fingerprint,
        state: BatchState::Validating,
        created_ms: now_ms,
        expires_ms: now_ms + window_s * 1_000,
        in_progress_ms: None,
        finalizing_ms: None,
        cancelling_ms: None,
        ended_ms: None,
        failure: None,
        counts: Counts::default(),
        driver: 0,
        settled: 0,
        cursor: Cursor::default(),
        open: Vec::new(),
        output: None,
        errors: None,
        notified: !gate.webhooks.concern(&caller.tenant.name),
        input_tokens: 0,
        output_tokens: 0,
    })
}

/// Seconds of a duration such as `24h`, `90m` or `7d`.
fn window(text: &str) -> Result<u64, Failure> {
    let (number, unit) = text.split_at(text.len() - usize::from(text.is_ascii() && !text.is_empty()));
    let seconds = match unit {
        "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3_600),
        "d" => Some(86_400),
        _ => None,
    };
    let seconds = seconds.and_then(|unit| number.parse::<u64>().ok()?.checked_mul(unit)).filter(|s| WINDOW_S.contains(s));
    seconds.ok_or_else(|| invalid("completion_window", "a duration from 1s to 30d, such as 24h"))
}

async fn all(gate: &Gate, caller: &Caller) -> Result<Vec<Batch>, Failure> {
    let all = jobs::all::<Batch>(gate.broker(), &caller.tenant.name).await.map_err(|error| native::of_store(&error))?;
    Ok(all.into_iter().map(|stored| stored.value).collect())
}

async fn find(gate: &Gate, caller: &Caller, id: &str) -> Result<Batch, Failure> {
    let not_found = || Failure::new(Code::NotFound, "There is no such batch: see GET /v1/batches");
    let id = Token::parse(id).map_err(|_| not_found())?;
    get(gate, caller, &id).await?.ok_or_else(not_found)
}

async fn get(gate: &Gate, caller: &Caller, id: &Token) -> Result<Option<Batch>, Failure> {
    let stored = jobs::get::<Batch>(gate.broker(), &caller.tenant.name, id).await.map_err(|error| native::of_store(&error))?;
    Ok(stored.map(|stored| stored.value))
}

fn invalid(name: &str, expected: &str) -> Failure {
    Failure::new(Code::InvalidValue, format!("`{name}` must be {expected}")).param(name)
}

/// A batch as its owner sees it.
fn object(batch: &Batch) -> Value {
    let seconds = |ms: Option<u64>| ms.map(|ms| ms / 1_000);
    let ended = |state: BatchState| seconds(batch.ended_ms.filter(|_| batch.state == state));
    let errors = batch.failure.as_ref().map(|failure| {
        json!({ "object": "list", "data": [{ "code": failure.code.as_str(), "message": failure.message, "param": failure.param, "line": null }] })
    });
    json!({
        "id": batch.id,
        "object": "batch",
        "endpoint": format!("/v1/{}", batch.op.path()),
        "errors": errors,
        "input_file_id": batch.input,
        "completion_window": batch.window,
        "status": batch.state,
        "output_file_id": batch.output.as_ref().map(|file| &file.file),
        "error_file_id": batch.errors.as_ref().map(|file| &file.file),
        "created_at": batch.created_ms / 1_000,
        "in_progress_at": seconds(batch.in_progress_ms),
        "expires_at": batch.expires_ms / 1_000,
        "finalizing_at": seconds(batch.finalizing_ms),
        "completed_at": ended(BatchState::Completed),
        "failed_at": ended(BatchState::Failed),
        "expired_at": ended(BatchState::Expired),
        "cancelling_at": seconds(batch.cancelling_ms),
        "cancelled_at": ended(BatchState::Cancelled),
        "request_counts": batch.counts,
        "usage": {
            "input_tokens": batch.input_tokens,
            "output_tokens": batch.output_tokens,
            "total_tokens": batch.input_tokens + batch.output_tokens,
        },
        "metadata": batch.metadata,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_a_number_and_a_unit() {
        assert_eq!(["1s", "90m", "24h", "7d"].map(|text| window(text).unwrap()), [1, 5_400, 86_400, 604_800]);
        for bad in ["", "h", "24", "0s", "31d", "-1h", "1.5h", "1w", "24 h", "1ä", "99999999999999999999d"] {
            assert_eq!(window(bad).unwrap_err().param.as_deref(), Some("completion_window"), "{bad}");
        }
    }
}
