//! core: a job as its owner sees it.

use bytes::Bytes;
use serde_json::{Value, json};
use shared::jobs::Job;

/// `answer`: the answer of one that succeeded, where it is wanted.
pub(super) fn of(job: &Job, answer: Option<&Bytes>) -> Value {
    let seconds = |ms: Option<u64>| ms.map(|ms| ms / 1_000);
    let error = job.failure.as_ref().map(
        |failure| json!({ "code": failure.code.as_str(), "message": failure.message, "param": failure.param, "type": failure.code.kind() }),
    );
    let answer: Option<Value> = answer.and_then(|answer| serde_json::from_slice(answer).ok());
    json!({
        "id": job.id,
        "object": "job",
        "endpoint": format!("/v1/{}", job.op.path()),
        "model": job.model,
        "status": job.state,
        "attempts": job.attempts,
        "created_at": job.created_ms / 1_000,
        "started_at": seconds(job.started_ms),
        "ended_at": seconds(job.ended_ms),
        "expires_at": job.deadline_ms / 1_000,
        "usage": job.usage.map(|usage| json!({ "input_tokens": usage.input, "output_tokens": usage.output })),
        "error": error,
        "result": answer,
        "redrive_of": job.redrive_of,
    })
}
