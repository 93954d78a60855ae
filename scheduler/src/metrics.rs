//! edge: everything the scheduler measures, by name. Labels are configured models, lanes and error codes: bounded.

use crate::engine::Breaker;
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};
use shared::domain::{Lane, NodeId};
use shared::error::Code;
use shared::quota::{Refusal, Settled};
use shared::telemetry::{LATENCY_BUCKETS, SIZE_BUCKETS};
use shared::wire::Fault;
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    depth: IntGaugeVec,
    credits: IntGaugeVec,
    outstanding: IntGaugeVec,
    batch_requests: HistogramVec,
    queue_seconds: HistogramVec,
    failures: IntCounterVec,
    returned: IntCounterVec,
    retries: IntCounterVec,
    breakers: IntGaugeVec,
    limits: IntGaugeVec,
    fallbacks: IntCounterVec,
    owned: IntGaugeVec,
    refusals: IntCounterVec,
    overrun: IntCounterVec,
    reservations: IntGaugeVec,
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
            batch_requests: histogram("tidemill_batch_requests", "Requests per dispatched batch.", SIZE_BUCKETS, &["model"])?,
            queue_seconds: histogram("tidemill_queue_seconds", "Time from publication to dispatch.", LATENCY_BUCKETS, &["model", "lane"])?,
            failures: IntCounterVec::new(
                Opts::new(
                    "tidemill_scheduler_failures_total",
                    "Requests failed by the scheduler: before any worker, or after their last try.",
                ),
                &["model", "code"],
            )?,
            returned: IntCounterVec::new(
                Opts::new("tidemill_returned_requests_total", "Requests given back by a worker because their call failed."),
                &["model", "fault"],
            )?,
            retries: IntCounterVec::new(Opts::new("tidemill_retries_total", "Requests queued for another call."), &["model"])?,
            breakers: gauge(
                "tidemill_breakers_open",
                "1 while a backend fails and is not called, or only for a trial.",
                &["model", "backend"],
            )?,
            limits: gauge(
                "tidemill_backend_concurrency",
                "Calls that a backend is given at once: what is configured, or less while that is too much.",
                &["model", "backend"],
            )?,
            fallbacks: IntCounterVec::new(
                Opts::new("tidemill_fallbacks_total", "Requests sent on to another model, because this one's backends failed."),
                &["model", "to"],
            )?,
            owned: gauge("tidemill_models_owned", "1 where this scheduler owns the model.", &["model"])?,
            refusals: IntCounterVec::new(
                Opts::new("tidemill_quota_refusals_total", "Requests that a limit did not allow when they were asked for."),
                &["model", "reason"],
            )?,
            overrun: IntCounterVec::new(
                Opts::new("tidemill_quota_overrun_tokens_total", "Tokens used beyond what was reserved, which the refill pays back."),
                &["model"],
            )?,
            reservations: gauge("tidemill_quota_reservations", "Reservations open for this scheduler's requests.", &["model"])?,
        };
        registry.register(Box::new(metrics.depth.clone()))?;
        registry.register(Box::new(metrics.credits.clone()))?;
        registry.register(Box::new(metrics.outstanding.clone()))?;
        registry.register(Box::new(metrics.batch_requests.clone()))?;
        registry.register(Box::new(metrics.queue_seconds.clone()))?;
        registry.register(Box::new(metrics.failures.clone()))?;
        registry.register(Box::new(metrics.returned.clone()))?;
        registry.register(Box::new(metrics.retries.clone()))?;
        registry.register(Box::new(metrics.breakers.clone()))?;
        registry.register(Box::new(metrics.limits.clone()))?;
        registry.register(Box::new(metrics.fallbacks.clone()))?;
        registry.register(Box::new(metrics.owned.clone()))?;
        registry.register(Box::new(metrics.refusals.clone()))?;
        registry.register(Box::new(metrics.overrun.clone()))?;
        registry.register(Box::new(metrics.reservations.clone()))?;
        Ok(metrics)
    }

    pub(crate) fn of_quota(&self, model: &str) -> QuotaMetrics {
        QuotaMetrics {
            refusals: self.refusals.clone(),
            overrun: self.overrun.with_label_values(&[model]),
            reservations: self.reservations.with_label_values(&[model]),
            model: model.into(),
        }
    }

    /// The measures of one model, looked up once.
    pub(crate) fn of_model(&self, model: &str) -> ModelMetrics {
        let lanes = Lane::ALL.map(|lane| {
            let labels = [model, lane.as_str()];
            (self.depth.with_label_values(&labels), self.queue_seconds.with_label_values(&labels))
        });
        ModelMetrics {
            lanes,
            credits: self.credits.with_label_values(&[model]),
            outstanding: self.outstanding.with_label_values(&[model]),
            batch_requests: self.batch_requests.with_label_values(&[model]),
            owned: self.owned.with_label_values(&[model]),
            failures: self.failures.clone(),
            returned: self.returned.clone(),
            retries: self.retries.with_label_values(&[model]),
            breakers: self.breakers.clone(),
            limits: self.limits.clone(),
            fallbacks: self.fallbacks.clone(),
            model: model.into(),
        }
    }
}

/// What one model's quota counter measures.
#[derive(Clone, Debug)]
pub(crate) struct QuotaMetrics {
    refusals: IntCounterVec,
    overrun: IntCounter,
    reservations: IntGauge,
    model: Box<str>,
}

impl QuotaMetrics {
    pub(crate) fn refused(&self, refusal: &Refusal) {
        self.refusals.with_label_values(&[&*self.model, refusal.reason.as_str()]).inc();
    }

    pub(crate) fn settled(&self, settled: Settled) {
        if let Settled::Open { overrun } = settled {
            self.overrun.inc_by(overrun);
        }
    }

    pub(crate) fn open(&self, reservations: usize) {
        self.reservations.set(count(reservations));
    }
}

#[derive(Clone, Debug)]
pub(crate) struct ModelMetrics {
    lanes: [(IntGauge, Histogram); Lane::ALL.len()],
    credits: IntGauge,
    outstanding: IntGauge,
    batch_requests: Histogram,
    owned: IntGauge,
    failures: IntCounterVec,
    returned: IntCounterVec,
    retries: IntCounter,
    breakers: IntGaugeVec,
    limits: IntGaugeVec,
    fallbacks: IntCounterVec,
    model: Box<str>,
}

impl ModelMetrics {
    pub(crate) fn queue(&self, lane: Lane, depth: usize) {
        self.lanes[lane.index()].0.set(count(depth));
    }

    pub(crate) fn credit(&self, free: u32, outstanding: usize) {
        self.credits.set(i64::from(free));
        self.outstanding.set(count(outstanding));
    }

    #[expect(clippy::cast_precision_loss, reason = "batches are far below 2^52")]
    pub(crate) fn dispatched(&self, requests: usize) {
        self.batch_requests.observe(requests as f64);
    }

    pub(crate) fn waited(&self, lane: Lane, wait: Duration) {
        self.lanes[lane.index()].1.observe(wait.as_secs_f64());
    }

    pub(crate) fn failed(&self, code: Code) {
        self.failures.with_label_values(&[&*self.model, code.as_str()]).inc();
    }

    pub(crate) fn returned(&self, fault: Fault, requests: usize) {
        self.returned.with_label_values(&[&*self.model, fault.as_str()]).inc_by(requests as u64);
    }

    pub(crate) fn retried(&self, requests: u64) {
        if requests > 0 {
            self.retries.inc_by(requests);
        }
    }

    /// Where each worker has a backend of its own, as many as are open.
    pub(crate) fn breakers<'a>(&self, breakers: impl Iterator<Item = (&'a str, Option<&'a NodeId>, Breaker)>) {
        let mut open: BTreeMap<&str, i64> = BTreeMap::new();
        breakers.for_each(|(backend, _, state)| *open.entry(backend).or_default() += i64::from(state != Breaker::Closed));
        open.into_iter().for_each(|(backend, open)| self.breakers.with_label_values(&[&*self.model, backend]).set(open));
    }

    /// Where each worker has a backend of its own, all of them together.
    pub(crate) fn limits<'a>(&self, limits: impl Iterator<Item = (&'a str, u32)>) {
        let mut calls: BTreeMap<&str, i64> = BTreeMap::new();
        limits.for_each(|(backend, limit)| *calls.entry(backend).or_default() += i64::from(limit));
        calls.into_iter().for_each(|(backend, calls)| self.limits.with_label_values(&[&*self.model, backend]).set(calls));
    }

    pub(crate) fn fell_back(&self, to: &str) {
        self.fallbacks.with_label_values(&[&*self.model, to]).inc();
    }

    pub(crate) fn owns(&self, owns: bool) {
        self.owned.set(i64::from(owns));
        if !owns {
            self.credit(0, 0);
            Lane::ALL.into_iter().for_each(|lane| self.queue(lane, 0));
        }
    }
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
