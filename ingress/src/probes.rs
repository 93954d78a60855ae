//! edge: `/livez`, `/readyz` and `/metrics`: for the platform, without a key.

use crate::gate::Gate;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde::Serialize;
use shared::telemetry;
use std::sync::Arc;

const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Serialize)]
struct Health {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

/// The process runs. Nothing else: a broker that is away is no reason to be restarted.
pub(crate) async fn livez() -> Response {
    Json(Health { status: "live", reason: None }).into_response()
}

/// Requests may be sent here.
pub(crate) async fn readyz(State(gate): State<Arc<Gate>>) -> Response {
    match gate.unready() {
        None => Json(Health { status: "ready", reason: None }).into_response(),
        reason => (StatusCode::SERVICE_UNAVAILABLE, Json(Health { status: "unready", reason })).into_response(),
    }
}

pub(crate) async fn metrics(State(gate): State<Arc<Gate>>) -> Response {
    ([(header::CONTENT_TYPE, PROMETHEUS_TEXT)], telemetry::render(&gate.registry)).into_response()
}
