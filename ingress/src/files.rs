//! edge: `/v1/files`: a caller's files, in OpenAI's shape. Their records are the broker's, their content lies in its blob store in
//! parts, and neither is ever whole in memory.

mod content;
mod upload;
mod writer;

pub(crate) use content::PartReader;
pub(crate) use writer::FileWriter;

use crate::gate::Gate;
use crate::listing::{Page, Paging};
use crate::native::{self, Answered};
use axum::extract::{Path, Request, State};
use axum::response::IntoResponse;
use axum::{Extension, Json};
use serde::Serialize;
use serde_json::json;
use shared::broker::{Broker, Store};
use shared::clock;
use shared::domain::Token;
use shared::error::{Code, Failure};
use shared::jobs::{self, Batch, File, StoreError};
use std::sync::Arc;

/// Files of one tenant.
pub(crate) const FILES_MAX: usize = 10_000;

/// A file as its owner sees it.
#[derive(Serialize)]
pub(crate) struct FileObject<'a> {
    id: &'a Token,
    object: &'static str,
    bytes: u64,
    created_at: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<u64>,
    filename: &'a str,
    purpose: &'static str,
    status: &'static str,
}

impl<'a> FileObject<'a> {
    fn of(file: &'a File) -> Self {
        Self {
            id: &file.id,
            object: "file",
            bytes: file.bytes,
            created_at: file.created_ms / 1_000,
            expires_at: file.expires_ms.map(|ms| ms / 1_000),
            filename: &file.name,
            purpose: file.purpose.as_str(),
            status: "processed",
        }
    }
}

pub(crate) async fn create(State(gate): State<Arc<Gate>>, Extension(caller): native::Caller, request: Request) -> Answered {
    let file = upload::receive(&gate, &caller, request).await?;
    Ok(Json(FileObject::of(&file)).into_response())
}

pub(crate) async fn list(State(gate): State<Arc<Gate>>, Extension(caller): native::Caller, request: Request) -> Answered {
    let (paging, query) = Paging::read(&request, &["purpose"])?;
    let mut files = all(&gate, &caller.tenant.name).await?;
    files.retain(|file| !is_expired(file) && query.text("purpose").is_none_or(|purpose| purpose == file.purpose.as_str()));
    let page = Page::cut(files, &paging, |file| (file.created_ms, file.id.clone()))?;
    Ok(page.respond(|file| serde_json::to_value(FileObject::of(file))))
}

pub(crate) async fn one(State(gate): State<Arc<Gate>>, Extension(caller): native::Caller, Path(id): Path<String>) -> Answered {
    let file = find(&gate, &caller.tenant.name, &id).await?;
    Ok(Json(FileObject::of(&file)).into_response())
}

pub(crate) async fn content(State(gate): State<Arc<Gate>>, Extension(caller): native::Caller, Path(id): Path<String>) -> Answered {
    let file = find(&gate, &caller.tenant.name, &id).await?;
    Ok(content::respond(&gate, &file))
}

pub(crate) async fn delete(State(gate): State<Arc<Gate>>, Extension(caller): native::Caller, Path(id): Path<String>) -> Answered {
    let file = find(&gate, &caller.tenant.name, &id).await?;
    remove(gate.broker(), &file).await?;
    Ok(Json(json!({ "id": file.id, "object": "file", "deleted": true })).into_response())
}

/// A caller's file.
///
/// # Errors
/// `not_found`, also for the files of others.
pub(crate) async fn find(gate: &Gate, tenant: &str, id: &str) -> Result<File, Failure> {
    let id = Token::parse(id).map_err(|_| not_found())?;
    let file = jobs::get::<File>(gate.broker(), tenant, &id).await.map_err(|error| native::of_store(&error))?;
    file.map(|stored| stored.value).filter(|file| !is_expired(file)).ok_or_else(not_found)
}

async fn all(gate: &Gate, tenant: &str) -> Result<Vec<File>, Failure> {
    let files = jobs::all::<File>(gate.broker(), tenant).await.map_err(|error| native::of_store(&error))?;
    Ok(files.into_iter().map(|stored| stored.value).collect())
}

/// Deletes a file that its owner does not want any more.
///
/// # Errors
/// `conflict` while a batch reads it.
async fn remove(broker: &dyn Broker, file: &File) -> Result<(), Failure> {
    if is_read(broker, file).await.map_err(|error| native::of_store(&error))? {
        return Err(Failure::new(Code::Conflict, "A batch that has not ended reads this file: wait for its end, or cancel it"));
    }
    delete_whole(broker, file).await.map_err(|error| native::of_store(&error))
}

/// Whether a batch that has not ended reads a file.
async fn is_read(broker: &dyn Broker, file: &File) -> Result<bool, StoreError> {
    let batches = jobs::all::<Batch>(broker, &file.tenant).await?;
    Ok(batches.iter().any(|batch| !batch.value.state.is_terminal() && batch.value.input == file.id))
}

/// Deletes a file: first its record, so that nobody finds half of it, then its parts.
///
/// # Errors
/// Those of the broker.
pub(crate) async fn delete_whole(broker: &dyn Broker, file: &File) -> Result<(), StoreError> {
    jobs::delete::<File>(broker, &file.tenant, &file.id).await?;
    for part in 0..file.parts {
        broker.blob_delete(Store::Files, &File::part_key(file.content(), part)).await?;
    }
    Ok(())
}

fn is_expired(file: &File) -> bool {
    file.expires_ms.is_some_and(|at| at <= clock::unix_ms())
}

fn not_found() -> Failure {
    Failure::new(Code::NotFound, "There is no such file: see GET /v1/files")
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::broker::memory::MemoryBroker;
    use shared::jobs::BatchState;

    fn file() -> File {
        let file = json!({
            "id": "file-1", "tenant": "t", "name": "f", "purpose": "batch", "bytes": 0, "lines": 0, "parts": 0, "created_ms": 0,
        });
        serde_json::from_value(file).unwrap()
    }

    fn batch(id: &str, input: &str) -> Batch {
        let batch = json!({
            "id": id, "tenant": "t", "role": "r", "op": "chat", "input": input, "window": "24h", "state": "in_progress",
            "created_ms": 0, "expires_ms": 1, "counts": { "total": 0, "completed": 0, "failed": 0 }, "settled": 0,
            "cursor": { "part": 0, "offset": 0, "line": 0 },
        });
        serde_json::from_value(batch).unwrap()
    }

    #[tokio::test]
    async fn a_file_stays_until_no_batch_reads_it() {
        let (broker, file, reader) = (MemoryBroker::new(), file(), batch("batch_1", "file-1"));
        jobs::create(broker.as_ref(), &file).await.unwrap();
        for batch in [&reader, &batch("batch_2", "file-2")] {
            jobs::create(broker.as_ref(), batch).await.unwrap();
        }
        assert_eq!(remove(broker.as_ref(), &file).await.unwrap_err().code, Code::Conflict);
        assert!(jobs::get::<File>(broker.as_ref(), "t", &file.id).await.unwrap().is_some());
        let end = |batch: &mut Batch| {
            batch.state = BatchState::Completed;
            true
        };
        jobs::change(broker.as_ref(), "t", &reader.id, end).await.unwrap();
        assert_eq!(remove(broker.as_ref(), &file).await, Ok(()));
        assert!(jobs::get::<File>(broker.as_ref(), "t", &file.id).await.unwrap().is_none());
    }
}
