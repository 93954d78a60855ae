//! edge: `POST /v1/chat/completions`, `/v1/completions`, `/v1/responses` and `/v1/embeddings`: the road of one request, from its
//! bytes to its answer.

use crate::answer::{self, Reply};
use crate::compose::{Composed, Order, compose};
use crate::entry::{self, Entered};
use crate::exchange::{Arrival, Exchange};
use crate::gate::Gate;
use crate::jobs::{self, Errand};
use crate::road::Letter;
use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use shared::clock::Time;
use shared::domain::Operation;
use shared::error::Failure;
use shared::identity::Caller;
use std::sync::Arc;

pub(crate) async fn chat(State(gate): State<Arc<Gate>>, Extension(arrival): Extension<Arrival>, request: Request) -> Response {
    serve(&gate, Operation::Chat, arrival, request).await
}

pub(crate) async fn completions(State(gate): State<Arc<Gate>>, Extension(arrival): Extension<Arrival>, request: Request) -> Response {
    serve(&gate, Operation::Completions, arrival, request).await
}

pub(crate) async fn embeddings(State(gate): State<Arc<Gate>>, Extension(arrival): Extension<Arrival>, request: Request) -> Response {
    serve(&gate, Operation::Embeddings, arrival, request).await
}

pub(crate) async fn responses(State(gate): State<Arc<Gate>>, Extension(arrival): Extension<Arrival>, request: Request) -> Response {
    serve(&gate, Operation::Responses, arrival, request).await
}

async fn serve(gate: &Arc<Gate>, op: Operation, arrival: Arrival, request: Request) -> Response {
    let mut exchange = gate.begin(arrival, Some(op));
    match travel(gate, op, request, &mut exchange).await {
        Ok(reply) => answer::write(reply, exchange),
        Err(failure) => exchange.refuse(&failure),
    }
}

/// Identify, check, route, put into an envelope, publish, wait. The body stays the caller's bytes all the way.
async fn travel(gate: &Arc<Gate>, op: Operation, request: Request, exchange: &mut Exchange) -> Result<Reply, Failure> {
    let Entered { caller, traceparent, deadline, errand, body } = entry::enter(gate, request, exchange).await?;
    let order = Order { id: exchange.id(), op, caller: &caller, traceparent, body: body.clone() };
    let composed = compose(gate, order)?;
    exchange.address(Arc::clone(&composed.name), composed.envelope.stream);
    let errand = if composed.background.is_some() { Some(Errand::in_background(errand)) } else { errand };
    if op == Operation::Responses {
        caller.may_call(op, entry::lane(errand.as_ref()))?; // Which lane, its body has said just now.
    }
    match errand {
        None => wait(gate, composed, &caller, deadline).await,
        Some(errand) => jobs::run(gate, composed, &errand, jobs::fingerprint(op, &body), deadline).await,
    }
}

/// Out to the lane, and back from the inbox.
async fn wait(gate: &Gate, composed: Composed, caller: &Caller, deadline: Time) -> Result<Reply, Failure> {
    let Composed { model, envelope, body, .. } = composed;
    let stream = envelope.stream;
    let letter = Letter { envelope, body, deadline, account: gate.account(caller) };
    let ticket = gate.road.send(&model, letter).await?;
    answer::wait(ticket, stream).await
}
