//! edge: the way in: who is calling, may they now, and their body.

use crate::body;
use crate::exchange::Exchange;
use crate::gate::Gate;
use crate::headers;
use axum::extract::Request;
use bytes::Bytes;
use http::HeaderMap;
use shared::clock::Time;
use shared::domain::Lane;
use shared::error::Failure;
use shared::identity::Caller;
use std::sync::Arc;
use std::time::Duration;

/// A request that may be served.
pub(crate) struct Entered {
    pub(crate) caller: Arc<Caller>,
    pub(crate) traceparent: Option<Box<str>>,
    pub(crate) deadline: Time,
    pub(crate) body: Bytes,
}

/// Lets a request in and reads its body.
///
/// # Errors
/// Those of [`crate::auth::Auth::identify`], [`Caller::may_call`], [`crate::admission::Admission::admit`], [`headers::expect_json`],
/// [`headers::request_timeout`] and [`body::read`].
pub(crate) async fn enter(gate: &Gate, request: Request, exchange: &mut Exchange) -> Result<Entered, Failure> {
    let (parts, body) = request.into_parts();
    let (caller, deadline) = match pass(gate, &parts.headers, exchange).await {
        Ok(passed) => passed,
        Err(failure) => {
            body::discard(&parts.headers, body);
            return Err(failure);
        }
    };
    let body = body::read(&parts.headers, body, &gate.config.limits, deadline).await?;
    Ok(Entered { caller, traceparent: headers::traceparent(&parts.headers), deadline, body })
}

/// What the headers alone decide.
async fn pass(gate: &Gate, headers: &HeaderMap, exchange: &mut Exchange) -> Result<(Arc<Caller>, Time), Failure> {
    let caller = gate.auth.identify(headers).await?;
    exchange.identify(Arc::clone(&caller));
    if let Some(op) = exchange.op() {
        caller.may_call(op, Lane::Interactive)?;
    }
    headers::expect_json(headers)?;
    let timeout = headers::request_timeout(headers, Duration::from_millis(gate.config.limits.request_timeout_ms))?;
    exchange.hold(gate.admission.admit(&caller.tenant.name)?);
    Ok((caller, exchange.began_at() + timeout))
}
