//! edge: one POST to an address that a tenant chose: resolved here, vetted, and connected to as vetted.
//!
//! A pooled client would resolve a name by itself, a second time: between the two answers the name could come to mean
//! something inside. So each delivery has a connection of its own, to an address that was looked at; the name stands only
//! in TLS and in `Host`. Redirects are not followed: they would be a second address, chosen by whoever answers.

use super::delivery::Delivery;
use super::signature::signature;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use shared::config::{Webhook, WebhookPolicy};
use shared::task::{self, Guarded};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

/// For name, connection, TLS, request and the answer's head. A receiver should note the event and answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// For each address to be connected to: if all that are tried are silent, all have been tried within [`TIMEOUT`].
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// For the rest of the answer.
const REST_TIMEOUT: Duration = Duration::from_secs(1);

/// Of these one address of a name is tried: the second family, and one that is down.
const ADDRESSES_MAX: usize = 4;

/// Bytes of an answer that are read, so that its sender is not cut off, and dropped.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Why an event was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum Undelivered {
    #[error("the target answered 410 Gone")]
    Gone,
    #[error("the target answered {}: redirects are not followed", .0.as_u16())]
    Redirect(StatusCode),
    #[error("the target answered {}", .0.as_u16())]
    Status(StatusCode),
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    #[error("the target's name is not known: {0}")]
    Name(io::Error),
    #[error("the target's address is not one of the public internet's")]
    Private,
    #[error("no connection: {0}")]
    Connect(io::Error),
    #[error("the connection broke: {0}")]
    Http(#[from] hyper::Error),
    #[error("the target's url cannot be used")]
    Url,
}

pub(super) struct Courier {
    policy: WebhookPolicy,
    tls: TlsConnector,
}

/// Where a url leads: its name or address, and the port.
struct Place<'a> {
    host: Host<&'a str>,
    port: u16,
}

impl Courier {
    pub(super) fn new(policy: WebhookPolicy, mut tls: ClientConfig) -> Self {
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { policy, tls: TlsConnector::from(Arc::new(tls)) }
    }

    /// Posts a delivery, signed as of `now` in seconds since 1970. Any 2xx is a receipt.
    pub(super) async fn deliver(&self, webhook: &Webhook, delivery: &Delivery, now: u64) -> Result<(), Undelivered> {
        let answer = timeout(TIMEOUT, self.post(webhook, delivery, now)).await.unwrap_or(Err(Undelivered::Timeout))?;
        judge(answer.end().await)
    }

    async fn post(&self, webhook: &Webhook, delivery: &Delivery, now: u64) -> Result<Answer, Undelivered> {
        let url = &webhook.url;
        let place = Place::of(url)?;
        let request = request(webhook, delivery, now).ok_or(Undelivered::Url)?;
        let stream = connect(&self.vetted(&place).await?, TcpStream::connect).await?;
        if url.scheme() == "http" {
            return send(stream, request).await;
        }
        let secured = self.tls.connect(place.server_name()?, stream).await.map_err(Undelivered::Connect)?;
        send(secured, request).await
    }

    /// The addresses of a place that may be connected to.
    async fn vetted(&self, place: &Place<'_>) -> Result<Vec<SocketAddr>, Undelivered> {
        let found: Vec<SocketAddr> = match &place.host {
            Host::Domain(name) => lookup_host((*name, place.port)).await.map_err(Undelivered::Name)?.collect(),
            Host::Ipv4(address) => vec![(*address, place.port).into()],
            Host::Ipv6(address) => vec![(*address, place.port).into()],
        };
        let allowed: Vec<_> = found.into_iter().filter(|address| self.policy.allows(address.ip())).take(ADDRESSES_MAX).collect();
        if allowed.is_empty() { Err(Undelivered::Private) } else { Ok(allowed) }
    }
}

impl<'a> Place<'a> {
    fn of(url: &'a Url) -> Result<Self, Undelivered> {
        url.host().zip(url.port_or_known_default()).map(|(host, port)| Self { host, port }).ok_or(Undelivered::Url)
    }

    fn server_name(&self) -> Result<ServerName<'static>, Undelivered> {
        match &self.host {
            Host::Domain(name) => ServerName::try_from((*name).to_owned()).map_err(|_| Undelivered::Url),
            Host::Ipv4(address) => Ok(IpAddr::from(*address).into()),
            Host::Ipv6(address) => Ok(IpAddr::from(*address).into()),
        }
    }
}

/// An answer as far as its head.
struct Answer {
    status: StatusCode,
    rest: Incoming,
    _connection: Guarded,
}

impl Answer {
    /// The status counts; what follows it is read for a moment, so that its sender is not cut off.
    async fn end(self) -> StatusCode {
        let _ = timeout(REST_TIMEOUT, Limited::new(self.rest, ANSWER_BYTES_MAX).collect()).await;
        self.status
    }
}

/// Opens a connection to the first address that takes one. Each has a time of its own: a silent one leaves some to the others.
pub(super) async fn connect<S, F>(addresses: &[SocketAddr], open: impl Fn(SocketAddr) -> F) -> Result<S, Undelivered>
where
    F: Future<Output = io::Result<S>>,
{
    let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match timeout(CONNECT_TIMEOUT, open(*address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failed = error,
            Err(_) => failed = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(Undelivered::Connect(failed))
}

/// `None`: something in the url cannot stand in a request, which a parsed url does not have.
fn request(webhook: &Webhook, delivery: &Delivery, now: u64) -> Option<Request<Full<Bytes>>> {
    let url = &webhook.url;
    let host = match url.port() {
        Some(port) => format!("{}:{port}", url.host_str()?),
        None => url.host_str()?.to_owned(),
    };
    let signed = signature(&webhook.secret, &delivery.event, now, &delivery.body);
    let body = Full::new(Bytes::copy_from_slice(delivery.body.as_bytes()));
    Request::builder()
        .method(Method::POST)
        .uri(&url[url::Position::BeforePath..url::Position::AfterQuery])
        .header(header::HOST, host)
        .header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .header(header::USER_AGENT, HeaderValue::from_static("tidemill"))
        .header("webhook-id", &*delivery.event)
        .header("webhook-timestamp", now)
        .header("webhook-signature", signed)
        .body(body)
        .ok()
}

async fn send<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Answer, Undelivered>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = task::spawn_guarded("webhook connection", async move {
        // How it ends is told to whoever sends on it.
        let _ = connection.await;
    });
    let answer = sender.send_request(request).await?;
    Ok(Answer { status: answer.status(), rest: answer.into_body(), _connection: connection })
}

const fn judge(status: StatusCode) -> Result<(), Undelivered> {
    match status {
        StatusCode::GONE => Err(Undelivered::Gone),
        _ if status.as_u16() / 100 == 2 => Ok(()),
        _ if status.as_u16() / 100 == 3 => Err(Undelivered::Redirect(status)),
        _ => Err(Undelivered::Status(status)),
    }
}
