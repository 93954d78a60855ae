//! edge: fetches the body of a request that was too large for a frame, and checks that it is the one that was left.

use bytes::Bytes;
use shared::broker::{Broker, Store};
use shared::error::{Code, Failure};
use shared::wire::Envelope;

/// The request's body: as it came, or from the blob store by its claim check.
///
/// # Errors
/// `broker_unavailable` when it cannot be read now, `lost` when it is gone or not the one that was left.
pub(super) async fn body(broker: &dyn Broker, envelope: &Envelope, inline: &Bytes) -> Result<Bytes, Failure> {
    let Some(claim) = &envelope.claim else { return Ok(inline.clone()) };
    let store = if claim.kept { Store::Files } else { Store::Claims };
    let blob = broker.blob_get(store, &claim.key).await.map_err(|error| {
        tracing::warn!(%error, request = %envelope.id, "a claimed body cannot be read");
        Failure::new(Code::BrokerUnavailable, "The request's body could not be read back from the queue's store; try again.")
            .retry_after_ms(1_000)
    })?;
    let blob = blob.filter(|blob| blake3::hash(blob).as_bytes()[..] == claim.hash[..]);
    blob.ok_or_else(|| Failure::new(Code::Lost, "The request's body was lost on its way to the worker; send the request again."))
}
