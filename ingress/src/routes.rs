//! edge: which path leads to which handler, and the request id that every answer carries.

use crate::exchange::Arrival;
use crate::gate::Gate;
use crate::headers;
use crate::{batches, chat, files, jobs, models, native, probes, responses};
use axum::extract::{DefaultBodyLimit, State};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Router, middleware};
use http::HeaderValue;
use shared::error::{Code, Failure};
use shared::{clock, entropy};
use std::net::SocketAddr;
use std::sync::Arc;

pub(crate) fn router(gate: Arc<Gate>) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(chat::chat))
        .route("/v1/completions", post(chat::completions))
        .route("/v1/responses", post(chat::responses))
        .route("/v1/embeddings", post(chat::embeddings))
        .merge(native(Arc::clone(&gate)))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*id}", get(models::one))
        .route("/livez", get(probes::livez))
        .route("/readyz", get(probes::readyz))
        .route("/metrics", get(probes::metrics))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(gate)
}

/// What calls no model.
fn native(gate: Arc<Gate>) -> Router<Arc<Gate>> {
    Router::new()
        .route("/v1/files", get(files::list).post(files::create))
        .route("/v1/files/{id}", get(files::one).delete(files::delete))
        .route("/v1/files/{id}/content", get(files::content))
        .route("/v1/batches", get(batches::list).post(batches::create))
        .route("/v1/batches/{id}", get(batches::one))
        .route("/v1/batches/{id}/cancel", post(batches::cancel))
        .route("/v1/responses/{id}", get(responses::one).delete(responses::delete))
        .route("/v1/responses/{id}/cancel", post(responses::cancel))
        .route("/v1/jobs", get(jobs::list))
        .route("/v1/jobs/{id}", get(jobs::one).delete(jobs::cancel))
        .route("/v1/jobs/{id}/events", get(jobs::attach))
        .layer(DefaultBodyLimit::disable()) // Each reader has its own bounds.
        .layer(middleware::from_fn_with_state(gate, native::enter))
}

/// Gives a request its id before anything looks at it. Returns what its answer is to carry as [`headers::REQUEST_ID`].
///
/// Called by the server rather than layered over the routes, where it would cost each request two allocations.
pub(crate) fn stamp<B>(request: &mut http::Request<B>, peer: SocketAddr) -> HeaderValue {
    let id = entropy::request_id();
    let own = || HeaderValue::try_from(id.to_string()).expect("our ids are visible ASCII");
    let shown = headers::request_id(request.headers()).cloned().unwrap_or_else(own);
    request.extensions_mut().insert(Arrival { id, shown: shown.clone(), at: clock::now(), peer });
    shown
}

async fn unknown_path(State(gate): State<Arc<Gate>>, Extension(arrival): Extension<Arrival>) -> Response {
    let failure = Failure::new(Code::NotFound, "There is nothing at this path: the API is below /v1");
    gate.begin(arrival, None).refuse(&failure)
}

/// The router adds the `Allow` header.
async fn wrong_method(State(gate): State<Arc<Gate>>, Extension(arrival): Extension<Arrival>) -> Response {
    let failure = Failure::new(Code::MethodNotAllowed, "This path takes another method: see the Allow header");
    gate.begin(arrival, None).refuse(&failure)
}
