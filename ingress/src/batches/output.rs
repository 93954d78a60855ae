//! edge: the files that a batch writes: for each settled segment a part, or several where answers are large.

use super::publish::claim_key;
use super::segment::{Segment, Settled, row_id};
use bytes::Bytes;
use shared::broker::{Broker, BrokerError, Journal, Store};
use shared::domain::Token;
use shared::jobs::{self, Batch, Created, File, PART_BYTES, Purpose, StoreError, Stored, Written};

/// Adds a settled segment to the batch's files and counts. Called again for the same segment, it writes the same. Of answers that wait
/// in the blob store it holds one at a time, and a part.
///
/// # Errors
/// `Conflict` when an answer is gone because another drives the batch; those of the broker.
pub(super) async fn write(broker: &dyn Broker, batch: &mut Batch, segment: &Segment) -> Result<(), StoreError> {
    let mut settled = Settled::default();
    for (row, outcome, body) in segment.settled() {
        match &outcome.blob {
            Some(key) => settled.add(row, outcome, &answer(broker, batch, key).await?),
            None => settled.add(row, outcome, body),
        }
        if settled.output.len() >= PART_BYTES {
            append(broker, &batch.id, "output", &mut batch.output, std::mem::take(&mut settled.output)).await?;
        }
    }
    append(broker, &batch.id, "output", &mut batch.output, settled.output).await?;
    append(broker, &batch.id, "errors", &mut batch.errors, settled.errors).await?;
    batch.counts.completed += settled.completed;
    batch.counts.failed += settled.failed;
    batch.input_tokens += settled.input_tokens;
    batch.output_tokens += settled.output_tokens;
    Ok(())
}

/// An answer that waits in the blob store; nothing where it is lost. Whoever drives the batch now may have written it and removed it.
async fn answer(broker: &dyn Broker, batch: &Batch, key: &str) -> Result<Bytes, StoreError> {
    if let Some(answer) = broker.blob_get(Store::Files, key).await? {
        return Ok(answer);
    }
    let stored: Option<Stored<Batch>> = jobs::get(broker, &batch.tenant, &batch.id).await?;
    if stored.ok_or(StoreError::NotFound)?.value.driver != batch.driver {
        return Err(BrokerError::Conflict.into());
    }
    tracing::error!(batch = %batch.id, "an answer is not in the store any more");
    Ok(Bytes::new())
}

async fn append(broker: &dyn Broker, batch: &Token, which: &str, file: &mut Option<Written>, bytes: Vec<u8>) -> Result<(), BrokerError> {
    if bytes.is_empty() {
        return Ok(());
    }
    let file = file.get_or_insert_with(|| Written { file: file_id(batch, which), parts: 0, bytes: 0, lines: 0 });
    let key = File::part_key(&file.file, file.parts);
    let (length, lines) = (bytes.len() as u64, memchr::memchr_iter(b'\n', &bytes).count() as u64);
    // A driver that died, or does not know that it is none any more, may have written it, or do so still: the same bytes.
    broker.blob_put(Store::Files, &key, bytes.into()).await?;
    (file.parts, file.bytes, file.lines) = (file.parts + 1, file.bytes + length, file.lines + lines);
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
pub(super) async fn tidy(broker: &dyn Broker, batch: &Batch, segment: &Segment) {
    let erased = broker.erase(Journal::Results, &jobs::topic(&batch.id, segment.number), None).await;
    let claims = segment.large.iter().map(|row| claim_key(row_id(&batch.id, segment.number, *row)));
    let answers = segment.settled().filter_map(|(_, outcome, _)| Some(String::from(outcome.blob.clone()?)));
    for key in answers.chain(claims) {
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
    use crate::batches::segment::Row;
    use serde_json::json;
    use shared::broker::memory::MemoryBroker;
    use shared::clock::Time;
    use shared::entropy;
    use shared::jobs::{Cursor, Outcome};
    use shared::wire::Usage;

    fn batch() -> Batch {
        let batch = json!({
            "id": "batch_1", "tenant": "t", "role": "r", "op": "chat", "input": "file-1", "window": "24h", "state": "in_progress",
            "created_ms": 0, "expires_ms": 1, "counts": { "total": 0, "completed": 0, "failed": 0 }, "settled": 0,
            "cursor": { "part": 0, "offset": 0, "line": 0 },
        });
        serde_json::from_value(batch).unwrap()
    }

    #[tokio::test]
    async fn large_answers_make_several_parts() {
        let (broker, mut batch) = (MemoryBroker::new(), batch());
        let rows = (0..3).map(|line| Row { custom_id: None, line }).collect();
        let mut segment = Segment::new(0, (Cursor::default(), Cursor::default()), rows, Vec::new(), Time::ZERO);
        let answer = format!("\"{}\"", "x".repeat(PART_BYTES * 2 / 3));
        for row in 0..3 {
            let (id, blob) = (row_id(&batch.id, 0, row), format!("result.{row}"));
            broker.blob_put(Store::Files, &blob, answer.clone().into()).await.unwrap();
            let (exec, blob) = (Some(entropy::exec_id()), Some(blob.into()));
            segment.hear(Outcome { row, id, exec, failure: None, usage: Usage::default(), blob }, "".into(), Time::ZERO);
        }
        write(broker.as_ref(), &mut batch, &segment).await.unwrap();
        let written = batch.output.clone().unwrap();
        assert_eq!((written.parts, written.lines, batch.counts.completed), (2, 3, 3));
        let parts = [0, 1].map(|part| File::part_key(&written.file, part));
        let mut bytes = 0;
        for part in parts {
            bytes += broker.blob_get(Store::Files, &part).await.unwrap().unwrap().len() as u64;
        }
        assert_eq!(bytes, written.bytes);
        tidy(broker.as_ref(), &batch, &segment).await;
        assert_eq!(broker.blob_get(Store::Files, "result.0").await.unwrap(), None);
    }

    #[tokio::test]
    async fn an_answer_that_is_gone_is_malformed_only_for_who_drives_the_batch() {
        let (broker, rows) = (MemoryBroker::new(), vec![Row { custom_id: None, line: 1 }]);
        let mut current = Batch { driver: 9, ..batch() };
        jobs::create(broker.as_ref(), &current).await.unwrap();
        let mut segment = Segment::new(0, (Cursor::default(), Cursor::default()), rows, Vec::new(), Time::ZERO);
        let (id, exec, blob) = (row_id(&current.id, 0, 0), Some(entropy::exec_id()), Some("result.0".into()));
        segment.hear(Outcome { row: 0, id, exec, failure: None, usage: Usage::default(), blob }, "".into(), Time::ZERO);
        let mut overtaken = Batch { driver: 7, ..batch() };
        let refused = write(broker.as_ref(), &mut overtaken, &segment).await;
        assert!(matches!(refused, Err(StoreError::Broker(BrokerError::Conflict))), "{refused:?}");
        assert_eq!(overtaken, Batch { driver: 7, ..batch() }, "nothing is written");
        write(broker.as_ref(), &mut current, &segment).await.unwrap();
        assert_eq!((current.counts.failed, current.output), (1, None));
    }

    #[tokio::test]
    async fn what_is_shown_of_a_file_only_grows() {
        let (broker, batch) = (MemoryBroker::new(), batch());
        let id = file_id(&batch.id, "output");
        for (parts, shown) in [(1, 1), (3, 3), (2, 3)] {
            let written = Written { file: id.clone(), parts, bytes: 10, lines: 1 };
            show(broker.as_ref(), &Batch { output: Some(written), ..batch.clone() }).await.unwrap();
            let file = jobs::get::<File>(broker.as_ref(), "t", &id).await.unwrap().unwrap();
            assert_eq!(file.value.parts, shown);
        }
    }
}
