//! edge: everything a worker measures, by name. Labels are configured models and backends, and error codes: bounded.

use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use shared::error::Code;
use shared::telemetry::{LATENCY_BUCKETS, SIZE_BUCKETS};
use std::time::Duration;

#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    calls: IntCounterVec,
    call_seconds: HistogramVec,
    call_inputs: HistogramVec,
    running: IntGauge,
    unrecorded: IntCounter,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let histogram = |name: &str, help: &str, buckets: &[f64], labels: &[&str]| {
            HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels)
        };
        let outcome = Opts::new("tidemill_backend_calls_total", "Backend calls by how they ended.");
        let metrics = Self {
            calls: IntCounterVec::new(outcome, &["model", "backend", "outcome"])?,
            call_seconds: histogram("tidemill_backend_seconds", "Backend calls, start to end.", LATENCY_BUCKETS, &["model", "backend"])?,
            call_inputs: histogram("tidemill_backend_call_inputs", "Inputs per array call.", SIZE_BUCKETS, &["model", "backend"])?,
            running: IntGauge::new("tidemill_worker_running", "Requests that this worker runs.")?,
            unrecorded: IntCounter::new(
                "tidemill_usage_dropped_total",
                "Ended calls that are in no usage record: the broker was away for too long.",
            )?,
        };
        registry.register(Box::new(metrics.calls.clone()))?;
        registry.register(Box::new(metrics.call_seconds.clone()))?;
        registry.register(Box::new(metrics.call_inputs.clone()))?;
        registry.register(Box::new(metrics.running.clone()))?;
        registry.register(Box::new(metrics.unrecorded.clone()))?;
        Ok(metrics)
    }

    /// A call ended: answered, or with this code.
    pub(crate) fn called(&self, model: &str, backend: &str, took: Duration, failed: Option<Code>) {
        let outcome = failed.map_or("ok", Code::as_str);
        self.calls.with_label_values(&[model, backend, outcome]).inc();
        self.call_seconds.with_label_values(&[model, backend]).observe(took.as_secs_f64());
    }

    pub(crate) fn inputs(&self, model: &str, backend: &str, inputs: u32) {
        self.call_inputs.with_label_values(&[model, backend]).observe(f64::from(inputs));
    }

    /// This many ended calls will never be in the usage journal.
    pub(crate) fn unrecorded(&self, calls: usize) {
        self.unrecorded.inc_by(u64::try_from(calls).unwrap_or(u64::MAX));
    }

    pub(crate) fn running(&self, requests: usize) {
        self.running.set(i64::try_from(requests).unwrap_or(i64::MAX));
    }
}
