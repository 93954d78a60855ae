//! edge: fetches an issuer's JWK set: from its address, or from a file.

use bytes::Bytes;
use http::uri::Scheme;
use http::{StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::crypto::aws_lc_rs;
use shared::config::JwksAt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

/// A key takes about 500 bytes, and its certificates a few thousand.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// A request may wait this long for keys it needs.
pub(super) const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// Below the time between two fetches: a connection is not kept for the next.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

pub(super) enum Source {
    Https(Client<HttpsConnector<HttpConnector>, Empty<Bytes>>, Uri),
    /// On this machine: the configuration has made sure of it.
    Http(Client<HttpConnector, Empty<Bytes>>, Uri),
    File(PathBuf),
}

/// Why a source cannot be asked at all.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("jwks_url `{0}` is no address")]
    Uri(String),
    #[error("an https jwks_url needs this system's certificate roots, which cannot be read ({0}): install ca-certificates")]
    Roots(io::Error),
}

#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("no answer within {} s", FETCH_TIMEOUT.as_secs())]
    Timeout,
    #[error("no connection: {0}")]
    Connect(#[from] hyper_util::client::legacy::Error),
    #[error("status {0}")]
    Status(StatusCode),
    #[error("its body broke off or has more than {BODY_BYTES_MAX} bytes")]
    Body,
    #[error("the file cannot be read: {0}")]
    File(#[from] io::Error),
}

impl Source {
    pub(super) fn new(at: &JwksAt) -> Result<Self, SourceError> {
        let url = match at {
            JwksAt::File(path) => return Ok(Self::File(path.clone())),
            JwksAt::Url(url) => url,
        };
        let uri: Uri = url.parse().map_err(|_| SourceError::Uri(url.clone()))?;
        if uri.scheme() == Some(&Scheme::HTTPS) { Ok(Self::Https(pool(https()?), uri)) } else { Ok(Self::Http(pool(http()), uri)) }
    }

    /// Asks once, for a bounded time and a bounded answer. A redirect is an answer like any other that is no 200.
    pub(super) async fn fetch(&self) -> Result<Bytes, FetchError> {
        let fetched = async {
            match self {
                Self::Https(client, uri) => get(client, uri).await,
                Self::Http(client, uri) => get(client, uri).await,
                Self::File(path) => read(path).await,
            }
        };
        timeout(FETCH_TIMEOUT, fetched).await.map_err(|_| FetchError::Timeout)?
    }
}

async fn get<C>(client: &Client<C, Empty<Bytes>>, uri: &Uri) -> Result<Bytes, FetchError>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let response = client.get(uri.clone()).await?;
    if response.status() != StatusCode::OK {
        return Err(FetchError::Status(response.status()));
    }
    let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
    Ok(body.map_err(|_| FetchError::Body)?.to_bytes())
}

async fn read(path: &PathBuf) -> Result<Bytes, FetchError> {
    let mut bytes = Vec::new();
    let file = tokio::fs::File::open(path).await?;
    file.take(BODY_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).await?;
    if bytes.len() > BODY_BYTES_MAX { Err(FetchError::Body) } else { Ok(bytes.into()) }
}

fn http() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(FETCH_TIMEOUT));
    connector
}

fn https() -> Result<HttpsConnector<HttpConnector>, SourceError> {
    let mut connector = http();
    connector.enforce_http(false);
    let builder = HttpsConnectorBuilder::new().with_provider_and_native_roots(aws_lc_rs::default_provider());
    Ok(builder.map_err(SourceError::Roots)?.https_only().enable_http1().wrap_connector(connector))
}

fn pool<C: Connect + Clone>(connector: C) -> Client<C, Empty<Bytes>> {
    Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE_TIMEOUT).build(connector)
}
