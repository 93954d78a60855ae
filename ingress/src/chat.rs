//! edge: `POST /v1/chat/completions` and `/v1/completions`: the road of one request, from its bytes to its answer.

use crate::answer::{self, Reply};
use crate::check;
use crate::entry;
use crate::exchange::{Arrival, Exchange};
use crate::gate::Gate;
use crate::road::Letter;
use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use shared::domain::{Operation, estimate_tokens};
use shared::error::Failure;
use shared::wire::Envelope;
use std::sync::Arc;

pub(crate) async fn chat(State(gate): State<Arc<Gate>>, Extension(arrival): Extension<Arrival>, request: Request) -> Response {
    serve(&gate, Operation::Chat, arrival, request).await
}

pub(crate) async fn completions(State(gate): State<Arc<Gate>>, Extension(arrival): Extension<Arrival>, request: Request) -> Response {
    serve(&gate, Operation::Completions, arrival, request).await
}

async fn serve(gate: &Gate, op: Operation, arrival: Arrival, request: Request) -> Response {
    let mut exchange = gate.begin(arrival, Some(op));
    match travel(gate, op, request, &mut exchange).await {
        Ok(reply) => answer::write(reply, exchange),
        Err(failure) => exchange.refuse(&failure),
    }
}

/// Identify, check, route, put into an envelope, publish, wait. The body stays the caller's bytes all the way.
async fn travel(gate: &Gate, op: Operation, request: Request, exchange: &mut Exchange) -> Result<Reply, Failure> {
    let entered = entry::enter(gate, request, exchange).await?;
    let view = check::generation(op, &entered.body, &gate.config.limits)?;
    let (model, name) = gate.model(&entered.caller, &view.model, op)?;
    exchange.address(name, view.stream);

    let envelope = Envelope {
        tokens_in: estimate_tokens(entered.body.len()),
        tokens_out: view.tokens_out,
        bytes: check::bytes(&entered.body),
        stream: view.stream,
        model_at: Some(view.model_at),
        ..gate.envelope(op, model, &entered, exchange)
    };
    let account = gate.account(&entered.caller);
    let letter = Letter { envelope, body: entered.body, deadline: entered.deadline, account };
    let ticket = gate.road.send(&model.token, letter).await?;
    answer::wait(ticket, view.stream).await
}
