//! edge: the way in: who is calling, may they now, and their body.

use crate::body;
use crate::exchange::Exchange;
use crate::gate::Gate;
use crate::headers;
use crate::jobs::Errand;
use axum::extract::Request;
use bytes::Bytes;
use http::HeaderMap;
use shared::clock::Time;
use shared::domain::{Lane, Operation};
use shared::error::Failure;
use shared::identity::Caller;
use std::sync::Arc;
use std::time::Duration;

/// A request that may be served.
pub(crate) struct Entered {
    pub(crate) caller: Arc<Caller>,
    pub(crate) traceparent: Option<Box<str>>,
    pub(crate) deadline: Time,
    /// `None`: they wait for the answer here and now.
    pub(crate) errand: Option<Errand>,
    pub(crate) body: Bytes,
}

/// Lets a request in and reads its body.
///
/// # Errors
/// Those of [`crate::auth::Auth::identify`], [`Caller::may_call`], [`crate::admission::Admission::admit`], [`headers::expect_json`],
/// [`headers::request_timeout`] and [`body::read`].
pub(crate) async fn enter(gate: &Gate, request: Request, exchange: &mut Exchange) -> Result<Entered, Failure> {
    let (parts, body) = request.into_parts();
    let Passed { caller, deadline, errand } = match pass(gate, &parts.headers, exchange).await {
        Ok(passed) => passed,
        Err(failure) => {
            body::discard(&parts.headers, body);
            return Err(failure);
        }
    };
    let body = body::read(&parts.headers, body, &gate.config.limits, &gate.bodies, deadline).await?;
    Ok(Entered { caller, traceparent: headers::traceparent(&parts.headers), deadline, errand, body })
}

/// The lane of a request.
pub(crate) fn lane(errand: Option<&Errand>) -> Lane {
    if errand.is_some() { Lane::Async } else { Lane::Interactive }
}

/// Whether they may call it in either lane: the body says in which.
fn may_call_sometime(caller: &Caller, op: Operation) -> Result<(), Failure> {
    caller.may_call(op, Lane::Interactive).or_else(|refused| caller.may_call(op, Lane::Async).map_err(|_| refused))
}

/// A caller who may send a body.
struct Passed {
    caller: Arc<Caller>,
    deadline: Time,
    errand: Option<Errand>,
}

/// What the headers alone decide.
async fn pass(gate: &Gate, headers: &HeaderMap, exchange: &mut Exchange) -> Result<Passed, Failure> {
    let caller = gate.auth.identify(headers).await?;
    exchange.identify(Arc::clone(&caller));
    let errand = Errand::read(headers)?;
    match exchange.op() {
        Some(op @ Operation::Responses) if errand.is_none() => may_call_sometime(&caller, op)?,
        Some(op) => caller.may_call(op, lane(errand.as_ref()))?,
        None => {}
    }
    headers::expect_json(headers)?;
    let timeout = headers::request_timeout(headers, Duration::from_millis(gate.config.limits.request_timeout_ms))?;
    exchange.hold(gate.admission.admit(&caller.tenant.name)?);
    Ok(Passed { caller, deadline: exchange.began_at() + timeout, errand })
}
