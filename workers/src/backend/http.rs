//! edge: the pooled HTTP clients of the backends: hyper itself, because a layer above it costs a third more CPU per call.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::ServerName;
use shared::config::ClientTls;
use shared::tls::{self, TlsError};
use std::collections::HashMap;
use std::time::Duration;

/// Longer than any healthy network needs, short enough that another backend can still be tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Below the 5 s after which uvicorn, under most model servers, closes an idle connection: whoever closes first never
/// sends into a connection that is being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// How often an HTTP/2 connection with calls on it is asked whether somebody is there, and how long the answer may take: a timeout
/// ends a call and not its connection, and the next would be made on a dead one.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Idle connections kept per backend: a burst of calls, without holding a backend's every descriptor.
const IDLE_PER_HOST_MAX: usize = 128;

pub(crate) type CallError = legacy::Error;

/// The pools of one worker: one for each way to speak TLS, so that backends of one server share its connections.
#[derive(Debug, Default)]
pub struct Clients {
    pools: HashMap<Option<ClientTls>, Client>,
}

impl Clients {
    /// The client for a backend's `tls`; without one, it trusts the system's certificate roots.
    ///
    /// # Errors
    /// A certificate or key that cannot be used, or a name that no certificate bears.
    pub(crate) fn client(&mut self, tls: Option<&ClientTls>) -> Result<Client, TlsError> {
        if let Some(client) = self.pools.get(&tls.cloned()) {
            return Ok(client.clone());
        }
        let client = Client::new(tls)?;
        self.pools.insert(tls.cloned(), client.clone());
        Ok(client)
    }
}

/// A handle to a pool; clones share it. HTTP/1.1 in the clear, HTTP/2 where TLS offers it.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pool: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Client {
    fn new(tls: Option<&ClientTls>) -> Result<Self, TlsError> {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let mut secured = HttpsConnectorBuilder::new().with_tls_config(tls::client(tls)?).https_or_http();
        if let Some(name) = tls.and_then(|tls| tls.server_name.as_deref()) {
            secured = secured.with_server_name_resolver(FixedServerNameResolver::new(server_name(name)?));
        }
        let pool = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
            .timer(TokioTimer::new())
            .http2_keep_alive_interval(KEEP_ALIVE)
            .http2_keep_alive_timeout(KEEP_ALIVE)
            .build(secured.enable_all_versions().wrap_connector(connector));
        Ok(Self { pool })
    }

    /// Sends one request; dropping the future, or the response's body, closes the connection.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, CallError> {
        self.pool.request(request).await
    }
}

fn server_name(name: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(name.to_owned()).map_err(|_| TlsError::ServerName(name.to_owned()))
}
