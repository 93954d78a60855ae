//! edge: waits for the operator's wish to stop.

use super::out::Failed;
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
