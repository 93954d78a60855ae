//! edge: `GET /v1/models` and `/v1/models/{id}`, in OpenAI's shape: the models that are there for the caller.

use crate::exchange::Arrival;
use crate::gate::{Gate, model_not_found};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::HeaderMap;
use serde::Serialize;
use shared::error::Failure;
use shared::identity::Caller;
use std::sync::Arc;

#[derive(Serialize)]
struct ModelList<'a> {
    object: &'static str,
    data: Vec<ModelEntry<'a>>,
}

#[derive(Serialize)]
struct ModelEntry<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
}

pub(crate) async fn list(State(gate): State<Arc<Gate>>, Extension(arrival): Extension<Arrival>, headers: HeaderMap) -> Response {
    let list = |caller: &Caller| {
        let theirs = gate.config.models.iter().filter(|model| caller.may_use(&model.name));
        let data = theirs.map(|model| entry(&gate, &model.name)).collect();
        Ok(Json(ModelList { object: "list", data }).into_response())
    };
    serve(&gate, arrival, &headers, list).await
}

pub(crate) async fn one(
    State(gate): State<Arc<Gate>>,
    Extension(arrival): Extension<Arrival>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let one = |caller: &Caller| {
        let known = gate.models.get_key_value(id.as_str()).filter(|(name, _)| caller.may_use(name));
        let (name, _) = known.ok_or_else(model_not_found)?;
        Ok(Json(entry(&gate, name)).into_response())
    };
    serve(&gate, arrival, &headers, one).await
}

async fn serve(gate: &Gate, arrival: Arrival, headers: &HeaderMap, answer: impl FnOnce(&Caller) -> Result<Response, Failure>) -> Response {
    let mut exchange = gate.begin(arrival, None);
    let served = gate.auth.identify(headers).await.and_then(|caller| {
        exchange.identify(Arc::clone(&caller));
        answer(&caller)
    });
    match served {
        Ok(response) => {
            exchange.answered();
            response
        }
        Err(failure) => exchange.refuse(&failure),
    }
}

fn entry<'a>(gate: &Gate, id: &'a str) -> ModelEntry<'a> {
    ModelEntry { id, object: "model", created: gate.started_at_unix, owned_by: "tidemill" }
}
