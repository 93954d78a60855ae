//! edge: TLS before HTTP: the handshake, and which certificate it shows.
//!
//! A handshake takes what is current when it begins, and a connection keeps what it began with: `renewal.rs` may put
//! another certificate in place at any time, and nobody who is connected notices.

mod identity;
mod renewal;
mod validity;

use crate::metrics::TlsMetrics;
use identity::{Files, Identity};
use rustls::ServerConfig;
use shared::clock;
use shared::config::ServerTls;
use shared::task::Guarded;
use shared::tls::TlsError;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// The listener's side of TLS. A lock guards what is current: taken for a clone, never across an await.
pub(crate) struct Tls {
    current: RwLock<Arc<ServerConfig>>,
    handshake_within: Duration,
}

impl Tls {
    /// Reads the files, and keeps them in view until the guard is dropped.
    ///
    /// # Errors
    /// Files that cannot be read or do not go together, a certificate that is not valid now.
    pub(crate) fn open(files: &ServerTls, handshake_within: Duration, metrics: TlsMetrics) -> Result<(Arc<Self>, Guarded), TlsError> {
        let read = Files::read(files)?;
        let Identity { config, expires_at_unix } = Identity::new(files, &read, clock::unix_seconds())?;
        metrics.shown(expires_at_unix);
        let tls = Arc::new(Self { current: RwLock::new(config), handshake_within });
        let renewal = renewal::watch(Arc::clone(&tls), files.clone(), read.fingerprint(), metrics);
        Ok((tls, renewal))
    }

    /// Shakes hands with a new connection.
    ///
    /// # Errors
    /// Anything but a whole handshake in time.
    pub(crate) async fn shake<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> io::Result<TlsStream<S>> {
        let current = Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner));
        timeout(self.handshake_within, TlsAcceptor::from(current).accept(stream)).await?
    }

    fn replace(&self, config: Arc<ServerConfig>) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = config;
    }
}
