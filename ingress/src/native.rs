//! edge: what the paths share that are no calls of a model: files, batches, jobs.

use crate::exchange::{Arrival, Exchange};
use crate::gate::Gate;
use crate::{body, headers, refusal};
use axum::Extension;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::HeaderMap;
use serde::de::DeserializeOwned;
use shared::broker::BrokerError;
use shared::clock;
use shared::config::Limits;
use shared::error::{Code, Failure};
use shared::identity;
use shared::jobs::StoreError;
use std::sync::Arc;
use std::time::Duration;

/// What a handler answers.
pub(crate) type Answered = Result<Response, Refused>;

pub(crate) struct Refused(pub(crate) Failure);

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self(failure)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut response = refusal::response(&self.0);
        response.extensions_mut().insert(self.0.code); // For the access log.
        response
    }
}

/// Who calls: in the extensions of a request that [`enter`] has let in.
pub(crate) type Caller = Extension<Arc<identity::Caller>>;

/// Identifies the caller and gives the request a place among those in flight.
pub(crate) async fn enter(State(gate): State<Arc<Gate>>, mut request: Request, next: Next) -> Response {
    let arrival = request.extensions().get::<Arrival>().cloned().expect("the server stamps every request");
    let mut exchange = gate.begin(arrival, None);
    match pass(&gate, request.headers().clone(), &mut exchange).await {
        Ok(caller) => request.extensions_mut().insert(caller),
        Err(failure) => {
            let (parts, body) = request.into_parts();
            body::discard(&parts.headers, body);
            return exchange.refuse(&failure);
        }
    };
    let response = next.run(request).await;
    note_end(&mut exchange, &response);
    response
}

/// How an exchange ended, from its answer.
pub(crate) fn note_end(exchange: &mut Exchange, response: &Response) {
    match response.extensions().get::<Code>() {
        Some(code) => exchange.failed(*code),
        None => exchange.answered(),
    }
}

/// Reads a body of JSON of at most `bytes_max` bytes.
///
/// # Errors
/// Those of [`body::read`].
pub(crate) async fn body(gate: &Gate, request: Request, bytes_max: usize) -> Result<Bytes, Failure> {
    let (parts, body) = request.into_parts();
    headers::expect_json(&parts.headers)?;
    let limits = Limits { body_bytes_max: bytes_max, ..gate.config.limits.clone() };
    let deadline = clock::now() + Duration::from_millis(limits.body_timeout_ms);
    body::read(&parts.headers, body, &limits, &gate.bodies, deadline).await
}

/// # Errors
/// `invalid_json`, `invalid_value`.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|error| {
        let code = if error.is_data() { Code::InvalidValue } else { Code::InvalidJson };
        Failure::new(code, format!("The body cannot be read: {error}"))
    })
}

async fn pass(gate: &Gate, headers: HeaderMap, exchange: &mut Exchange) -> Result<Arc<identity::Caller>, Failure> {
    let caller = gate.auth.identify(&headers).await?;
    exchange.identify(Arc::clone(&caller));
    exchange.hold(gate.admission.admit(&caller.tenant.name)?);
    Ok(caller)
}

/// What a caller hears of a record that could not be read or written.
pub(crate) fn of_store(error: &StoreError) -> Failure {
    tracing::error!(%error, "a record cannot be read or written");
    match error {
        StoreError::Broker(BrokerError::Full) => full(),
        StoreError::Broker(_) => {
            Failure::new(Code::BrokerUnavailable, "The store of jobs and files does not answer: try again").retry_after_ms(1_000)
        }
        StoreError::NotFound => Failure::new(Code::NotFound, "There is no such job"),
        StoreError::Unreadable(_) => Failure::new(Code::Internal, "This record was written by another release: ask the operator"),
    }
}

/// What a caller hears of content that could not be stored.
pub(crate) fn of_broker(error: &BrokerError) -> Failure {
    if *error == BrokerError::Full {
        return full();
    }
    tracing::error!(%error, "the store did not take a file");
    Failure::new(Code::BrokerUnavailable, "The store of files does not answer: try again").retry_after_ms(1_000)
}

fn full() -> Failure {
    Failure::new(Code::QueueFull, "The store of jobs and files is full: delete files, or try again later").retry_after_ms(30_000)
}
