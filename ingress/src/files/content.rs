//! edge: reading a file: part by part, for a caller or line by line for a batch.

use crate::gate::Gate;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, header};
use shared::broker::{Broker, BrokerError, Store};
use shared::domain::Token;
use shared::jobs::File;
use std::io;
use std::sync::Arc;

/// The content of a file, from the store to the caller as fast as they read.
pub(super) fn respond(gate: &Gate, file: &File) -> Response {
    let length = file.bytes;
    let reader = PartReader { broker: Arc::clone(&gate.road.broker), content: file.content().clone(), next: 0, end: file.parts };
    let parts = stream::unfold(reader, |mut reader| async move {
        match reader.next().await {
            Ok(part) => part.map(|part| (Ok(part), reader)),
            Err(error) => Some((Err(io::Error::other(error)), PartReader { next: reader.end, ..reader })),
        }
    });
    let mut response = Response::new(Body::from_stream(parts));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    response
}

/// The parts of a file, in order.
pub(crate) struct PartReader {
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) content: Token,
    pub(crate) next: u32,
    pub(crate) end: u32,
}

impl PartReader {
    /// # Errors
    /// `Unavailable`; `Gone` when a part is not there.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, BrokerError> {
        if self.next >= self.end {
            return Ok(None);
        }
        let part = self.broker.blob_get(Store::Files, &File::part_key(&self.content, self.next)).await?;
        self.next += 1;
        part.ok_or(BrokerError::Gone).map(Some)
    }
}
