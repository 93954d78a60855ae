//! loop: the batching measurement: the same callers straight at one serialised accelerator, then through Tidemill.
//!
//! The roads take turns in every round, so that a noisy machine is noisy for all of them; medians of the rounds count.
//! Only the ratios mean anything.

use crate::child::{Child, ChildError};
use crate::client::{Client, ClientError};
use crate::load::{self, Plan, Until};
use crate::nats::NatsServer;
use crate::report::{Summary, median};
use crate::work::{Check, Mode, Work};
use serde::Serialize;
use serde_json::{Value, json};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// What to measure, and with which programs.
#[derive(Clone, Debug)]
pub struct Settings {
    pub tidemill: PathBuf,
    /// None: in process only.
    pub nats: Option<Nats>,
    pub callers: Vec<usize>,
    pub rounds: usize,
    pub span: Duration,
    pub texts: Vec<String>,
}

/// The broker of the measured JetStream road.
#[derive(Clone, Debug)]
pub enum Nats {
    Url(String),
    Program(PathBuf),
}

#[derive(Debug, thiserror::Error)]
pub enum BatchingError {
    #[error(transparent)]
    Child(#[from] ChildError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("a file of the measurement: {0}")]
    File(#[from] std::io::Error),
    #[error("the backend's own answers could not be learned: {0}")]
    Learn(String),
}

/// One road at one number of callers: medians over the rounds.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub road: &'static str,
    pub callers: usize,
    pub per_second: f64,
    /// To the road `direct` with as many callers.
    pub ratio: f64,
    /// Inputs in one backend call.
    pub batch_mean: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    /// Over all rounds; a wrong vector is a failure too.
    pub failed: u64,
}

#[derive(Clone, Debug, Serialize)]
pub struct Table(pub Vec<Row>);

/// The accelerator of the targets: 5 ms a call and 0.15 ms an input, one call at a time.
const ACCELERATOR: [&str; 6] = ["--a-ms", "5", "--b-ms", "0.15", "--concurrency", "1"];
const MODEL: &str = "accelerator";
const KEY: &str = "sk-loadtest";
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Inputs of one call that learns the backend's own answers.
const LEARN_INPUTS: usize = 64;

struct Road {
    name: &'static str,
    client: Client,
}

struct Sample {
    summary: Summary,
    batch_mean: f64,
}

/// Runs every road at every number of callers.
pub async fn measure(settings: &Settings) -> Result<Table, BatchingError> {
    let folder = tempfile::tempdir()?;
    let mut sandbox = start_sandbox(settings, folder.path())?;
    let backend = Client::new(&sandbox.printed("listening on ", START_TIMEOUT).await?, "");
    let config = folder.path().join("tidemill.yaml");
    std::fs::write(&config, config_yaml(backend.base()))?;
    let nats = start_nats(settings, folder.path()).await?;

    let mut mills = vec![start_mill(settings, folder.path(), "in process", &config, "memory")?];
    if let Some(url) = nats.as_ref().map(NatsServer::url).or_else(|| given_url(settings)) {
        mills.push(start_mill(settings, folder.path(), "over JetStream", &config, &url)?);
    }
    let mut roads = vec![Road { name: "direct", client: backend.clone() }];
    for (name, child) in &mut mills {
        roads.push(Road { name, client: Client::new(&child.printed("listening on ", START_TIMEOUT).await?, KEY) });
    }

    let work = learn(&backend, &settings.texts).await?;
    let mut rows = Vec::new();
    for &callers in &settings.callers {
        rows.extend(rounds(settings, &backend, &roads, &work, callers).await?);
    }
    Ok(Table(rows))
}

fn start_sandbox(settings: &Settings, folder: &Path) -> Result<Child, ChildError> {
    let mut command = Command::new(&settings.tidemill);
    command.args(["sandbox", "--listen", "127.0.0.1:0"]).args(ACCELERATOR);
    Child::start("sandbox", command, folder)
}

async fn start_nats(settings: &Settings, folder: &Path) -> Result<Option<NatsServer>, ChildError> {
    match &settings.nats {
        Some(Nats::Program(program)) => NatsServer::start(program.clone(), folder).await.map(Some),
        Some(Nats::Url(_)) | None => Ok(None),
    }
}

fn given_url(settings: &Settings) -> Option<String> {
    match &settings.nats {
        Some(Nats::Url(url)) => Some(url.clone()),
        _ => None,
    }
}

fn start_mill(
    settings: &Settings,
    folder: &Path,
    name: &'static str,
    config: &Path,
    nats: &str,
) -> Result<(&'static str, Child), ChildError> {
    let mut command = Command::new(&settings.tidemill);
    command.args(["up", "--listen", "127.0.0.1:0", "--dev-key", KEY, "--nats", nats, "--config"]).arg(config);
    Ok((name, Child::start(&name.replace(' ', "-"), command, folder)?))
}

fn config_yaml(backend: &str) -> String {
    format!(
        "models:\n  - name: {MODEL}\n    kind: array\n    backends:\n      - {{ kind: openai, url: \"{backend}/v1\", model: sandbox-embedding, concurrency: 1 }}\n"
    )
}

/// Asks the backend itself for every text's vector, so that each answer on the way can be compared byte by byte.
async fn learn(backend: &Client, texts: &[String]) -> Result<Work, BatchingError> {
    let mut vectors = Vec::with_capacity(texts.len());
    for inputs in texts.chunks(LEARN_INPUTS) {
        let body = json!({ "model": "sandbox-embedding", "input": inputs, "encoding_format": "base64" });
        let answer = backend.post("/v1/embeddings", body.to_string()).await?;
        let data = answer.json()["data"].as_array().cloned().unwrap_or_default();
        let strings: Vec<String> = data.iter().filter_map(|d| d["embedding"].as_str().map(str::to_owned)).collect();
        if strings.len() != inputs.len() {
            return Err(BatchingError::Learn(format!("{} vectors for {} texts (status {})", strings.len(), inputs.len(), answer.status)));
        }
        vectors.extend(strings);
    }
    let check = Check::Contains(vectors.into());
    Ok(Work { mode: Mode::Embed, model: MODEL.into(), inputs: 1, texts: Arc::from(texts), check })
}

async fn rounds(settings: &Settings, backend: &Client, roads: &[Road], work: &Work, callers: usize) -> Result<Vec<Row>, BatchingError> {
    let mut samples: Vec<Vec<Sample>> = roads.iter().map(|_| Vec::new()).collect();
    for _ in 0..settings.rounds {
        for (road, samples) in roads.iter().zip(&mut samples) {
            samples.push(sample(settings, backend, road, work, callers).await?);
        }
    }
    let mut rows: Vec<Row> = roads.iter().zip(&samples).map(|(road, samples)| Row::of(road.name, callers, samples)).collect();
    let direct = rows.first().map_or(0.0, |row| row.per_second);
    for row in &mut rows {
        row.ratio = if direct > 0.0 { row.per_second / direct } else { 0.0 };
    }
    Ok(rows)
}

async fn sample(settings: &Settings, backend: &Client, road: &Road, work: &Work, callers: usize) -> Result<Sample, BatchingError> {
    backend.post("/stats/reset", "").await?;
    let outcome = load::run(&road.client, work, Plan::closed(callers, Until::Elapsed(settings.span))).await;
    let stats = backend.get("/stats").await?.json();
    Ok(Sample { summary: outcome.summary(), batch_mean: mean_batch(&stats) })
}

fn mean_batch(stats: &Value) -> f64 {
    let field = |name: &str| stats[name].as_f64().unwrap_or_default();
    if field("embed_calls") > 0.0 { field("embed_items") / field("embed_calls") } else { 0.0 }
}

impl Row {
    fn of(road: &'static str, callers: usize, samples: &[Sample]) -> Self {
        let middle = |figure: fn(&Sample) -> f64| median(samples.iter().map(figure).collect());
        Self {
            road,
            callers,
            per_second: middle(|s| s.summary.per_second),
            ratio: 0.0,
            batch_mean: middle(|s| s.batch_mean),
            p50_us: middle(|s| s.summary.p50_us as f64),
            p99_us: middle(|s| s.summary.p99_us as f64),
            failed: samples.iter().map(|s| s.summary.failed).sum(),
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<16}{:>8}{:>10}{:>8}{:>8}{:>10}{:>10}{:>8}",
            "road", "callers", "per s", "ratio", "batch", "p50 ms", "p99 ms", "failed"
        )?;
        for row in &self.0 {
            let Row { road, callers, per_second, ratio, batch_mean, failed, .. } = row;
            let (p50, p99) = (row.p50_us / 1e3, row.p99_us / 1e3);
            writeln!(f, "{road:<16}{callers:>8}{per_second:>10.1}{ratio:>8.2}{batch_mean:>8.1}{p50:>10.2}{p99:>10.2}{failed:>8}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_batch_is_inputs_by_calls() {
        assert!((mean_batch(&json!({ "embed_calls": 4, "embed_items": 100 })) - 25.0).abs() < 1e-9);
        assert!(mean_batch(&json!({})) < 1e-9, "no call, no batch");
    }
}
