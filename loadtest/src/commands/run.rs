//! `loadtest run`: one server, which runs already.

use super::{Failed, print, read_texts};
use loadtest::client::Client;
use loadtest::load::{self, Arrivals, Plan, Until};
use loadtest::work::{Check, Mode, Work};
use std::path::PathBuf;
use std::time::Duration;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The server's address, such as http://127.0.0.1:8080.
    #[arg(long)]
    url: String,
    #[arg(long, default_value = "")]
    key: String,
    #[arg(long, value_enum, default_value = "chat")]
    mode: Mode,
    /// Callers in closed loops, or connections of an open one.
    #[arg(long, default_value_t = 16)]
    callers: usize,
    /// An open loop instead: requests a second, whether or not the server keeps up.
    #[arg(long, requires = "seconds")]
    rate: Option<f64>,
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

/// Whether every request was answered rightly.
pub(crate) async fn run(args: Args) -> Result<bool, Failed> {
    let texts = read_texts(args.texts.as_deref())?;
    let check = args.hash_key.map_or(Check::Status, Check::Tag);
    let work = Work { mode: args.mode, model: args.model, inputs: 1, texts: texts.into(), check };
    let until = args.seconds.map_or(Until::Requests(args.requests), |s| Until::Elapsed(Duration::from_secs_f64(s)));
    let closed = Plan::closed(args.callers, until);
    let arrivals = args.rate.map_or(closed.arrivals, |rate| Arrivals::Open { rate, connections: args.callers });
    let outcome = load::run(&Client::new(&args.url, &args.key), &work, Plan { arrivals, ..closed }).await;
    print(&if args.json { outcome.json().to_string() } else { outcome.to_string() })?;
    Ok(outcome.failures.is_empty())
}
