//! edge: everything the scheduler measures, by name. Labels are configured models, lanes and error codes: bounded.

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};
use shared::domain::Lane;
use shared::error::Code;
use shared::telemetry::{LATENCY_BUCKETS, SIZE_BUCKETS};
use std::time::Duration;

#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    depth: IntGaugeVec,
    credits: IntGaugeVec,
    outstanding: IntGaugeVec,
    batch_items: HistogramVec,
    queue_seconds: HistogramVec,
    failures: IntCounterVec,
    owned: IntGaugeVec,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str, labels: &[&str]| IntGaugeVec::new(Opts::new(name, help), labels);
        let histogram = |name: &str, help: &str, buckets: &[f64], labels: &[&str]| {
            HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels)
        };
        let metrics = Self {
            depth: gauge("tidemill_queue_depth", "Requests waiting in the scheduler.", &["model", "lane"])?,
            credits: gauge("tidemill_worker_credits", "Free call slots at live workers.", &["model"])?,
            outstanding: gauge("tidemill_outstanding_requests", "Requests at workers.", &["model"])?,
            batch_items: histogram("tidemill_batch_requests", "Requests per dispatched batch.", SIZE_BUCKETS, &["model"])?,
            queue_seconds: histogram("tidemill_queue_seconds", "Time from publication to dispatch.", LATENCY_BUCKETS, &["model", "lane"])?,
            failures: IntCounterVec::new(
                Opts::new("tidemill_scheduler_failures_total", "Requests failed before any worker."),
                &["model", "code"],
            )?,
            owned: gauge("tidemill_models_owned", "1 where this scheduler owns the model.", &["model"])?,
        };
        registry.register(Box::new(metrics.depth.clone()))?;
        registry.register(Box::new(metrics.credits.clone()))?;
        registry.register(Box::new(metrics.outstanding.clone()))?;
        registry.register(Box::new(metrics.batch_items.clone()))?;
        registry.register(Box::new(metrics.queue_seconds.clone()))?;
        registry.register(Box::new(metrics.failures.clone()))?;
        registry.register(Box::new(metrics.owned.clone()))?;
        Ok(metrics)
    }

    pub(crate) fn queue(&self, model: &str, lane: Lane, depth: usize) {
        self.depth.with_label_values(&[model, lane.as_str()]).set(count(depth));
    }

    pub(crate) fn credit(&self, model: &str, free: u32, outstanding: usize) {
        self.credits.with_label_values(&[model]).set(i64::from(free));
        self.outstanding.with_label_values(&[model]).set(count(outstanding));
    }

    #[expect(clippy::cast_precision_loss, reason = "batches are far below 2^52")]
    pub(crate) fn dispatched(&self, model: &str, requests: usize) {
        self.batch_items.with_label_values(&[model]).observe(requests as f64);
    }

    pub(crate) fn waited(&self, model: &str, lane: Lane, wait: Duration) {
        self.queue_seconds.with_label_values(&[model, lane.as_str()]).observe(wait.as_secs_f64());
    }

    pub(crate) fn failed(&self, model: &str, code: Code) {
        self.failures.with_label_values(&[model, code.as_str()]).inc();
    }

    pub(crate) fn owns(&self, model: &str, owns: bool) {
        self.owned.with_label_values(&[model]).set(i64::from(owns));
        if !owns {
            self.credit(model, 0, 0);
            Lane::ALL.into_iter().for_each(|lane| self.queue(model, lane, 0));
        }
    }
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
