//! edge: one https connection, held open for as many requests as a test wants: a pool would hide which connection answered.

use super::KEY;
use super::certificates::{Pair, client_config};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper::{Method, Request, Response, body::Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, ServerName};
use shared::task;
use std::error::Error;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

pub(crate) type Broken = Box<dyn Error + Send + Sync>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

impl Protocol {
    const fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"http/1.1",
            Self::Http2 => b"h2",
        }
    }
}

pub(crate) struct Secure {
    sender: Sender,
    base: String,
    /// What the server showed.
    pub(crate) certificate: CertificateDer<'static>,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Secure {
    /// Connects, and insists on the protocol.
    ///
    /// # Errors
    /// Anything but an open connection. A server may refuse a certificate as late as at the first request.
    pub(crate) async fn open(base: &str, protocol: Protocol, identity: Option<&Pair>) -> Result<Self, Broken> {
        let mut config = ClientConfig::clone(&client_config(identity));
        config.alpn_protocols = vec![protocol.alpn().to_vec()];
        let host = base.strip_prefix("https://").ok_or("an https address")?;
        let stream = TcpStream::connect(host).await?;
        stream.set_nodelay(true)?;
        let stream = TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("127.0.0.1")?, stream).await?;
        let session = stream.get_ref().1;
        if session.alpn_protocol() != Some(protocol.alpn()) {
            return Err(format!("agreed on {:?}", session.alpn_protocol()).into());
        }
        let certificate = session.peer_certificates().and_then(<[_]>::first).ok_or("no certificate")?.clone().into_owned();
        Ok(Self { sender: Sender::new(protocol, TokioIo::new(stream)).await?, base: base.to_owned(), certificate })
    }

    pub(crate) async fn get(&mut self, path: &str) -> Result<(u16, String), Broken> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    pub(crate) async fn post(&mut self, path: &str, body: impl Into<Bytes>) -> Result<(u16, String), Broken> {
        self.ask(Method::POST, path, body.into()).await
    }

    async fn ask(&mut self, method: Method, path: &str, body: Bytes) -> Result<(u16, String), Broken> {
        let host = self.base.trim_start_matches("https://");
        let request = Request::builder().method(method).uri(match self.sender {
            Sender::Http1(_) => path.to_owned(),
            Sender::Http2(_) => format!("{}{path}", self.base),
        });
        let request =
            request.header("host", host).header("content-type", "application/json").header("authorization", format!("Bearer {KEY}"));
        let response = self.sender.send(request.body(Full::new(body))?).await?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }
}

impl Sender {
    async fn new(protocol: Protocol, io: TokioIo<tokio_rustls::client::TlsStream<TcpStream>>) -> Result<Self, hyper::Error> {
        match protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(io).await?;
                task::spawn("client", async { drop(connection.await) });
                Ok(Self::Http1(sender))
            }
            Protocol::Http2 => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
                task::spawn("client", async { drop(connection.await) });
                Ok(Self::Http2(sender))
            }
        }
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, hyper::Error> {
        match self {
            Self::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Self::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }
}
