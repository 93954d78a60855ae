//! `tidemill audit`: who changed what and, with `--calls`, who called which model when; a line of JSON each.

use super::admin::{Admin, Client, escape};
use super::out::{self, Failed};
use super::span;
use serde_json::Value;
use shared::clock;
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    admin: Admin,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print what happens, until interrupted.
    Tail(Which),
    /// Print what has happened, oldest first.
    Export(Which),
}

#[derive(Debug, clap::Args)]
struct Which {
    /// Begin this long ago, such as 24h. Default: now for `tail`, the beginning for `export`.
    #[arg(long, value_parser = span::parse)]
    since: Option<Duration>,
    /// Model calls instead of changes.
    #[arg(long)]
    calls: bool,
    /// Only this tenant's calls.
    #[arg(long, requires = "calls")]
    tenant: Option<String>,
}

pub(crate) async fn run(args: Args) -> Result<(), Failed> {
    let client = Client::new(&args.admin)?;
    let (which, follow) = match &args.command {
        Command::Tail(which) => (which, true),
        Command::Export(which) => (which, false),
    };
    let mut place = Place { since_ms: begin(which.since, follow), after: 0 };
    loop {
        let page = client.get(&path(which, place)).await?;
        let entries = page["data"].as_array().map(Vec::as_slice).unwrap_or_default();
        entries.iter().for_each(|entry| out::line(&entry.to_string()));
        place = place.next(&page["next"]);
        if !follow && page["has_more"] != true {
            return Ok(());
        }
    }
}

/// How far has been read.
#[derive(Clone, Copy)]
struct Place {
    since_ms: u64,
    after: u64,
}

impl Place {
    fn next(self, next: &Value) -> Self {
        match (next["since"].as_u64(), next["after"].as_u64()) {
            (Some(since_ms), Some(after)) => Self { since_ms, after },
            _ => self,
        }
    }
}

fn begin(since: Option<Duration>, follow: bool) -> u64 {
    let now = clock::unix();
    let from = match since {
        Some(span) => now.saturating_sub(span),
        None if follow => now,
        None => Duration::ZERO,
    };
    u64::try_from(from.as_millis()).unwrap_or(u64::MAX)
}

fn path(which: &Which, place: Place) -> String {
    let journal = if which.calls { "usage" } else { "audit" };
    let tenant = which.tenant.as_ref().map(|tenant| format!("&tenant={}", escape(tenant))).unwrap_or_default();
    format!("{journal}?limit=1000&since={}&after={}{tenant}", place.since_ms, place.after)
}
