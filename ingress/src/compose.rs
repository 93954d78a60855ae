//! core: a request becomes a letter: its body checked, its model found, its measures taken. The same for a caller who waits,
//! for a job, and for a line of a batch.

use crate::check::{self, Background, Metadata};
use crate::gate::Gate;
use bytes::Bytes;
use shared::domain::{Operation, RequestId, Token};
use shared::error::Failure;
use shared::identity::Caller;
use shared::wire::Envelope;
use std::sync::Arc;

/// What is asked, by whom.
pub(crate) struct Order<'a> {
    pub(crate) id: RequestId,
    pub(crate) op: Operation,
    pub(crate) caller: &'a Caller,
    pub(crate) traceparent: Option<Box<str>>,
    pub(crate) body: Bytes,
}

/// An envelope, what goes into it, and whose lane it is for. What the sender decides is yet to be filled in.
pub(crate) struct Composed {
    pub(crate) model: Token,
    /// The model's public name.
    pub(crate) name: Arc<str>,
    pub(crate) envelope: Envelope,
    pub(crate) body: Bytes,
    /// Of a background response: what its caller has noted on it.
    pub(crate) background: Option<Metadata>,
}

/// Checks and measures a body. Generations stay the caller's bytes; of embeddings the bare inputs travel, so that merging
/// callers is joining their bytes.
///
/// # Errors
/// Those of [`check::generation`], [`check::embedding`] and [`Gate::model`].
pub(crate) fn compose(gate: &Gate, order: Order<'_>) -> Result<Composed, Failure> {
    match order.op {
        Operation::Embeddings => embedding(gate, order),
        Operation::Chat | Operation::Completions | Operation::Responses => generation(gate, order),
    }
}

fn generation(gate: &Gate, order: Order<'_>) -> Result<Composed, Failure> {
    let view = check::generation(order.op, &order.body, &gate.config.limits)?;
    let (model, name) = gate.model(order.caller, &view.model, order.op)?;
    let (body, background) = match view.background {
        None => (order.body.clone(), None),
        Some(Background { body, metadata }) => (body, Some(metadata)),
    };
    let envelope = Envelope {
        tokens_in: check::tokens_of(&body),
        tokens_out: view.tokens_out,
        bytes: check::bytes(&body),
        stream: view.stream,
        model_at: Some(view.model_at),
        ..gate.envelope(order, model)
    };
    Ok(Composed { model: model.token.clone(), name, envelope, body, background })
}

fn embedding(gate: &Gate, order: Order<'_>) -> Result<Composed, Failure> {
    let view = check::embedding(&order.body, &gate.config.limits)?;
    let (model, name) = gate.model(order.caller, &view.model, order.op)?;
    let body = view.inputs;
    let envelope = Envelope {
        tokens_in: view.tokens_in,
        items: view.items,
        longest: view.longest,
        bytes: check::bytes(&body),
        compat: view.compat,
        encoding: view.encoding,
        params: view.params,
        ..gate.envelope(order, model)
    };
    Ok(Composed { model: model.token.clone(), name, envelope, body, background: None })
}
