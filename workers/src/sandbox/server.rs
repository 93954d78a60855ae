//! edge: the sandbox over HTTP, in OpenAI's paths. It serves any model name and asks for no key; its faults are real ones.

use super::reply::{Body, Reply};
use super::{Sandbox, Snapshot};
use axum::body::Body as HttpBody;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{Response, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use axum_server::Handle;
use axum_server::accept::NoDelayAcceptor;
use bytes::Bytes;
use futures::stream;
use hyper_util::rt::TokioTimer;
use serde_json::{Value, json};
use shared::config::FaultRate;
use shared::domain::Operation;
use shared::task::{self, Guarded};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

/// The largest request: a batch of the longest inputs, with room to spare.
const BODY_BYTES_MAX: usize = 256 << 20;

/// Time to send the headers of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// A sandbox that is being served. Dropping it closes the port and every connection, as a killed process would.
pub struct Server {
    addr: SocketAddr,
    sandbox: Arc<Sandbox>,
    handle: Handle<SocketAddr>,
    _task: Guarded,
}

/// Serves a sandbox on a bound port, from a task of its own.
///
/// # Errors
/// The listener cannot be used.
pub fn serve(listener: TcpListener, sandbox: Arc<Sandbox>) -> io::Result<Server> {
    listener.set_nonblocking(true)?;
    let addr = listener.local_addr()?;
    let handle = Handle::new();
    let mut server = axum_server::from_tcp(listener)?.acceptor(NoDelayAcceptor).handle(handle.clone());
    server.http_builder().http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    let routes = router(Arc::clone(&sandbox)).into_make_service();
    let task = task::spawn_guarded("sandbox server", async move {
        if let Err(error) = server.serve(routes).await {
            tracing::error!(%error, "the sandbox server ended");
        }
    });
    Ok(Server { addr, sandbox, handle, _task: task })
}

impl Server {
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub const fn sandbox(&self) -> &Arc<Sandbox> {
        &self.sandbox
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.handle.shutdown();
    }
}

fn router(sandbox: Arc<Sandbox>) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(chat))
        .route("/v1/completions", post(completions))
        .route("/v1/responses", post(responses))
        .route("/v1/embeddings", post(embeddings))
        .route("/v1/models", get(models))
        .route("/livez", get("ok"))
        .route("/health", get("ok")) // Where model servers have it.
        .route("/stats", get(stats))
        .route("/stats/reset", post(reset_stats))
        .route("/faults", post(set_faults))
        .fallback(unknown)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(sandbox)
}

type Shared = State<Arc<Sandbox>>;

async fn chat(State(sandbox): Shared, body: Bytes) -> Response<HttpBody> {
    respond(sandbox.call(Operation::Chat, &body).await)
}

async fn completions(State(sandbox): Shared, body: Bytes) -> Response<HttpBody> {
    respond(sandbox.call(Operation::Completions, &body).await)
}

async fn responses(State(sandbox): Shared, body: Bytes) -> Response<HttpBody> {
    respond(sandbox.call(Operation::Responses, &body).await)
}

async fn embeddings(State(sandbox): Shared, body: Bytes) -> Response<HttpBody> {
    respond(sandbox.call(Operation::Embeddings, &body).await)
}

async fn unknown() -> Response<HttpBody> {
    respond(Reply::error(
        404,
        "the sandbox serves chat/completions, completions, responses, embeddings and models under /v1",
        "not_found_error",
    ))
}

async fn models() -> Json<Value> {
    let model = |id| json!({ "id": id, "object": "model", "created": 0, "owned_by": "sandbox" });
    Json(json!({ "object": "list", "data": [model("sandbox-chat"), model("sandbox-embedding")] }))
}

async fn stats(State(sandbox): Shared) -> Json<Snapshot> {
    Json(sandbox.stats())
}

async fn reset_stats(State(sandbox): Shared) -> StatusCode {
    sandbox.reset_stats();
    StatusCode::NO_CONTENT
}

/// The rates as the configuration has them, in JSON: `[{"fault":{"status":503},"rate":0.05}]`.
async fn set_faults(State(sandbox): Shared, Json(rates): Json<Vec<FaultRate>>) -> StatusCode {
    sandbox.set_faults(rates);
    StatusCode::NO_CONTENT
}

fn respond(reply: Reply) -> Response<HttpBody> {
    let form = if reply.is_event_stream { "text/event-stream" } else { "application/json" };
    let mut response = Response::builder().status(reply.status).header(CONTENT_TYPE, form);
    if let Some(seconds) = reply.retry_after_s() {
        response = response.header(RETRY_AFTER, seconds);
    }
    response.body(http_body(reply.body)).expect("status and headers are valid")
}

fn http_body(body: Body) -> HttpBody {
    match body {
        Body::Whole(bytes) => HttpBody::from(bytes),
        pieces @ Body::Pieces(_) => {
            let next = |mut pieces: Body| async move { pieces.next().await.map(|piece| (piece, pieces)) };
            HttpBody::from_stream(stream::unfold(pieces, next))
        }
    }
}
