//! edge: what is posted to this ingress, handed to its requests. Never waits for a client.

use crate::road::Road;
use bytes::Bytes;
use shared::wire::{BadFrame, ToIngress, decode};

pub(crate) fn hear(road: &Road, frame: &Bytes) {
    match messages(frame) {
        Ok(messages) => road.hear(messages),
        Err(error) => tracing::warn!(%error, "a frame in the inbox was not understood"),
    }
}

fn messages(frame: &Bytes) -> Result<Vec<(ToIngress, Bytes)>, BadFrame> {
    decode(frame)?.into_iter().map(|part| Ok((part.decode()?, part.body))).collect()
}
