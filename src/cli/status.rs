//! edge: /livez, /readyz and /metrics of a role that serves nothing else over HTTP.

use super::out::{self, Failed};
use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;
use prometheus::Registry;
use shared::broker::Broker;
use shared::task::{self, Guarded};
use shared::telemetry;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;

/// Serves until the guard is dropped. Ready means that the broker is connected.
pub(crate) async fn serve(addr: Option<SocketAddr>, broker: Arc<dyn Broker>, registry: Registry) -> Result<Option<Guarded>, Failed> {
    let Some(addr) = addr else { return Ok(None) };
    let listener = TcpListener::bind(addr).await.map_err(|error| Failed::broken(format!("--metrics {addr}: {error}")))?;
    let addr = listener.local_addr().map_err(Failed::broken)?;
    let ready = move || async move { if broker.is_connected() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE } };
    let metrics = move || async move { ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], telemetry::render(&registry)) };
    let router =
        Router::new().route("/livez", get(|| async { StatusCode::OK })).route("/readyz", get(ready)).route("/metrics", get(metrics));
    let server = task::spawn_guarded("status", async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the status port is closed");
        }
    });
    out::line(&format!("metrics on http://{addr}"));
    Ok(Some(server))
}
