//! loop: looks at the certificate's files every few seconds and at SIGHUP, and puts in place what has changed.
//!
//! What cannot serve is left aside, with one line in the log: two files are never written at one moment, so a pair that
//! does not match may be whole at the next look.

use super::identity::{Files, Fingerprint, Identity};
use super::{Tls, clock};
use crate::metrics::TlsMetrics;
use shared::config::ServerTls;
use shared::task::{self, Guarded};
use shared::tls::TlsError;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::sleep;

/// A new certificate is in use within this; three small files are read as often.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What a look found: files, or why there are none.
type Look = Result<Fingerprint, String>;

/// Hears SIGHUP from here on, and looks until the guard is dropped. `serving`: the files in use.
pub(super) fn watch(tls: Arc<Tls>, paths: ServerTls, serving: Fingerprint, metrics: TlsMetrics) -> Guarded {
    let hangups = signal(SignalKind::hangup())
        .inspect_err(|error| tracing::warn!(%error, "SIGHUP cannot be heard: certificates are looked at every few seconds only"))
        .ok();
    task::spawn_guarded("tls renewal", run(tls, paths, serving, metrics, hangups))
}

async fn run(tls: Arc<Tls>, paths: ServerTls, serving: Fingerprint, metrics: TlsMetrics, mut hangups: Option<Signal>) {
    let mut last: Look = Ok(serving);
    loop {
        let asked = tokio::select! {
            () = hangup(hangups.as_mut()) => true,
            () = sleep(LOOK_EVERY) => false,
        };
        let files = read(paths.clone()).await;
        let look: Look = files.as_ref().map(Files::fingerprint).map_err(ToString::to_string);
        if look == last && !asked {
            continue;
        }
        last = look;
        let renewed = files.and_then(|files| Identity::new(&paths, &files, clock::unix_seconds()));
        metrics.reloaded(renewed.is_ok());
        match renewed {
            Ok(identity) => put(&tls, identity, &metrics),
            Err(error) => tracing::warn!(%error, "the new certificate cannot be used: the old one stays in use"),
        }
    }
}

fn put(tls: &Tls, identity: Identity, metrics: &TlsMetrics) {
    tls.replace(identity.config);
    metrics.shown(identity.expires_at_unix);
    tracing::info!(expires_at_unix = identity.expires_at_unix, "new connections get the certificate that is in the files now");
}

/// Files may lie on a disk that hangs: that must not stop a thread that serves.
async fn read(paths: ServerTls) -> Result<Files, TlsError> {
    let reading = tokio::task::spawn_blocking(move || Files::read(&paths));
    reading.await.expect("reading files does not panic")
}

async fn hangup(signals: Option<&mut Signal>) {
    let heard = match signals {
        Some(signals) => signals.recv().await,
        None => None,
    };
    if heard.is_none() {
        std::future::pending().await
    }
}
