//! edge: the way in: who is calling, may they now, and their body.

use crate::body;
use crate::exchange::Exchange;
use crate::gate::Gate;
use crate::headers;
use axum::extract::Request;
use bytes::Bytes;
use http::HeaderMap;
use shared::clock::Time;
use shared::error::Failure;
use std::sync::Arc;
use std::time::Duration;

/// A request that may be served.
pub(crate) struct Entered {
    pub(crate) tenant: Arc<str>,
    pub(crate) traceparent: Option<Box<str>>,
    pub(crate) deadline: Time,
    pub(crate) body: Bytes,
}

/// Lets a request in and reads its body.
///
/// # Errors
/// Those of [`crate::auth::Keys::identify`], [`crate::admission::Admission::admit`], [`headers::expect_json`],
/// [`headers::request_timeout`] and [`body::read`].
pub(crate) async fn enter(gate: &Gate, request: Request, exchange: &mut Exchange) -> Result<Entered, Failure> {
    let (parts, body) = request.into_parts();
    let (tenant, deadline) = match pass(gate, &parts.headers, exchange) {
        Ok(passed) => passed,
        Err(failure) => {
            body::discard(&parts.headers, body);
            return Err(failure);
        }
    };
    let body = body::read(&parts.headers, body, &gate.config.limits, deadline).await?;
    Ok(Entered { tenant, traceparent: headers::traceparent(&parts.headers), deadline, body })
}

/// What the headers alone decide.
fn pass(gate: &Gate, headers: &HeaderMap, exchange: &mut Exchange) -> Result<(Arc<str>, Time), Failure> {
    let index = gate.keys.identify(headers)?;
    let tenant = Arc::clone(&gate.tenants[index]);
    exchange.identify(Arc::clone(&tenant));
    headers::expect_json(headers)?;
    let timeout = headers::request_timeout(headers, Duration::from_millis(gate.config.limits.request_timeout_ms))?;
    exchange.hold(gate.admission.admit(index)?);
    Ok((tenant, exchange.began_at() + timeout))
}
