//! core: a job as its owner sees it.

use crate::forecasts::Standing;
use bytes::Bytes;
use serde_json::{Value, json};
use shared::jobs::Job;

/// `answer`: the answer of one that succeeded, where it is wanted. `standing`: that of one that waits, where it is known.
pub(super) fn of(job: &Job, answer: Option<&Bytes>, standing: Option<Standing>) -> Value {
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
        "position": standing.map(|standing| standing.position),
        "attempts": job.attempts,
        "created_at": job.created_ms / 1_000,
        "estimated_start_at": seconds(standing.and_then(|standing| standing.start_ms)),
        "started_at": seconds(job.started_ms),
        "ended_at": seconds(job.ended_ms),
        "expires_at": job.deadline_ms / 1_000,
        "usage": job.usage.map(|usage| json!({ "input_tokens": usage.input, "output_tokens": usage.output })),
        "error": error,
        "result": answer,
        "redrive_of": job.redrive_of,
    })
}
