//! edge: the claim check: a body too large for a frame waits in the blob store while its envelope travels.

use crate::backoff::Backoff;
use crate::refusal;
use crate::ticket::deadline_exceeded;
use bytes::Bytes;
use shared::broker::{Broker, BrokerError, Store};
use shared::clock::{self, Time};
use shared::domain::{NodeId, RequestId};
use shared::error::Failure;
use shared::task;
use shared::wire::Claim;
use std::sync::Arc;
use tokio::time::timeout_at;

/// Bodies above this travel by claim check: two thirds of a frame, so that smaller ones still share one.
pub(crate) const CLAIM_OVER: usize = 512 * 1024;

/// A stored body, deleted when its request ends. Best effort: what is missed ages away in the store.
pub(crate) struct BlobGuard {
    broker: Arc<dyn Broker>,
    key: Box<str>,
}

/// Stores a body under a key of its request.
///
/// # Errors
/// `deadline_exceeded` when the store does not come back in time, `queue_full` or `broker_unavailable` when it refuses.
pub(crate) async fn store(
    broker: &Arc<dyn Broker>,
    ingress: &NodeId,
    id: RequestId,
    body: Bytes,
    deadline: Time,
) -> Result<(Claim, BlobGuard), Failure> {
    let key: Box<str> = format!("{ingress}.{id}").into();
    let hash = blake3::hash(&body).as_bytes().to_vec();
    let guard = BlobGuard { broker: Arc::clone(broker), key: key.clone() };
    match timeout_at(clock::instant(deadline), put(broker.as_ref(), &key, &body)).await {
        Ok(Ok(())) => Ok((Claim { key, hash, kept: false }, guard)),
        Ok(Err(error)) => Err(refusal::of_broker(&error)),
        Err(_) => Err(deadline_exceeded()),
    }
}

async fn put(broker: &dyn Broker, key: &str, body: &Bytes) -> Result<(), BrokerError> {
    let mut backoff = Backoff::new();
    loop {
        match broker.blob_put(Store::Claims, key, body.clone()).await {
            Err(BrokerError::Unavailable(_)) => backoff.pause().await,
            ended => return ended,
        }
    }
}

impl Drop for BlobGuard {
    fn drop(&mut self) {
        let (broker, key) = (Arc::clone(&self.broker), std::mem::take(&mut self.key));
        task::spawn("blob delete", async move {
            if let Err(error) = broker.blob_delete(Store::Claims, &key).await {
                tracing::debug!(%error, "a large body was left to age away");
            }
        });
    }
}
