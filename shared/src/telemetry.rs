//! edge: logs as JSON lines, and the registry that `/metrics` prints. What each role measures is in its own `metrics.rs`.

mod lines;

use lines::Lines;
use prometheus::{Encoder, Registry, TextEncoder};
use tracing_subscriber::EnvFilter;

static LINES: Lines = Lines::new();

/// Sends logs as JSON lines to standard error, a few milliseconds late: a process calls [`flush_logs`] before it ends. `filter` is a tracing directive such as `info` or `warn,ingress=debug`;
/// the environment's `TIDEMILL_LOG` wins.
pub fn init_logs(filter: &str) {
    let filter = std::env::var("TIDEMILL_LOG").unwrap_or_else(|_| filter.to_owned());
    let filter = EnvFilter::try_new(&filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let layer = tracing_subscriber::fmt().json().flatten_event(true).with_current_span(false).with_span_list(false);
    let started = layer.with_env_filter(filter).with_writer(|| &LINES).try_init();
    match started.map(|()| LINES.write_to(std::io::stderr())) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => eprintln!("the log cannot be written: {error}"),
        Err(_) => tracing::debug!("logs were already set up"),
    }
}

/// Waits until everything logged so far has been written.
pub fn flush_logs() {
    LINES.flush();
}

/// The metrics of this process in Prometheus's text format.
pub fn render(registry: &Registry) -> Vec<u8> {
    let mut text = Vec::with_capacity(8 * 1024);
    if let Err(error) = TextEncoder::new().encode(&registry.gather(), &mut text) {
        tracing::warn!(%error, "the metrics could not be printed");
    }
    text
}

/// Latency buckets, in seconds: from what a queue adds to what a long generation takes.
pub const LATENCY_BUCKETS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 600.0];

/// Batch sizes, in inputs.
pub const SIZE_BUCKETS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 24.0, 32.0, 48.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0];
