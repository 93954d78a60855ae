//! `loadtest growth`: the curves of docs/PERFORMANCE.md.

use super::{Failed, contenders, print};
use loadtest::arena::{Backend, Programs};
use loadtest::backend::Costs;
use loadtest::growth::axis::{self, Axis};
use loadtest::growth::{self, Progress, Settings, curves};
use loadtest::plot;
use std::path::PathBuf;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(long, default_value = "target/release/tidemill")]
    tidemill: PathBuf,
    /// These contenders. Peers must be installed: `loadtest compare --install`.
    #[arg(long, value_delimiter = ',', value_name = "NAMES", default_value = "tidemill-memory,tidemill-jetstream")]
    only: Vec<String>,
    /// Only these axes.
    #[arg(long, value_delimiter = ',', value_enum)]
    axes: Option<Vec<Axis>>,
    /// Seconds counted of each point.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Where all figures are written as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where a figure for each axis is drawn: `growth-AXIS.svg`.
    #[arg(long, value_name = "FOLDER")]
    plots: Option<PathBuf>,
    /// Where peers are installed.
    #[arg(long, value_name = "FOLDER", default_value = ".tidemill/peers")]
    peers: PathBuf,
}

/// Whether every point was measured.
pub(crate) async fn run(args: Args) -> Result<bool, Failed> {
    let backend = Backend::Program(std::env::current_exe()?);
    let programs = Programs { tidemill: args.tidemill, backend, costs: Costs::default(), peers: args.peers };
    let axes = args.axes.unwrap_or_else(|| axis::ALL.to_vec());
    let settings = Settings { contenders: contenders(Some(&args.only))?, axes, seconds: args.seconds, programs };
    let mut skipped = 0;
    let points = growth::measure(&settings, |progress| {
        watch(progress);
        skipped += usize::from(matches!(progress, Progress::Skipped(..)));
    })
    .await?;
    if let Some(file) = args.json {
        std::fs::write(file, serde_json::to_string_pretty(&points)?)?;
    }
    if let Some(folder) = args.plots {
        std::fs::create_dir_all(&folder)?;
        for &axis in &settings.axes {
            plot::draw(&folder.join(format!("growth-{axis}.svg")), axis.label(), &curves::panels(&points, axis))?;
        }
    }
    print(&curves::table(&points))?;
    Ok(skipped == 0)
}

fn watch(progress: &Progress<'_>) {
    match progress {
        Progress::Measured(point) => {
            let (at, sample) = (point.at, &point.sample);
            let (cpu, rate) = (sample.cpu_us.unwrap_or_default(), sample.summary.per_second);
            eprintln!("{} {at:>6} {:<20} {rate:>9.1}/s, CPU {cpu:>8.1} µs, {} failed", point.axis, sample.contender, sample.summary.failed);
        }
        Progress::Skipped(axis, at, contender, reason) => eprintln!("{axis} {at}: {contender} is left out: {reason}"),
    }
}
