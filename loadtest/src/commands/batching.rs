//! `loadtest batching`: the batching targets.

use super::{Failed, print, read_texts};
use loadtest::batching::{self, Nats, Settings};
use loadtest::nats;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(clap::Args)]
pub(crate) struct Args {
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

/// Whether every vector was the right one.
pub(crate) async fn run(args: Args) -> Result<bool, Failed> {
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
