//! `loadtest compare`: one command that reproduces the table of the README.

use super::{Failed, contenders, print};
use loadtest::arena::{Backend, Programs};
use loadtest::backend::Costs;
use loadtest::compare::{self, Progress, Settings, targets};
use loadtest::contender::{Contender, peer};
use loadtest::scenario::{self, Scenario};
use serde_json::json;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(long, default_value = "target/release/tidemill")]
    tidemill: PathBuf,
    /// Only these contenders; without it all.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    only: Option<Vec<String>>,
    /// Only these scenarios: standard ones by name, others by file (`.toml`).
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    scenarios: Option<Vec<String>>,
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds counted of each sample, instead of the scenario's.
    #[arg(long)]
    seconds: Option<f64>,
    /// Where all figures are written as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// A backend that runs, instead of the mock: the scenarios of embeddings alone, at its model.
    #[arg(long, value_name = "URL", requires = "model")]
    backend: Option<String>,
    /// That backend's embedding model, one that pads.
    #[arg(long, value_name = "NAME", requires = "backend")]
    model: Option<String>,
    /// Only install the peers.
    #[arg(long)]
    install: bool,
    /// Where peers are installed.
    #[arg(long, value_name = "FOLDER", default_value = ".tidemill/peers")]
    peers: PathBuf,
    #[command(flatten)]
    costs: Costs,
}

/// Whether everything was measured. A target that is missed is a figure, not a failure.
pub(crate) async fn run(args: Args) -> Result<bool, Failed> {
    let contenders = contenders(args.only.as_deref())?;
    if args.install {
        return Ok(install(&contenders, &args.peers));
    }
    let mut scenarios = scenarios(args.scenarios.as_deref(), args.model.as_deref())?;
    scenarios.iter_mut().for_each(|scenario| scenario.seconds = args.seconds.unwrap_or(scenario.seconds));
    let backend = match (args.backend, args.model) {
        (Some(url), Some(model)) => Backend::Model { url, model },
        _ => Backend::Program(std::env::current_exe()?),
    };
    let programs = Programs { tidemill: args.tidemill, backend, costs: args.costs, peers: args.peers };
    let settings = Settings { contenders, scenarios, rounds: args.rounds, programs };
    let report = compare::measure(settings, watch).await?;
    if let Some(file) = args.json {
        let all = json!({ "report": report, "targets": targets::of(&report) });
        std::fs::write(file, serde_json::to_string_pretty(&all)?)?;
    }
    print(&report.to_string())?;
    Ok(report.skipped.is_empty())
}

fn scenarios(names: Option<&[String]>, model: Option<&str>) -> Result<Vec<Scenario>, Failed> {
    let standard = match model {
        Some(model) => scenario::standard_of_model(model)?,
        None => scenario::standard()?,
    };
    let Some(names) = names else { return Ok(standard) };
    let found = |name: &String| standard.iter().find(|scenario| scenario.name == *name).cloned();
    let other = |name: &String| scenario(name).map(|scenario| if let Some(model) = model { scenario.of_model(model) } else { scenario });
    names.iter().map(|name| found(name).map_or_else(|| other(name), Ok)).collect()
}

fn scenario(name: &str) -> Result<Scenario, Failed> {
    let path = Path::new(name);
    if path.extension().is_none_or(|extension| extension != "toml") {
        return Ok(scenario::named(name)?);
    }
    let text = std::fs::read_to_string(path).map_err(|error| format!("{name}: {error}"))?;
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    Ok(scenario::parse(&stem, &text)?)
}

fn install(contenders: &[Contender], folder: &Path) -> bool {
    let peers = contenders.iter().filter_map(|contender| if let Contender::Peer(peer) = contender { Some(peer) } else { None });
    let failures = peers.filter_map(|peer| {
        eprintln!("installing {}", peer.name);
        let failure = peer::install(peer, folder).err()?;
        eprintln!("{}: {failure}", peer.name);
        Some(())
    });
    failures.count() == 0
}

fn watch(progress: &Progress<'_>) {
    match progress {
        Progress::Starting(name) => eprintln!("starting {name}"),
        Progress::Skipped(skipped) => eprintln!("{} is left out: {}", skipped.contender, skipped.reason),
        Progress::Measured(sample) => {
            let summary = &sample.summary;
            eprintln!(
                "round {} {:<10} {:<20} {:>9.1}/s p50 {:>7} µs, CPU {:>7.1} µs, {} failed",
                sample.round + 1,
                sample.scenario,
                sample.contender,
                summary.per_second,
                summary.p50_us,
                sample.cpu_us.unwrap_or_default(),
                summary.failed
            );
        }
    }
}
