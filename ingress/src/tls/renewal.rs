//! loop: looks at the certificate's files every few seconds and at SIGHUP, and puts in place what has changed.
//!
//! What cannot serve is left aside, with one line in the log, and tried again at each look: two files are never written at one
//! moment, so a pair that does not match may be whole at the next one, and a pair that is not valid yet will be.

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

/// What the last look came to.
#[derive(PartialEq, Eq)]
struct Look {
    /// `None`: files that cannot be read.
    found: Option<Fingerprint>,
    /// Why that cannot be used; `None`: it is in use.
    refused: Option<String>,
}

/// Hears SIGHUP from here on, and looks until the guard is dropped. `serving`: the files in use.
pub(super) fn watch(tls: Arc<Tls>, paths: ServerTls, serving: Fingerprint, metrics: TlsMetrics) -> Guarded {
    let hangups = signal(SignalKind::hangup())
        .inspect_err(|error| tracing::warn!(%error, "SIGHUP cannot be heard: certificates are looked at every few seconds only"))
        .ok();
    task::spawn_guarded("tls renewal", run(tls, paths, serving, metrics, hangups))
}

async fn run(tls: Arc<Tls>, paths: ServerTls, serving: Fingerprint, metrics: TlsMetrics, mut hangups: Option<Signal>) {
    let mut last = Look { found: Some(serving), refused: None };
    loop {
        let asked = tokio::select! {
            () = hangup(hangups.as_mut()) => true,
            () = sleep(LOOK_EVERY) => false,
        };
        let files = read(paths.clone()).await;
        let Some(renewed) = last.judge(&paths, files, asked, clock::unix_seconds()) else { continue };
        metrics.reloaded(renewed.is_ok());
        match renewed {
            Ok(identity) => put(&tls, identity, &metrics),
            Err(error) => tracing::warn!(%error, "the new certificate cannot be used: the old one stays in use"),
        }
    }
}

impl Look {
    /// Takes the place of the last look. `None`: it came to the same, and nobody has `asked` for another.
    fn judge(
        &mut self,
        paths: &ServerTls,
        files: Result<Files, TlsError>,
        asked: bool,
        now_unix: u64,
    ) -> Option<Result<Identity, TlsError>> {
        let found = files.as_ref().ok().map(Files::fingerprint);
        if self.refused.is_none() && self.found == found && !asked {
            return None;
        }
        let renewed = files.and_then(|files| Identity::new(paths, &files, now_unix));
        let look = Self { found, refused: renewed.as_ref().err().map(ToString::to_string) };
        let is_news = *self != look || asked;
        *self = look;
        is_news.then_some(renewed)
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

#[cfg(test)]
mod tests {
    use super::super::identity::tests::{IN_2031, files, pair, paths};
    use super::*;

    const IN_2020: u64 = 1_600_000_000;
    const IN_2050: u64 = 2_540_000_000;

    fn serving() -> Look {
        Look { found: Some(files(&pair(2035)).fingerprint()), refused: None }
    }

    #[test]
    fn a_pair_that_is_not_valid_yet_is_told_of_once_and_used_as_soon_as_it_is() {
        let (mut last, paths, new) = (serving(), paths(), pair(2040));
        let mut look = |now_unix| last.judge(&paths, Ok(files(&new)), false, now_unix).map(|renewed| renewed.is_ok());
        assert_eq!([IN_2020, IN_2020 + 5, IN_2031, IN_2031 + 5].map(&mut look), [Some(false), None, Some(true), None]);
    }

    #[test]
    fn what_is_refused_is_told_of_again_when_why_has_changed_or_somebody_asks() {
        let (mut last, paths, new) = (serving(), paths(), pair(2040));
        let mut look = |asked, now_unix| {
            let renewed = last.judge(&paths, Ok(files(&new)), asked, now_unix)?;
            renewed.err().map(|error| error.to_string())
        };
        assert!(look(false, IN_2020).is_some_and(|why| why.contains("not valid yet")));
        assert!(look(true, IN_2020).is_some_and(|why| why.contains("not valid yet")));
        assert!(look(false, IN_2050).is_some_and(|why| why.contains("has expired")));
        assert_eq!(look(false, IN_2050), None);
    }

    #[test]
    fn files_that_cannot_be_read_are_told_of_once_and_those_in_use_not_at_all() {
        let (mut last, paths, new) = (serving(), paths(), pair(2040));
        let unreadable = || Err(TlsError::TooLarge(paths.cert.clone()));
        let look = |last: &mut Look, files| last.judge(&paths, files, false, IN_2031).map(|renewed| renewed.is_ok());
        assert_eq!(look(&mut last, unreadable()), Some(false));
        assert_eq!(look(&mut last, unreadable()), None);
        assert_eq!(look(&mut last, Ok(files(&new))), Some(true));
        assert_eq!(look(&mut last, Ok(files(&new))), None);
    }
}
