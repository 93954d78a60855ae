//! edge: records with compare-and-set, in a stream of the shape that NATS's tools know as a key-value bucket.
//!
//! The bucket is not made through the client's key-value calls: they allow direct reads, which any replica may answer
//! from the past.

use super::fault::Fault;
use super::layout::StreamId;
use super::streams::Streams;
use crate::broker::{BrokerError, Bucket, Record};
use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use async_nats::jetstream::message::StreamMessage;
use async_nats::{HeaderMap, Subject};
use bytes::Bytes;

/// The mark of a deleted record, as the key-value tools write it.
const OPERATION_HEADER: &str = "KV-Operation";
const DELETED: &str = "DEL";

fn subject(bucket: Bucket, key: &str) -> Subject {
    format!("{}{key}", StreamId::Bucket(bucket).prefix()).into()
}

pub(super) async fn create(streams: &Streams, bucket: Bucket, key: &str, value: Bytes) -> Result<u64, BrokerError> {
    match write(streams, bucket, key, HeaderMap::new(), value.clone(), 0).await {
        Err(BrokerError::Conflict) => create_over_deleted(streams, bucket, key, value).await,
        written => written,
    }
}

/// The mark of a deleted record is a message of its own: what replaces it must expect it.
async fn create_over_deleted(streams: &Streams, bucket: Bucket, key: &str, value: Bytes) -> Result<u64, BrokerError> {
    match last(streams, bucket, key).await? {
        Some(mark) if is_deleted(&mark) => write(streams, bucket, key, HeaderMap::new(), value, mark.sequence).await,
        Some(_) => Err(BrokerError::Conflict),
        // It expired between the two questions.
        None => write(streams, bucket, key, HeaderMap::new(), value, 0).await,
    }
}

pub(super) async fn update(streams: &Streams, bucket: Bucket, key: &str, value: Bytes, revision: u64) -> Result<u64, BrokerError> {
    // 0 would mean "must not exist" to the server.
    if revision == 0 {
        return Err(BrokerError::Conflict);
    }
    write(streams, bucket, key, HeaderMap::new(), value, revision).await
}

pub(super) async fn delete(streams: &Streams, bucket: Bucket, key: &str, revision: u64) -> Result<(), BrokerError> {
    if revision == 0 {
        return Err(BrokerError::Conflict);
    }
    let mut headers = HeaderMap::new();
    headers.insert(OPERATION_HEADER, DELETED);
    let mark = write(streams, bucket, key, headers, Bytes::new(), revision).await?;
    if bucket.forgets() {
        let (stream, subject) = (StreamId::Bucket(bucket), subject(bucket, key));
        let purged = streams.using(stream, Fault::may_pass, |_| streams.link.purge(stream.name(), &subject, Some(mark + 1))).await;
        if let Err(error) = purged {
            tracing::debug!(%error, "the mark of a deleted record stays");
        }
    }
    Ok(())
}

pub(super) async fn get(streams: &Streams, bucket: Bucket, key: &str) -> Result<Option<Record>, BrokerError> {
    let last = last(streams, bucket, key).await?.filter(|message| !is_deleted(message));
    Ok(last.map(|message| Record { value: message.payload, revision: message.sequence }))
}

/// Writes if the key's last write is `expected`. Not repeated when no answer came: the second try would meet the first.
async fn write(
    streams: &Streams,
    bucket: Bucket,
    key: &str,
    mut headers: HeaderMap,
    value: Bytes,
    expected: u64,
) -> Result<u64, BrokerError> {
    headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, expected.to_string());
    let subject = subject(bucket, key);
    let attempt = |_| streams.link.store(subject.clone(), headers.clone(), value.clone());
    Ok(streams.using(StreamId::Bucket(bucket), Fault::left_no_trace, attempt).await?.sequence)
}

async fn last(streams: &Streams, bucket: Bucket, key: &str) -> Result<Option<StreamMessage>, BrokerError> {
    let (stream, subject) = (StreamId::Bucket(bucket), subject(bucket, key));
    streams.using(stream, Fault::may_pass, |_| streams.link.last(stream.name(), &subject)).await
}

fn is_deleted(message: &StreamMessage) -> bool {
    marks_deletion(&message.headers)
}

pub(super) fn marks_deletion(headers: &HeaderMap) -> bool {
    headers.get(OPERATION_HEADER).is_some_and(|operation| operation.as_str() == DELETED)
}
