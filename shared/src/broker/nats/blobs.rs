//! edge: blobs, cut into chunks of one message each: `o.<key>.<n>` or, for files, `f.<key>.<n>`.
//!
//! In place of the client's object store: that needs a consumer of its own for every read, reads from replicas that may
//! be behind, and waits for each chunk in turn. Chunk 0 is written last and says how many there are: until then there is
//! no blob.

use super::BrokerError;
use super::fault::Fault;
use super::layout::StreamId;
use super::streams::Streams;
use crate::broker::Store;
use async_nats::jetstream::message::StreamMessage;
use async_nats::{HeaderMap, Subject};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};

/// Half of what a message may hold: a read answers in base64.
const CHUNK_BYTES_MAX: usize = 512 * 1024;

/// Chunks under way at once: enough to hide the round trip, few enough to leave the connection to others.
const AT_ONCE: usize = 4;

const CHUNKS_HEADER: &str = "Tidemill-Chunks";

fn subject(store: Store, key: &str, chunk: usize) -> Subject {
    format!("{}{key}.{chunk}", StreamId::Blobs(store).prefix()).into()
}

pub(super) async fn put(streams: &Streams, store: Store, key: &str, blob: &Bytes) -> Result<(), BrokerError> {
    let chunks = blob.len().div_ceil(CHUNK_BYTES_MAX).max(1);
    let chunk = |n: usize| blob.slice(n * CHUNK_BYTES_MAX..blob.len().min((n + 1) * CHUNK_BYTES_MAX));
    stream::iter(1..chunks)
        .map(|n| put_chunk(streams, store, subject(store, key, n), HeaderMap::new(), chunk(n)))
        .buffer_unordered(AT_ONCE)
        .try_for_each(|()| std::future::ready(Ok(())))
        .await?;
    let mut headers = HeaderMap::new();
    headers.insert(CHUNKS_HEADER, chunks.to_string());
    put_chunk(streams, store, subject(store, key, 0), headers, chunk(0)).await
}

/// Repeated without a message id: a chunk written twice replaces itself.
async fn put_chunk(streams: &Streams, store: Store, to: Subject, headers: HeaderMap, chunk: Bytes) -> Result<(), BrokerError> {
    let attempt = |_| streams.link.store(to.clone(), headers.clone(), chunk.clone());
    streams.using(StreamId::Blobs(store), Fault::may_pass, attempt).await.map(drop)
}

pub(super) async fn get(streams: &Streams, store: Store, key: &str) -> Result<Option<Bytes>, BrokerError> {
    let Some(first) = get_chunk(streams, store, subject(store, key, 0)).await? else { return Ok(None) };
    let chunks = first.headers.get(CHUNKS_HEADER).and_then(|n| n.as_str().parse().ok()).unwrap_or(1);
    if chunks == 1 {
        return Ok(Some(first.payload));
    }
    let mut rest = stream::iter(1..chunks).map(|n| get_chunk(streams, store, subject(store, key, n))).buffered(AT_ONCE);
    let mut blob = BytesMut::with_capacity(chunks * CHUNK_BYTES_MAX);
    blob.extend_from_slice(&first.payload);
    while let Some(chunk) = rest.try_next().await? {
        // A chunk that is gone means that the blob is being deleted.
        let Some(chunk) = chunk else { return Ok(None) };
        blob.extend_from_slice(&chunk.payload);
    }
    Ok(Some(blob.freeze()))
}

async fn get_chunk(streams: &Streams, store: Store, from: Subject) -> Result<Option<StreamMessage>, BrokerError> {
    let stream = StreamId::Blobs(store);
    streams.using(stream, Fault::may_pass, |_| streams.link.last(stream.name(), &from)).await
}

pub(super) async fn delete(streams: &Streams, store: Store, key: &str) -> Result<(), BrokerError> {
    let stream = StreamId::Blobs(store);
    let chunks = format!("{}{key}.*", stream.prefix());
    streams.using(stream, Fault::may_pass, |_| streams.link.purge(stream.name(), &chunks, None)).await
}
