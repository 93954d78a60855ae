//! edge: the way through a nats-server that Tidemill's design prescribes for an interactive request, and nothing besides:
//! published to a work queue in memory and confirmed; pulled; dispatched to a worker, accepted, and acked for it; the answer
//! straight to the asker's inbox. One process plays all three roles, as `tidemill up` does.
//!
//! A message is the request's number and the path on one line, then the body.

use super::{Backend, Failed};
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::stream::{self, RetentionPolicy, StorageType};
use async_nats::jetstream::{self, Context};
use async_nats::{Client, Message, Subscriber};
use bytes::Bytes;
use futures::StreamExt;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

const STREAM: &str = "RELAY";
const LANE: &str = "relay.lane";
const WORKER: &str = "relay.worker";
const INBOX: &str = "relay.inbox";

/// Longer than a line of a number and a path may be.
const HEAD_BYTES: usize = 64;

#[derive(Debug, thiserror::Error)]
#[error("the nats-server does not allow it: {0}")]
pub struct LaneError(#[source] Failed);

/// The asker's side. The other roles run as long as it does.
pub struct Lane {
    context: Context,
    next: AtomicU64,
    waiting: Arc<Waiting>,
    _roles: JoinSet<()>,
}

/// Who waits for the answer of which number: as many as callers ask at once.
#[derive(Default)]
struct Waiting(Mutex<HashMap<u64, oneshot::Sender<Bytes>>>);

impl Lane {
    pub(super) async fn open(url: &str, backend: Backend) -> Result<Self, LaneError> {
        Self::start(url, backend).await.map_err(LaneError)
    }

    async fn start(url: &str, backend: Backend) -> Result<Self, Failed> {
        let client = async_nats::connect(url).await?;
        let context = jetstream::new(client.clone());
        let pulled = consumer(&context).await?.messages().await?;
        let (inbox, worker) = (client.subscribe(INBOX).await?, client.subscribe(WORKER).await?);
        client.flush().await?;
        let waiting = Arc::new(Waiting::default());
        let mut roles = JoinSet::new();
        roles.spawn(hear(inbox, Arc::clone(&waiting)));
        roles.spawn(schedule(pulled, client.clone()));
        roles.spawn(work(worker, client, backend));
        Ok(Self { context, next: AtomicU64::new(0), waiting, _roles: roles })
    }

    pub(super) async fn ask(&self, path: &str, body: &[u8]) -> Result<Bytes, Failed> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        self.waiting.lock().insert(number, answer);
        let stored = self.context.publish(LANE, message(&format!("{number} {path}"), body)).await?;
        let (stored, answered) = tokio::join!(stored, answered);
        stored?;
        Ok(answered?)
    }
}

async fn consumer(context: &Context) -> Result<PullConsumer, Failed> {
    let stream = stream::Config {
        name: STREAM.into(),
        subjects: vec![LANE.into()],
        storage: StorageType::Memory,
        retention: RetentionPolicy::WorkQueue,
        ..Default::default()
    };
    let consumer = pull::Config { durable_name: Some(STREAM.into()), ack_policy: AckPolicy::Explicit, ..Default::default() };
    Ok(context.create_stream(stream).await?.create_consumer(consumer).await?)
}

/// The scheduler: dispatches what it pulls, and acks what was accepted.
async fn schedule(mut pulled: pull::Stream, client: Client) {
    let mut dispatches = JoinSet::new();
    while let Some(Ok(message)) = pulled.next().await {
        while dispatches.try_join_next().is_some() {}
        let client = client.clone();
        dispatches.spawn(async move {
            if client.request(WORKER, message.payload.clone()).await.is_ok() {
                let _ = message.ack().await;
            }
        });
    }
}

/// The worker: accepts, calls, answers.
async fn work(mut dispatched: Subscriber, client: Client, backend: Backend) {
    let mut calls = JoinSet::new();
    while let Some(message) = dispatched.next().await {
        while calls.try_join_next().is_some() {}
        calls.spawn(call(message, client.clone(), backend.clone()));
    }
}

/// A call that fails leaves its asker waiting: the measurement fails for want of an answer.
async fn call(dispatch: Message, client: Client, backend: Backend) {
    if let Some(accept) = dispatch.reply {
        let _ = client.publish(accept, Bytes::new()).await;
    }
    let Some((number, path, body)) = parts(&dispatch.payload) else { return };
    if let Ok(answer) = backend.ask(path, body).await {
        let _ = client.publish(INBOX, message(&format!("{number} {path}"), &answer)).await;
    }
}

/// The asker's inbox.
async fn hear(mut inbox: Subscriber, waiting: Arc<Waiting>) {
    while let Some(message) = inbox.next().await {
        if let Some((number, _, body)) = parts(&message.payload)
            && let Some(waits) = waiting.lock().remove(&number)
        {
            let _ = waits.send(body);
        }
    }
}

fn message(head: &str, body: &[u8]) -> Bytes {
    [head.as_bytes(), b"\n", body].concat().into()
}

fn parts(message: &Bytes) -> Option<(u64, &str, Bytes)> {
    let end = message.iter().take(HEAD_BYTES).position(|byte| *byte == b'\n')?;
    let (number, path) = std::str::from_utf8(&message[..end]).ok()?.split_once(' ')?;
    Some((number.parse().ok()?, path, message.slice(end + 1..)))
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Bytes>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_apart_as_it_was_put_together() {
        let whole = message("7 /v1/embeddings", b"{\n}");
        assert_eq!(parts(&whole), Some((7, "/v1/embeddings", Bytes::from_static(b"{\n}"))));
        assert_eq!(parts(&Bytes::from_static(b"no number\n")), None);
    }
}
