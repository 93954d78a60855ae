//! edge: the pooled HTTP client of all backends: hyper itself, because a layer above it costs a third more CPU per call.

use super::BuildError;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;
use std::time::Duration;

/// Longer than any healthy network needs, short enough that another backend can still be tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Below the 5 s after which uvicorn, under most model servers, closes an idle connection: whoever closes first never
/// sends into a connection that is being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// Idle connections kept per backend: a burst of calls, without holding a backend's every descriptor.
const IDLE_PER_HOST_MAX: usize = 128;

pub(crate) type CallError = legacy::Error;

/// A handle to the pool; clones share it. HTTP/1.1 in the clear, HTTP/2 where TLS offers it.
#[derive(Clone, Debug)]
pub struct Client {
    pool: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Client {
    /// A client that trusts the system's certificate roots.
    ///
    /// # Errors
    /// The TLS library refuses its own defaults.
    pub fn new() -> Result<Self, BuildError> {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let connector = schemes()?.https_or_http().enable_all_versions().wrap_connector(connector);
        let pool = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
            .build(connector);
        Ok(Self { pool })
    }

    /// Sends one request; dropping the future, or the response's body, closes the connection.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, CallError> {
        self.pool.request(request).await
    }
}

/// A machine without certificate roots still serves backends over http, so their absence is no reason not to start.
fn schemes() -> Result<HttpsConnectorBuilder<hyper_rustls::builderstates::WantsSchemes>, BuildError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    match HttpsConnectorBuilder::new().with_provider_and_native_roots(aws_lc_rs::default_provider()) {
        Ok(builder) => Ok(builder),
        Err(error) => {
            tracing::warn!(%error, "no certificate roots on this system: calls to https backends will fail; install ca-certificates");
            let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
            let config = config.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
            Ok(HttpsConnectorBuilder::new().with_tls_config(config))
        }
    }
}
