//! edge: what the operator asks of a running process: to stop; and SIGHUP, which ends no process of ours.

use super::out::Failed;
use shared::task;
use tokio::signal::unix::{SignalKind, signal};

/// Resolves at SIGTERM or SIGINT.
pub(crate) async fn stop() -> Result<(), Failed> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Failed::broken)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failed::broken)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping: running work finishes first");
    Ok(())
}

/// From here on a SIGHUP is heard, and no longer ends the process: whoever renews certificates sends it to all alike. (An ingress
/// with TLS looks at its files then; it listens for itself.)
pub(crate) fn outlive_hangups() {
    let Ok(mut hangups) = signal(SignalKind::hangup()).inspect_err(|error| tracing::warn!(%error, "a SIGHUP will end this process")) else {
        return;
    };
    task::spawn("hangups", async move {
        while hangups.recv().await.is_some() {
            tracing::info!("SIGHUP: certificates of a listener are read again, everything else at the next start");
        }
    });
}
