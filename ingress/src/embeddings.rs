//! edge: `POST /v1/embeddings`: the road of `chat.rs` for requests that share backend calls: what travels is the bare
//! inputs, so that merging callers is joining their bytes.

use crate::answer::{self, Reply};
use crate::check;
use crate::entry;
use crate::exchange::{Arrival, Exchange};
use crate::gate::Gate;
use crate::road::Letter;
use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use shared::domain::Operation;
use shared::error::Failure;
use shared::wire::Envelope;
use std::sync::Arc;

const OP: Operation = Operation::Embeddings;

pub(crate) async fn embeddings(State(gate): State<Arc<Gate>>, Extension(arrival): Extension<Arrival>, request: Request) -> Response {
    let mut exchange = gate.begin(arrival, Some(OP));
    match travel(&gate, request, &mut exchange).await {
        Ok(reply) => answer::write(reply, exchange),
        Err(failure) => exchange.refuse(&failure),
    }
}

async fn travel(gate: &Gate, request: Request, exchange: &mut Exchange) -> Result<Reply, Failure> {
    let entered = entry::enter(gate, request, exchange).await?;
    let view = check::embedding(&entered.body, &gate.config.limits)?;
    let (model, name) = gate.model(&entered.caller, &view.model, OP)?;
    exchange.address(name, false);

    let envelope = Envelope {
        tokens_in: view.tokens_in,
        items: view.items,
        longest: view.longest,
        bytes: check::bytes(&view.inputs),
        compat: view.compat,
        encoding: view.encoding,
        params: view.params,
        ..gate.envelope(OP, model, &entered, exchange)
    };
    let account = gate.account(&entered.caller);
    let letter = Letter { envelope, body: view.inputs, deadline: entered.deadline, account };
    let ticket = gate.road.send(&model.token, letter).await?;
    answer::wait(ticket, false).await
}
