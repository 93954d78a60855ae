//! edge: the files that a batch writes: a part for each settled segment.

use super::publish::claim_key;
use super::segment::{Segment, Settled, row_id};
use bytes::Bytes;
use shared::broker::{Broker, BrokerError, Journal, Store};
use shared::domain::Token;
use shared::jobs::{self, Batch, Created, File, Purpose, StoreError, Written};

/// Fetches the answers that wait in the blob store. Returns their keys.
///
/// # Errors
/// `Unavailable`.
pub(super) async fn claim(broker: &dyn Broker, segment: &mut Segment) -> Result<Vec<Box<str>>, BrokerError> {
    let mut keys = Vec::new();
    for (row, key) in segment.claims() {
        if let Some(body) = broker.blob_get(Store::Files, &key).await? {
            segment.claimed(row, body);
        }
        keys.push(key);
    }
    Ok(keys)
}

/// Adds a settled segment to the batch's files and counts. Called again for the same segment, it writes the same.
///
/// # Errors
/// Those of the broker.
pub(super) async fn write(broker: &dyn Broker, batch: &mut Batch, settled: &Settled) -> Result<(), BrokerError> {
    let id = batch.id.clone();
    append(broker, &mut batch.output, || file_id(&id, "output"), &settled.output).await?;
    append(broker, &mut batch.errors, || file_id(&id, "errors"), &settled.errors).await?;
    batch.counts.completed += settled.completed;
    batch.counts.failed += settled.failed;
    batch.input_tokens += settled.input_tokens;
    batch.output_tokens += settled.output_tokens;
    Ok(())
}

async fn append(broker: &dyn Broker, file: &mut Option<Written>, id: impl Fn() -> Token, bytes: &[u8]) -> Result<(), BrokerError> {
    if bytes.is_empty() {
        return Ok(());
    }
    let file = file.get_or_insert_with(|| Written { file: id(), parts: 0, bytes: 0, lines: 0 });
    let key = File::part_key(&file.file, file.parts);
    // A driver that died, or does not know that it is none any more, may have written it, or do so still: the same bytes.
    broker.blob_put(Store::Files, &key, Bytes::copy_from_slice(bytes)).await?;
    file.parts += 1;
    file.bytes += bytes.len() as u64;
    file.lines += memchr::memchr_iter(b'\n', bytes).count() as u64;
    Ok(())
}

/// The same for whoever drives the batch.
fn file_id(batch: &Token, which: &str) -> Token {
    let hash = blake3::hash(format!("{batch}.{which}").as_bytes()).to_hex();
    Token::parse(&format!("file-{}", &hash[..32])).expect("hexadecimal digits are a token")
}

/// Lets the batch's files be seen as far as they are written: they only grow, whoever says so last.
///
/// # Errors
/// Those of the broker.
pub(super) async fn show(broker: &dyn Broker, batch: &Batch) -> Result<(), StoreError> {
    for (written, name) in [(&batch.output, "output"), (&batch.errors, "errors")] {
        let Some(Written { file, parts, bytes, lines }) = written.clone() else { continue };
        let shown = File {
            id: file,
            tenant: batch.tenant.clone(),
            name: format!("{}_{name}.jsonl", batch.id).into(),
            purpose: Purpose::BatchOutput,
            bytes,
            lines,
            parts,
            created_ms: batch.created_ms,
            expires_ms: None,
            content: None,
            fingerprint: Vec::new(),
        };
        if let Created::Known(_) = jobs::create(broker, &shown).await? {
            let grow = |file: &mut File| {
                let grows = file.parts < shown.parts;
                if grows {
                    *file = shown.clone();
                }
                grows
            };
            jobs::change(broker, &shown.tenant, &shown.id, grow).await?;
        }
    }
    Ok(())
}

/// Removes what a settled segment no longer needs. Best effort: what stays ages away.
pub(super) async fn tidy(broker: &dyn Broker, batch: &Batch, segment: &Segment, blobs: Vec<Box<str>>) {
    let erased = broker.erase(Journal::Results, &jobs::topic(&batch.id, segment.number)).await;
    let claims = segment.large.iter().map(|row| claim_key(row_id(&batch.id, segment.number, *row)));
    for key in blobs.into_iter().map(String::from).chain(claims) {
        if let Err(error) = broker.blob_delete(Store::Files, &key).await {
            tracing::debug!(%error, "a blob of a batch is left behind");
        }
    }
    if let Err(error) = erased {
        tracing::debug!(%error, "results of a batch are left behind");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use shared::broker::memory::MemoryBroker;

    #[tokio::test]
    async fn what_is_shown_of_a_file_only_grows() {
        let broker = MemoryBroker::new();
        let batch: Batch = serde_json::from_value(json!({
            "id": "batch_1", "tenant": "t", "role": "r", "op": "chat", "input": "file-1", "window": "24h", "state": "in_progress",
            "created_ms": 0, "expires_ms": 1, "counts": { "total": 0, "completed": 0, "failed": 0 }, "settled": 0,
            "cursor": { "part": 0, "offset": 0, "line": 0 },
        }))
        .unwrap();
        let id = file_id(&batch.id, "output");
        for (parts, shown) in [(1, 1), (3, 3), (2, 3)] {
            let written = Written { file: id.clone(), parts, bytes: 10, lines: 1 };
            show(broker.as_ref(), &Batch { output: Some(written), ..batch.clone() }).await.unwrap();
            let file = jobs::get::<File>(broker.as_ref(), "t", &id).await.unwrap().unwrap();
            assert_eq!(file.value.parts, shown);
        }
    }
}
