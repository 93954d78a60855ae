//! loop: the comparison: every scenario, met by every contender, in every round, in alternating order.
//!
//! All contenders stand ready the whole time, so that those compared are measured within seconds of each other. Only
//! ratios within a round mean anything; the tables hold medians over the rounds.

use crate::backend::Costs;
use crate::child::{Child, ChildError};
use crate::contender::{Contender, ContenderError, Running, Stage, peer};
use crate::measure::{self, Prepared, Sample};
use crate::nats;
use crate::scenario::Scenario;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

pub mod figures;
mod padding;
pub mod table;
pub mod targets;

/// What to compare, and with which programs.
#[derive(Clone, Debug)]
pub struct Settings {
    pub contenders: Vec<Contender>,
    pub scenarios: Vec<Scenario>,
    pub rounds: usize,
    pub tidemill: PathBuf,
    pub backend: Backend,
    pub costs: Costs,
    /// Where peers are installed.
    pub peers: PathBuf,
}

/// The backend behind all contenders.
#[derive(Clone, Debug)]
pub enum Backend {
    /// This program, started as `loadtest backend`.
    Program(PathBuf),
    /// One that runs, with the same costs.
    Url(String),
}

#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    #[error(transparent)]
    Child(#[from] ChildError),
    #[error("a file of the measurement: {0}")]
    File(#[from] std::io::Error),
    #[error("there is no `{0}`; build it with `cargo build --release --workspace`, or name it with --tidemill")]
    NoTidemill(PathBuf),
}

/// All that was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub scenarios: Vec<Scenario>,
    pub costs: Costs,
    pub samples: Vec<Sample>,
    pub skipped: Vec<Skipped>,
}

/// A contender that could not be measured, and why.
#[derive(Clone, Debug, Serialize)]
pub struct Skipped {
    pub contender: &'static str,
    pub reason: String,
}

/// What happened just now, for whoever watches.
pub enum Progress<'a> {
    Starting(&'static str),
    Skipped(&'a Skipped),
    Measured(&'a Sample),
}

const BACKEND_TIMEOUT: Duration = Duration::from_secs(10);

/// Between two samples: what the last contender still had to tidy up does not fall to the next.
const PAUSE: Duration = Duration::from_millis(150);

/// Measures all of it.
pub async fn measure(settings: Settings, mut watch: impl FnMut(&Progress<'_>)) -> Result<Report, CompareError> {
    let folder = tempfile::tempdir()?;
    let (_backend, url) = start_backend(&settings, folder.path()).await?;
    let stage = stage(&settings, folder.path(), url)?;
    let mut report = Report { scenarios: settings.scenarios.clone(), costs: settings.costs, samples: Vec::new(), skipped: Vec::new() };
    let mut running = Vec::new();
    for contender in settings.contenders {
        watch(&Progress::Starting(contender.name()));
        match start(contender, &stage).await {
            Ok(started) => running.push(started),
            Err(error) => {
                report.skipped.push(Skipped { contender: contender.name(), reason: error.to_string() });
                report.skipped.last().into_iter().for_each(|skipped| watch(&Progress::Skipped(skipped)));
            }
        }
    }
    let prepared: Vec<Prepared> = settings.scenarios.into_iter().map(Prepared::new).collect();
    for round in 0..settings.rounds {
        for prepared in &prepared {
            for running in order(&running, round).filter(|running| prepared.scenario.is_for(running.name)) {
                tokio::time::sleep(PAUSE).await;
                let sample = measure::sample(running, prepared, round).await;
                watch(&Progress::Measured(&sample));
                report.samples.push(sample);
            }
        }
    }
    Ok(report)
}

/// Every other round backwards: who is measured first is not always the same.
fn order(running: &[Running], round: usize) -> Box<dyn Iterator<Item = &Running> + '_> {
    if round.is_multiple_of(2) { Box::new(running.iter()) } else { Box::new(running.iter().rev()) }
}

/// Starts a contender; a peer that is missing is installed first.
async fn start(contender: Contender, stage: &Stage) -> Result<Running, ContenderError> {
    if let Contender::Peer(peer) = contender {
        peer::install(peer, &stage.peers)?;
    }
    contender.start(stage).await
}

fn stage(settings: &Settings, folder: &Path, backend: String) -> Result<Stage, CompareError> {
    let needs_tidemill = settings.contenders.iter().any(|contender| matches!(contender, Contender::Tidemill(_)));
    if needs_tidemill && !settings.tidemill.is_file() {
        return Err(CompareError::NoTidemill(settings.tidemill.clone()));
    }
    Ok(Stage {
        folder: folder.to_owned(),
        backend,
        // Contenders run in folders of their own.
        tidemill: std::path::absolute(&settings.tidemill)?,
        nats_server: nats::find(Path::new(".")).map(std::path::absolute).transpose()?,
        peers: std::path::absolute(&settings.peers)?,
        tenants: settings.scenarios.iter().map(|scenario| scenario.tenants).max().unwrap_or(1),
        extra_models: 0,
    })
}

async fn start_backend(settings: &Settings, folder: &Path) -> Result<(Option<Child>, String), ChildError> {
    let program = match &settings.backend {
        Backend::Url(url) => return Ok((None, url.clone())),
        Backend::Program(program) => program,
    };
    let mut command = Command::new(program);
    command.args(["backend", "--listen", "127.0.0.1:0"]).args(settings.costs.arguments());
    let mut child = Child::start_tree("backend", command, folder)?;
    let url = child.printed("listening on ", BACKEND_TIMEOUT).await?;
    Ok((Some(child), url))
}
