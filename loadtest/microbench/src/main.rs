//! Micro-benchmarks of one request's road: instruction counts under callgrind for the gate `tests/counts`, wall time for the
//! curious. `cases.rs` says what is measured, `meter.rs` how.

mod baseline;
mod callgrind;
mod cases;
mod meter;

use clap::Parser;
use meter::Meter;
use mimalloc::MiMalloc;
use std::error::Error;
use std::fmt::Display;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The gateway's own.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// What stands above the recorded counts.
const HEADING: &str =
    "Instructions of one call of each micro-benchmark, counted by callgrind.\nAccept new ones with: tests/counts --accept";

/// Measures the hot pieces of one request's road.
#[derive(Parser)]
enum Task {
    /// Wall time of a call, for the cases whose names contain FILTER.
    Time {
        #[arg(default_value = "")]
        filter: String,
    },
    /// Instructions of a call, compared with those recorded in a file. Exit code 1: one rose by more than 5 %.
    Counts {
        recorded: PathBuf,
        /// Record what is counted now.
        #[arg(long)]
        accept: bool,
    },
    /// One case, for callgrind to watch.
    #[command(hide = true)]
    Count { case: String },
}

fn main() -> ExitCode {
    let done = match Task::parse() {
        Task::Time { filter } => time(&filter),
        Task::Counts { recorded, accept: true } => accept(&recorded),
        Task::Counts { recorded, accept: false } => check(&recorded),
        Task::Count { case } => count(&case),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("microbench: {error}");
            ExitCode::from(2)
        }
    }
}

/// Whether everything is as it should be.
type Done = Result<bool, Box<dyn Error>>;

fn time(filter: &str) -> Done {
    say(format_args!("{:44} {:>9} {:>9} {:>9}  ns", "case", "p10", "median", "p90"))?;
    for case in cases::all().iter().filter(|case| case.name.contains(filter)) {
        let mut meter = Meter::Time(Vec::new());
        case.run(&mut meter);
        let Meter::Time(mut spans) = meter else { continue };
        spans.sort_unstable();
        let [p10, median, p90] = [1, 5, 9].map(|tenths| spans[spans.len() * tenths / 10].as_nanos());
        say(format_args!("{:44} {p10:>9} {median:>9} {p90:>9}", case.name))?;
    }
    Ok(true)
}

fn accept(recorded: &Path) -> Done {
    let counted = callgrind::count_all(&cases::all())?;
    std::fs::write(recorded, baseline::render(&counted, HEADING))?;
    say(format_args!("{} counts recorded in {}", counted.len(), recorded.display()))?;
    Ok(true)
}

fn check(recorded: &Path) -> Done {
    let recorded = baseline::parse(&std::fs::read_to_string(recorded)?)?;
    let counted = callgrind::count_all(&cases::all())?;
    let changes = baseline::compare(&recorded, &counted);
    say(format_args!("{:44} {:>9} {:>9}", "instructions of a call", "recorded", "now"))?;
    for change in &changes {
        say(change)?;
    }
    let passes = changes.iter().all(baseline::Change::passes);
    if !passes {
        say("Find what rose and mend it; where it is worth its price, tests/counts --accept records it, for the commit to say why.")?;
    }
    Ok(passes)
}

fn count(name: &str) -> Done {
    let cases = cases::all();
    let case = cases.iter().find(|case| case.name == name).ok_or_else(|| format!("there is no case `{name}`"))?;
    case.run(&mut Meter::Count);
    Ok(true)
}

fn say(line: impl Display) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{line}")
}
