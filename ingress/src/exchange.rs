//! edge: one HTTP exchange, from its headers to the last byte of its answer. However it ends, its drop frees its place,
//! counts it and writes its one line of the access log: never a body, never a key.

use crate::admission::Permit;
use crate::metrics::Metrics;
use crate::refusal;
use axum::response::Response;
use http::HeaderValue;
use shared::clock::{self, Time, millis};
use shared::domain::{Lane, Operation, RequestId};
use shared::error::{Code, Failure};
use shared::identity::Caller;
use shared::wire::ReplyHead;
use std::net::SocketAddr;
use std::sync::Arc;

/// A request's name and the moment it came. Put into its extensions before anything else looks at it.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) id: RequestId,
    /// The `x-request-id` of its answer: the caller's own, or ours.
    pub(crate) shown: HeaderValue,
    pub(crate) at: Time,
    /// Who has connected: the caller, or a proxy before us.
    pub(crate) peer: SocketAddr,
}

/// How an exchange ends: until something else is known, its caller has left.
const UNFINISHED: Option<Code> = Some(Code::Cancelled);

pub(crate) struct Exchange {
    arrival: Arrival,
    metrics: Arc<Metrics>,
    op: Option<Operation>,
    caller: Option<Arc<Caller>>,
    model: Option<Arc<str>>,
    stream: bool,
    head: Option<Box<ReplyHead>>,
    code: Option<Code>,
    permit: Option<Permit>,
}

impl Exchange {
    pub(crate) const fn begin(arrival: Arrival, metrics: Arc<Metrics>, op: Option<Operation>) -> Self {
        Self { arrival, metrics, op, caller: None, model: None, stream: false, head: None, code: UNFINISHED, permit: None }
    }

    pub(crate) const fn id(&self) -> RequestId {
        self.arrival.id
    }

    pub(crate) const fn began_at(&self) -> Time {
        self.arrival.at
    }

    pub(crate) const fn op(&self) -> Option<Operation> {
        self.op
    }

    pub(crate) fn identify(&mut self, caller: Arc<Caller>) {
        self.caller = Some(caller);
    }

    /// Keeps a place until the exchange has ended.
    pub(crate) fn hold(&mut self, permit: Permit) {
        self.permit = Some(permit);
    }

    pub(crate) fn address(&mut self, model: Arc<str>, stream: bool) {
        self.model = Some(model);
        self.stream = stream;
    }

    /// The first part of the answer is here.
    pub(crate) fn first_byte(&mut self, head: Option<Box<ReplyHead>>) {
        self.metrics.first_byte(self.model.as_deref(), self.so_far());
        self.head = head;
    }

    pub(crate) fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    pub(crate) fn head(&self) -> Option<&ReplyHead> {
        self.head.as_deref()
    }

    /// It has ended well.
    pub(crate) fn answered(&mut self) {
        self.code = None;
    }

    /// It has ended badly.
    pub(crate) fn failed(&mut self, code: Code) {
        self.code = Some(code);
    }

    /// Ends it badly before its first byte.
    pub(crate) fn refuse(mut self, failure: &Failure) -> Response {
        self.failed(failure.code);
        refusal::response(failure)
    }

    fn so_far(&self) -> std::time::Duration {
        clock::now().since(self.arrival.at)
    }

    fn log(&self) {
        let head = self.head.as_deref();
        let caller = self.caller.as_deref();
        tracing::info!(
            target: "access",
            request_id = self.arrival.shown.to_str().ok(),
            id = %self.arrival.id,
            tenant = caller.map(|c| &*c.tenant.name),
            key = caller.and_then(|c| c.key.as_ref()).map(|k| &*k.id),
            model = self.model.as_deref(),
            lane = Lane::Interactive.as_str(),
            op = self.op.map(Operation::path),
            stream = self.stream,
            status = self.code.map_or(200, Code::status),
            code = self.code.map(Code::as_str),
            queue_ms = head.map(|h| h.queue_ms),
            batch_size = head.map(|h| h.batch_size),
            backend = head.map(|h| &*h.backend),
            backend_ms = head.map(|h| h.backend_ms),
            total_ms = millis(self.so_far()),
        );
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.metrics.ended(self.model.as_deref(), self.op, self.code, self.so_far());
        self.log();
    }
}
