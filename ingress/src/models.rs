//! edge: `GET /v1/models` and `/v1/models/{id}`, in OpenAI's shape.

use crate::exchange::Arrival;
use crate::gate::{Gate, model_not_found};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::HeaderMap;
use serde::Serialize;
use shared::error::Failure;
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
    let list = || {
        let data = gate.config.models.iter().map(|model| entry(&gate, &model.name)).collect();
        Ok(Json(ModelList { object: "list", data }).into_response())
    };
    serve(&gate, arrival, &headers, list)
}

pub(crate) async fn one(
    State(gate): State<Arc<Gate>>,
    Extension(arrival): Extension<Arrival>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let one = || {
        let (name, _) = gate.models.get_key_value(id.as_str()).ok_or_else(model_not_found)?;
        Ok(Json(entry(&gate, name)).into_response())
    };
    serve(&gate, arrival, &headers, one)
}

fn serve(gate: &Gate, arrival: Arrival, headers: &HeaderMap, answer: impl FnOnce() -> Result<Response, Failure>) -> Response {
    let mut exchange = gate.begin(arrival, None);
    let served = gate.keys.identify(headers).and_then(|tenant| {
        exchange.identify(Arc::clone(&gate.tenants[tenant]));
        answer()
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
