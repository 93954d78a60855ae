//! `tidemill embed`: a column of a file becomes a column of vectors, by way of batches that outlive this process.
//!
//! The rows are cut into batch files, and what comes of them goes to a spool, where each vector has its row's place; the output
//! is written from there in one go. A journal beside the output says what has been done (`embed/journal.rs`).

mod cut;
mod folder;
mod format;
mod harvest;
mod input;
mod journal;
mod outcome;
mod output;
mod plan;
mod run;
mod spool;

use super::api::{Api, Server};
use super::out::{self, Failed};
use super::progress::{Progress, rate};
use folder::Folder;
use format::Format;
use input::Input;
use journal::{Entry, Journal, Purpose};
use output::Target;
use plan::Plan;
use run::{Job, Run};
use shared::clock;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long to go on while the server cannot be reached: longer than anybody takes to start it again.
const PATIENCE: Duration = Duration::from_secs(900);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    server: Server,
    /// A .jsonl, .csv or .parquet file.
    input: PathBuf,
    /// The .parquet, .jsonl or .npy file to write. Until it is whole, OUTPUT.progress beside it holds what is there: the same
    /// command goes on from there.
    #[arg(short, long)]
    output: PathBuf,
    /// The embedding model.
    #[arg(short, long)]
    model: String,
    /// The column with the texts.
    #[arg(long, value_name = "NAME", default_value = "text")]
    column: String,
    /// The column for the vectors.
    #[arg(long, value_name = "NAME", default_value = "embedding")]
    vector_column: String,
    /// Write the vectors without the input's columns.
    #[arg(long)]
    only_vectors: bool,
    /// Ask for vectors of this length.
    #[arg(long, value_name = "NUMBER")]
    dimensions: Option<u32>,
    /// Within what time each batch must be done, such as 24h.
    #[arg(long, value_name = "SPAN", default_value = "24h")]
    completion_window: String,
    /// Rows of one batch, at most.
    #[arg(long, value_name = "NUMBER", default_value_t = cut::LINES_MAX, value_parser = clap::value_parser!(u64).range(1..=cut::LINES_MAX))]
    batch_rows: u64,
}

pub(crate) async fn run(args: Args) -> Result<(), Failed> {
    let began = clock::now();
    let (input, target) = (input(&args)?, target(&args)?);
    target.check(&input)?;
    let folder = Folder::beside(&target.path);
    if target.path.exists() && !folder.exists() {
        return Err(Failed::refused(format!("{} is there already: remove it, or write another file", target.path.display())));
    }
    let (plan, journal) = begin(&args, &input, &folder)?;
    let before = plan.fetched().0;
    let api = Api::new(&args.server, PATIENCE)?;
    let job = Job { api, folder, input, completion_window: args.completion_window, lines_max: args.batch_rows };
    let mut progress = Progress::new("rows", plan.rows);
    let mut run = Run::new(&job, plan, journal)?;
    run.finish(&mut progress).await?;
    progress.end();
    let plan = run.plan();
    let failed = output::write(plan, &job.input, &target, &job.folder)?;
    job.folder.remove()?;
    let took = clock::now().since(began);
    out::note(&format!("{} rows in {:.1} s, {}/s", plan.rows, took.as_secs_f64(), rate(plan.rows - before, took)));
    judged(plan, failed, &target.path)
}

fn input(args: &Args) -> Result<Input, Failed> {
    Ok(Input { path: args.input.clone(), format: format(&args.input)?, column: args.column.clone() })
}

fn target(args: &Args) -> Result<Target, Failed> {
    let path = args.output.clone();
    Ok(Target { format: format(&path)?, path, columns: !args.only_vectors, vector_column: args.vector_column.clone() })
}

fn format(path: &Path) -> Result<Format, Failed> {
    Format::of(path).ok_or_else(|| Failed::refused(format!("{}: use a name that ends in .jsonl, .csv, .parquet or .npy", path.display())))
}

/// The plan of an earlier run of the same, or a new one.
fn begin(args: &Args, input: &Input, folder: &Folder) -> Result<(Plan, Journal), Failed> {
    let hash = input.hash()?;
    let purpose = Purpose { input: hash, column: args.column.clone(), model: args.model.clone(), dimensions: args.dimensions };
    folder.make()?;
    let (mut journal, entries) = Journal::open(&folder.journal()).map_err(|error| folder.broken(error))?;
    if let Some(plan) = Plan::read(entries).map_err(|error| folder.broken(error))? {
        if plan.purpose != purpose {
            return Err(folder.refused("this run was begun with another input, column, model or length: remove the folder to begin anew"));
        }
        return Ok((plan, journal));
    }
    let begun = Entry::Begun { rows: input.count()?, purpose };
    journal.write(&begun).map_err(|error| folder.broken(error))?;
    let plan = Plan::read(vec![begun]).map_err(|error| folder.broken(error))?;
    Ok((plan.expect("it was begun"), journal))
}

/// What the exit code is to say.
fn judged(plan: &Plan, failed: u64, output: &Path) -> Result<(), Failed> {
    let errors = errors_path(output);
    match failed {
        0 => Ok(()),
        _ if plan.dimensions.is_none() => Err(Failed::broken(format!("no row has a vector: {} says why", errors.display()))),
        _ => Err(Failed::partial(format!("{failed} of {} rows have no vector: {} says why", plan.rows, errors.display()))),
    }
}

/// Where the rows without a vector are told.
fn errors_path(output: &Path) -> PathBuf {
    super::batch::with_ending(output, ".errors.jsonl")
}
