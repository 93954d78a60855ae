//! edge: what the ingress measures. All its metric names are here; labels are models of the configuration, operations and
//! error codes, so their number is bounded.

use prometheus::{Error, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use shared::domain::{Lane, Operation};
use shared::error::Code;
use shared::telemetry::{LATENCY_BUCKETS, SIZE_BUCKETS};
use std::time::Duration;

/// The label of what is not in the configuration or not said.
const UNKNOWN: &str = "unknown";

pub(crate) struct Metrics {
    requests: IntCounterVec,
    duration: HistogramVec,
    first_byte: HistogramVec,
    frame_requests: Histogram,
    pub(crate) in_flight: IntGauge,
    pub(crate) body_bytes: IntGauge,
    pub(crate) republished: IntCounter,
    pub(crate) asked_again: IntCounter,
    shed: IntCounterVec,
    pub(crate) cancelled: IntCounter,
    pub(crate) connections_refused: IntCounter,
    frames: IntCounter,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self, Error> {
        let counter = |name, help| registered(registry, IntCounter::new(name, help)?);
        let latency = |name: &str, help: &str| HistogramOpts::new(name, help).buckets(LATENCY_BUCKETS.to_vec());
        let requests = Opts::new("tidemill_requests_total", "Requests by model, operation and outcome (`ok` or an error code)");
        let duration = latency("tidemill_request_duration_seconds", "From a request's headers to the end of its answer");
        let first_byte = latency("tidemill_time_to_first_byte_seconds", "From a request's headers to the first part of its answer");
        let frame_requests =
            HistogramOpts::new("tidemill_frame_requests", "Requests in one published frame").buckets(SIZE_BUCKETS.to_vec());
        let shed = Opts::new("tidemill_requests_shed_total", "Requests refused because their model's queue was longer than their time");
        Ok(Self {
            requests: registered(registry, IntCounterVec::new(requests, &["model", "operation", "code"])?)?,
            duration: registered(registry, HistogramVec::new(duration, &["model", "lane"])?)?,
            first_byte: registered(registry, HistogramVec::new(first_byte, &["model"])?)?,
            frame_requests: registered(registry, Histogram::with_opts(frame_requests)?)?,
            in_flight: registered(registry, IntGauge::new("tidemill_requests_in_flight", "Requests being served")?)?,
            body_bytes: registered(registry, IntGauge::new("tidemill_body_bytes", "Bytes of request bodies in memory")?)?,
            shed: registered(registry, IntCounterVec::new(shed, &["model"])?)?,
            republished: counter("tidemill_republished_total", "Lost requests that were published again")?,
            asked_again: counter("tidemill_parts_asked_again_total", "Times a worker was asked for parts of a stream again")?,
            cancelled: counter("tidemill_cancelled_total", "Cancels posted to schedulers and workers")?,
            connections_refused: counter("tidemill_connections_refused_total", "Connections of addresses that had too many")?,
            frames: counter("tidemill_frames_published_total", "Frames handed to the broker")?,
        })
    }

    /// A frame of `requests` requests is about to be published.
    pub(crate) fn frame(&self, requests: usize) {
        self.frames.inc();
        self.frame_requests.observe(u32::try_from(requests).map_or(f64::INFINITY, f64::from));
    }

    /// A request was refused before it was queued. `model` is one of the configuration's.
    pub(crate) fn shed(&self, model: &str) {
        self.shed.with_label_values(&[model]).inc();
    }

    pub(crate) fn first_byte(&self, model: Option<&str>, after: Duration) {
        self.first_byte.with_label_values(&[model.unwrap_or(UNKNOWN)]).observe(after.as_secs_f64());
    }

    /// A request has ended. `model` is one of the configuration's.
    pub(crate) fn ended(&self, model: Option<&str>, op: Option<Operation>, code: Option<Code>, after: Duration) {
        let model = model.unwrap_or(UNKNOWN);
        let code = code.map_or("ok", Code::as_str);
        self.requests.with_label_values(&[model, op.map_or("other", Operation::path), code]).inc();
        self.duration.with_label_values(&[model, Lane::Interactive.as_str()]).observe(after.as_secs_f64());
    }
}

/// What a listener with TLS measures beside the rest.
pub(crate) struct TlsMetrics {
    expiry: IntGauge,
    reloads: IntCounterVec,
}

impl TlsMetrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self, Error> {
        let expiry = IntGauge::new("tidemill_tls_certificate_expiry_seconds", "When the certificate in use expires, in Unix time")?;
        let reloads = Opts::new("tidemill_tls_reloads_total", "Changed certificates by result: `used`, or `refused` and the old one kept");
        Ok(Self { expiry: registered(registry, expiry)?, reloads: registered(registry, IntCounterVec::new(reloads, &["result"])?)? })
    }

    pub(crate) fn shown(&self, expires_at_unix: u64) {
        self.expiry.set(i64::try_from(expires_at_unix).unwrap_or(i64::MAX));
    }

    pub(crate) fn reloaded(&self, is_used: bool) {
        self.reloads.with_label_values(&[if is_used { "used" } else { "refused" }]).inc();
    }
}

/// What becomes of webhooks.
pub(crate) struct WebhookMetrics {
    ended: IntCounterVec,
}

impl WebhookMetrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self, Error> {
        let ended = Opts::new("tidemill_webhooks_total", "Tries by outcome: `delivered`, `failed`, `given_up`, or `lost` to a full store");
        Ok(Self { ended: registered(registry, IntCounterVec::new(ended, &["outcome"])?)? })
    }

    pub(crate) fn ended(&self, outcome: &'static str) {
        self.ended.with_label_values(&[outcome]).inc();
    }
}

fn registered<C: prometheus::core::Collector + Clone + 'static>(registry: &Registry, collector: C) -> Result<C, Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}
