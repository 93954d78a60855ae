//! core: which items of a dispatch begin here: what is new enters the table, what already runs here is joined.

use crate::run::Job;
use crate::table::{CallId, Entry, Report, Table};
use bytes::Bytes;
use shared::clock::Time;
use shared::domain::ExecId;
use shared::wire::{Dispatch, DispatchItem, Envelope, Part, RefuseReason};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What begins of a dispatch whose items' bodies lie end to end in `body`. `mint` names each execution. Of a call at a backend of
/// `concurrency` nothing begins while as many run.
///
/// # Errors
/// Why the whole dispatch is refused.
pub fn accept(
    table: &mut Table,
    dispatch: &Dispatch,
    body: &Bytes,
    concurrency: u32,
    now: Time,
    mut mint: impl FnMut() -> ExecId,
) -> Result<Vec<Job>, RefuseReason> {
    let all_run_here = dispatch.items.iter().all(|item| table.is_running(item.id));
    if !all_run_here {
        table.admit(&dispatch.model, dispatch.revision, &dispatch.backend, concurrency)?;
    }
    let call = table.begin_call(&dispatch.model, &dispatch.backend);
    let mut jobs = Vec::with_capacity(dispatch.items.len());
    let mut at = 0;
    for item in &dispatch.items {
        let end = (at + item.body_len as usize).min(body.len());
        let report = Report { scheduler: dispatch.scheduler.clone(), batch: dispatch.batch };
        if !table.join(item.id, report.clone())
            && let Some(job) = unpack(item, body.slice(at..end), now, &mut mint)
        {
            table.start(job.id, entry(dispatch, &job, call, report, now));
            jobs.push(job);
        }
        at = end;
    }
    table.drop_if_empty(call);
    Ok(jobs)
}

fn unpack(item: &DispatchItem, body: Bytes, now: Time, mint: impl FnOnce() -> ExecId) -> Option<Job> {
    let envelope: Envelope = match (Part { head: item.envelope.clone(), body: Bytes::new() }).decode() {
        Ok(envelope) => envelope,
        Err(error) => {
            tracing::error!(%error, "a request cannot be read and is dropped"); // The scheduler read the same bytes.
            return None;
        }
    };
    Some(Job {
        id: item.id,
        exec: mint(),
        envelope: Arc::new(envelope),
        body,
        queue_ms: item.queue_ms,
        again: item.again,
        standing: item.standing.clone(),
        deadline: now + Duration::from_millis(u64::from(item.remaining_ms)),
        cancel: CancellationToken::new(),
    })
}

fn entry(dispatch: &Dispatch, job: &Job, call: CallId, report: Report, now: Time) -> Entry {
    Entry {
        exec: job.exec,
        model: dispatch.model.clone(),
        lane: job.envelope.lane,
        call: Some(call),
        ingress: job.envelope.ingress.clone(),
        since: now,
        published: now.saturating_sub(Duration::from_millis(job.queue_ms.into())),
        begun: false,
        cancel: job.cancel.clone(),
        reports: vec![report],
    }
}
