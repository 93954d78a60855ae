//! edge: the one listener: accepts connections, speaks HTTP/1.1 and HTTP/2 on them, and ends them in order.
//!
//! Directly on hyper: a connection that says nothing, or half a header, must end, which needs a timer from its first
//! byte on. TLS is one more step between accepting a stream and [`Connections::converse`], which takes any stream.

use crate::headers::REQUEST_ID;
use crate::routes;
use axum::Router;
use futures::TryFutureExt;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use shared::config::Limits;
use shared::task::{self, Guarded};
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
    open: Arc<Semaphore>,
    first_request_within: Duration,
    /// Finish what is being answered, then close.
    finish: CancellationToken,
    /// Close now.
    close: CancellationToken,
}

impl Server {
    /// Binds and starts to serve.
    pub(crate) async fn bind(listen: SocketAddr, limits: &Limits, router: Router) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let addr = listener.local_addr()?;
        let header_timeout = Duration::from_millis(limits.header_timeout_ms);
        let connections = Arc::new(Connections {
            http: http(header_timeout),
            router,
            open: Arc::new(Semaphore::new(CONNECTIONS_MAX as usize)),
            first_request_within: header_timeout,
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
        .max_header_list_size(HEADER_BYTES_MAX as u32)
        .adaptive_window(true);
    http
}

async fn accept(listener: TcpListener, connections: Arc<Connections>) {
    loop {
        tokio::select! {
            () = connections.finish.cancelled() => return,
            accepted = next(&listener, &connections.open) => match accepted {
                Ok((stream, place)) => serve(stream, place, Arc::clone(&connections)),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

/// The next connection, once there is a place for it.
async fn next(listener: &TcpListener, open: &Arc<Semaphore>) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let place = Arc::clone(open).acquire_owned().await.expect("the semaphore is never closed");
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, place))
}

fn serve(stream: TcpStream, place: OwnedSemaphorePermit, connections: Arc<Connections>) {
    task::spawn("connection", async move {
        connections.converse(stream).await;
        drop(place);
    });
}

impl Connections {
    async fn converse<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&self, stream: S) {
        let spoken = Arc::new(AtomicBool::new(false));
        let (noted, router) = (Arc::clone(&spoken), TowerToHyperService::new(self.router.clone()));
        let service = service_fn(move |mut request: http::Request<Incoming>| {
            noted.store(true, Ordering::Relaxed);
            let shown = routes::stamp(&mut request);
            router.call(request).map_ok(move |mut response| {
                response.headers_mut().insert(REQUEST_ID, shown);
                response
            })
        });
        let connection = self.http.serve_connection(TokioIo::new(stream), service);
        let silence = sleep(self.first_request_within);
        pin!(connection, silence);
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
            }
        }
    }
}

fn note<E: std::fmt::Display>(ended: Result<(), E>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke off");
    }
}
