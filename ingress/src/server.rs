//! edge: the one listener: accepts connections, speaks HTTP/1.1 and HTTP/2 on them, and ends them in order.
//!
//! Directly on hyper: a connection that says nothing, or half a header, must end, which needs a timer from its first
//! byte on. TLS is one more step between accepting a stream and [`Connections::converse`], which takes any stream; it is
//! done in the connection's own task, so that who shakes hands slowly keeps nobody waiting.

mod addresses;
mod streams;
mod unstalled;

use self::addresses::{Addresses, Visit};
use self::streams::{Streams, Verdict, Watched};
use self::unstalled::Unstalled;
use crate::headers::REQUEST_ID;
use crate::routes;
use crate::tls::Tls;
use axum::Router;
use futures::TryFutureExt;
use http::Version;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use prometheus::IntCounter;
use shared::config::Limits;
use shared::task::{self, Guarded};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::pin;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Open connections. Above the requests in flight, because idle ones are kept; below the usual limit of open files.
const CONNECTIONS_MAX: u32 = 16_384;

/// Bytes of one request's headers, and of the buffer a connection reads through.
const HEADER_BYTES_MAX: usize = 64 * 1024;
const HEADERS_MAX: usize = 100;

/// Concurrent requests on one HTTP/2 connection.
const STREAMS_MAX: u32 = 256;

/// Streams that a peer has opened and reset before they were looked at: more are a flood (CVE-2023-44487), and its
/// connection ends. Those that were looked at cost what any request costs that its caller gives up.
const RESETS_UNSEEN_MAX: usize = 20;

/// Streams of one HTTP/2 connection that were reset for breaking the protocol: more are no accident, and it ends.
const PROTOCOL_ERRORS_MAX: usize = 128;

/// An HTTP/2 peer that does not answer a ping within this is gone.
const PING_EVERY: Duration = Duration::from_secs(20);

/// The pause after a connection could not be accepted, usually for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A running server. Dropping it ends all connections at once.
pub(crate) struct Server {
    addr: SocketAddr,
    connections: Arc<Connections>,
    _accepting: Guarded,
}

struct Connections {
    http: auto::Builder<TokioExecutor>,
    router: Router,
    tls: Option<Arc<Tls>>,
    open: Arc<Semaphore>,
    addresses: Arc<Addresses>,
    refused: IntCounter,
    first_request_within: Duration,
    /// An answer, or bytes of one, that nobody takes for so long ends its connection.
    write_within: Duration,
    /// Finish what is being answered, then close.
    finish: CancellationToken,
    /// Close now.
    close: CancellationToken,
}

impl Server {
    /// Binds and starts to serve: https with `tls`, else http.
    ///
    /// `refused` counts the connections of addresses that have too many.
    pub(crate) async fn bind(
        listen: SocketAddr,
        limits: &Limits,
        tls: Option<Arc<Tls>>,
        refused: IntCounter,
        router: Router,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let addr = listener.local_addr()?;
        let header_timeout = Duration::from_millis(limits.header_timeout_ms);
        let connections = Arc::new(Connections {
            http: http(header_timeout),
            router,
            tls,
            open: Arc::new(Semaphore::new(CONNECTIONS_MAX as usize)),
            addresses: Addresses::new(limits.connections_per_address_max),
            refused,
            first_request_within: header_timeout,
            write_within: Duration::from_millis(limits.write_timeout_ms),
            finish: CancellationToken::new(),
            close: CancellationToken::new(),
        });
        let accepting = task::spawn_guarded("accept", accept(listener, Arc::clone(&connections)));
        Ok(Self { addr, connections, _accepting: accepting })
    }

    pub(crate) const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Accepts nobody, lets running answers be written for up to `grace`, then ends what is left.
    pub(crate) async fn stop(self, grace: Duration) {
        let Connections { open, finish, close, .. } = self.connections.as_ref();
        finish.cancel();
        if timeout(grace, open.acquire_many(CONNECTIONS_MAX)).await.is_err() {
            close.cancel();
            drop(open.acquire_many(CONNECTIONS_MAX).await);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.connections.close.cancel();
    }
}

fn http(header_timeout: Duration) -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(header_timeout).max_buf_size(HEADER_BYTES_MAX).max_headers(HEADERS_MAX);
    http.http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_EVERY)
        .max_concurrent_streams(STREAMS_MAX)
        .max_pending_accept_reset_streams(RESETS_UNSEEN_MAX)
        .max_local_error_reset_streams(PROTOCOL_ERRORS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX as u32)
        .adaptive_window(true);
    http
}

async fn accept(listener: TcpListener, connections: Arc<Connections>) {
    loop {
        tokio::select! {
            () = connections.finish.cancelled() => return,
            accepted = next(&listener, &connections.open) => match accepted {
                Ok((stream, peer, place)) => admit(stream, peer, place, &connections),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

/// The next connection, once there is a place for it.
async fn next(listener: &TcpListener, open: &Arc<Semaphore>) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(open).acquire_owned().await.expect("the semaphore is never closed");
    let (stream, peer) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, peer, place))
}

/// Serves a connection, or closes it when its address has too many. It is told nothing: that would be one more thing to
/// wait for.
fn admit(stream: TcpStream, peer: SocketAddr, place: OwnedSemaphorePermit, connections: &Arc<Connections>) {
    match connections.addresses.enter(peer.ip()) {
        Some(visit) => serve(stream, peer, (place, visit), Arc::clone(connections)),
        None => connections.refused.inc(),
    }
}

fn serve(stream: TcpStream, peer: SocketAddr, places: (OwnedSemaphorePermit, Visit), connections: Arc<Connections>) {
    task::spawn("connection", async move {
        connections.welcome(stream, peer).await;
        drop(places);
    });
}

impl Connections {
    async fn welcome(&self, stream: TcpStream, peer: SocketAddr) {
        let stream = Unstalled::new(stream, self.write_within);
        let Some(tls) = &self.tls else { return self.converse(stream, peer).await };
        let shaken = tokio::select! {
            shaken = tls.shake(stream) => shaken,
            () = self.finish.cancelled() => return,
            () = self.close.cancelled() => return,
        };
        match shaken {
            // Boxed: what TLS holds would make the task of every plain connection as large.
            Ok(stream) => Box::pin(self.converse(stream, peer)).await,
            Err(error) => tracing::debug!(%error, "a TLS handshake came to nothing"),
        }
    }

    async fn converse<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&self, stream: S, peer: SocketAddr) {
        let (spoken, streams) = (Arc::new(AtomicBool::new(false)), Arc::new(Streams::default()));
        let service = self.service(peer, Arc::clone(&spoken), Arc::clone(&streams));
        let connection = self.http.serve_connection(TokioIo::new(stream), service);
        let (silence, verdict) = (sleep(self.first_request_within), streams.verdict(self.write_within));
        pin!(connection, silence, verdict);
        let (mut finishing, mut listening) = (false, true);
        loop {
            tokio::select! {
                ended = connection.as_mut() => return note(ended),
                () = self.close.cancelled() => return,
                () = self.finish.cancelled(), if !finishing => {
                    finishing = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = &mut silence, if listening => {
                    listening = false;
                    if !spoken.load(Ordering::Relaxed) {
                        return;
                    }
                }
                judged = &mut verdict => match judged {
                    Verdict::Stalled => return tracing::debug!("the reader of an answer takes no more of it"),
                    Verdict::Quiet => {
                        connection.as_mut().graceful_shutdown();
                        verdict.set(streams.verdict(self.write_within));
                    }
                },
            }
        }
    }

    /// What answers the requests of one connection. The first whole request head sets `spoken`; `streams` watch over those
    /// that share the connection with others.
    fn service(
        &self,
        peer: SocketAddr,
        spoken: Arc<AtomicBool>,
        streams: Arc<Streams>,
    ) -> impl Service<http::Request<Incoming>, Response = http::Response<Watched>, Error = Infallible, Future: Send + 'static> + 'static + use<>
    {
        let router = TowerToHyperService::new(self.router.clone());
        service_fn(move |mut request: http::Request<Incoming>| {
            spoken.store(true, Ordering::Relaxed);
            let shown = routes::stamp(&mut request, peer);
            let place = (request.version() == Version::HTTP_2).then(|| streams.enter());
            router.call(request).map_ok(move |mut response| {
                response.headers_mut().insert(REQUEST_ID, shown);
                response.map(|answer| Watched::new(answer, place))
            })
        })
    }
}

fn note<E: std::fmt::Display>(ended: Result<(), E>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke off");
    }
}
