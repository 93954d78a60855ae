//! loop: one scenario met by one contender: what its callers saw, and what its processes cost.

use crate::clock::Stopwatch;
use crate::contender::{self, Running};
use crate::load;
use crate::process::{self, ProcessCpu};
use crate::report::Summary;
use crate::scenario::Scenario;
use crate::work::Work;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    pub scenario: String,
    pub contender: &'static str,
    pub round: usize,
    pub summary: Summary,
    pub failures: BTreeMap<String, u64>,
    /// Microseconds of CPU time of all its processes for one request, failed ones included. Absent without processes or requests.
    pub cpu_us: Option<f64>,
    /// Of the counted window.
    pub processes: Vec<ProcessCpu>,
    /// Resident memory: each process's highest in this sample, summed.
    pub peak_kib: u64,
}

/// A scenario with its requests made, once for all samples.
#[derive(Clone, Debug)]
pub struct Prepared {
    pub scenario: Scenario,
    works: Arc<[Work]>,
}

/// CPU times over the counted window. It may end late on a busy machine: it is as long as it says.
struct Spent {
    processes: Vec<ProcessCpu>,
    window: Duration,
}

impl Prepared {
    pub fn new(scenario: Scenario) -> Self {
        Self { works: scenario.works(), scenario }
    }
}

/// Runs the scenario once.
pub async fn sample(running: &Running, prepared: &Prepared, round: usize) -> Sample {
    let Prepared { scenario, works } = prepared;
    let keys: Vec<String> = (0..scenario.tenants).map(contender::key).collect();
    let client = running.client.clone().with_keys(keys.iter().map(String::as_str));
    let client = scenario.headers.iter().fold(client, |client, (name, value)| client.with_header(name, value));
    process::reset_peaks(&running.processes());
    let (outcome, spent) = tokio::join!(load::run_mix(&client, Arc::clone(works), scenario.plan()), spent(running, scenario));
    let summary = outcome.summary();
    Sample {
        scenario: scenario.name.clone(),
        contender: running.name,
        round,
        cpu_us: spent.per_request(&summary),
        summary,
        failures: outcome.failures,
        processes: spent.processes,
        peak_kib: process::peak_kib(&running.processes()),
    }
}

async fn spent(running: &Running, scenario: &Scenario) -> Spent {
    sleep(scenario.warm_up()).await;
    let (began, before) = (Stopwatch::start(), process::cpu_times(&running.processes()));
    sleep(scenario.span()).await;
    let window = began.elapsed();
    Spent { processes: process::cpu_times(&running.processes()).since(&before), window }
}

impl Spent {
    fn per_request(&self, summary: &Summary) -> Option<f64> {
        let requests = (summary.answered + summary.failed) as f64 * self.window.as_secs_f64() / summary.seconds;
        let seconds: f64 = self.processes.iter().map(|process| process.seconds).sum();
        (requests > 0.0 && !self.processes.is_empty()).then(|| seconds * 1e6 / requests)
    }
}
