//! loop: reads this ingress's inbox and hands every message to its request. It never waits for a client.

use crate::road::Road;
use bytes::Bytes;
use shared::broker::Inbox;
use shared::wire::{BadFrame, ToIngress, decode};
use std::sync::Arc;

/// Reads until the broker connection is closed for good.
pub(crate) async fn run(road: Arc<Road>, mut inbox: Box<dyn Inbox>) {
    while let Some(frame) = inbox.next().await {
        match messages(&frame) {
            Ok(messages) => road.hear(messages),
            Err(error) => tracing::warn!(%error, "a frame in the inbox was not understood"),
        }
        // The callers whose parts have just come go first: a burst would otherwise look like callers that do not read.
        tokio::task::yield_now().await;
    }
    tracing::error!("the inbox is closed: no answer can arrive any more");
}

fn messages(frame: &Bytes) -> Result<Vec<(ToIngress, Bytes)>, BadFrame> {
    decode(frame)?.into_iter().map(|part| Ok((part.decode()?, part.body))).collect()
}
