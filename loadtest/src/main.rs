//! The command line of the load generator: `run` against any OpenAI-compatible server, `batching` for the batching targets.

use clap::{Args, Parser, Subcommand};
use loadtest::batching::{self, Nats, Settings};
use loadtest::client::Client;
use loadtest::load::{self, Plan, Until};
use loadtest::work::{Check, Mode, Work};
use loadtest::{nats, texts};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

#[derive(Parser)]
#[command(about = "Load generator: closed loops of callers against an OpenAI-compatible server on this machine")]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Callers in closed loops against one server.
    Run(RunArgs),
    /// Single-text embeddings: straight at one serialised accelerator, and through Tidemill.
    Batching(BatchingArgs),
}

#[derive(Args)]
struct RunArgs {
    /// The server's address, such as http://127.0.0.1:8080.
    #[arg(long)]
    url: String,
    #[arg(long, default_value = "")]
    key: String,
    #[arg(long, value_enum, default_value = "chat")]
    mode: Mode,
    #[arg(long, default_value_t = 16)]
    callers: usize,
    /// Requests in all.
    #[arg(long, conflicts_with = "seconds", default_value_t = 1_000)]
    requests: u64,
    /// Run for a time instead.
    #[arg(long)]
    seconds: Option<f64>,
    #[arg(long)]
    model: String,
    /// One text a line; without it package descriptions or synthetic texts.
    #[arg(long)]
    texts: Option<PathBuf>,
    /// Check that chat answers carry the sandbox's tag made with this key.
    #[arg(long)]
    hash_key: Option<String>,
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct BatchingArgs {
    #[arg(long, default_value = "target/release/tidemill")]
    tidemill: PathBuf,
    /// A server's URL, or `memory` for the in-process road alone; without it a nats-server is started where one is found.
    #[arg(long)]
    nats: Option<String>,
    #[arg(long, value_delimiter = ',', default_value = "64,8,1")]
    callers: Vec<usize>,
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of each sample.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// One text a line; without it package descriptions or synthetic texts.
    #[arg(long)]
    texts: Option<PathBuf>,
    #[arg(long)]
    json: bool,
}

type Failed = Box<dyn std::error::Error>;

/// Different texts in one run.
const TEXTS: usize = 512;

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Task::Run(args) => run(args).await,
        Task::Batching(args) => batching(args).await,
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("loadtest: {error}");
            ExitCode::from(2)
        }
    }
}

/// Whether every request was answered rightly.
async fn run(args: RunArgs) -> Result<bool, Failed> {
    let texts = read_texts(args.texts.as_deref())?;
    let check = args.hash_key.map_or(Check::Status, Check::Tag);
    let work = Work { mode: args.mode, model: args.model, texts: texts.into(), check };
    let until = args.seconds.map_or(Until::Requests(args.requests), |s| Until::Elapsed(Duration::from_secs_f64(s)));
    let outcome = load::run(&Client::new(&args.url, &args.key), &work, Plan { callers: args.callers, until }).await;
    print(&if args.json { outcome.json().to_string() } else { outcome.to_string() })?;
    Ok(outcome.failures.is_empty())
}

async fn batching(args: BatchingArgs) -> Result<bool, Failed> {
    let nats = match args.nats.as_deref() {
        Some("memory") => None,
        Some(url) => Some(Nats::Url(url.to_owned())),
        None => nats::find(Path::new(".")).map(Nats::Program),
    };
    let texts = read_texts(args.texts.as_deref())?;
    let span = Duration::from_secs_f64(args.seconds);
    let settings = Settings { tidemill: args.tidemill, nats, callers: args.callers, rounds: args.rounds, span, texts };
    let table = batching::measure(&settings).await?;
    print(&if args.json { serde_json::to_string(&table)? } else { table.to_string() })?;
    Ok(table.0.iter().all(|row| row.failed == 0))
}

fn read_texts(file: Option<&Path>) -> Result<Vec<String>, Failed> {
    let texts = match file {
        Some(file) => texts::from_file(file)?,
        None => texts::descriptions(TEXTS),
    };
    if texts.lines.is_empty() {
        return Err("the file of texts is empty: give one text a line".into());
    }
    Ok(texts.lines)
}

fn print(text: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{}", text.trim_end())
}
