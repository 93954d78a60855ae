//! The command line: what may be asked of the executable, and which file answers.

mod admin;
mod api;
mod audit;
mod batch;
mod broker;
mod check;
mod client;
mod dead;
mod embed;
mod healthcheck;
mod ingress;
mod keys;
pub(crate) mod out;
mod progress;
mod sandbox;
mod scheduler;
mod setup;
mod signals;
mod span;
mod status;
mod up;
mod worker;

use clap::{Parser, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

/// An LLM API gateway in which every request travels through one durable queue.
#[derive(Debug, Parser)]
#[command(name = "tidemill", version, about)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run every role in one process.
    Up(up::Args),
    /// Run an ingress: HTTP in, answers out.
    Ingress(ingress::Args),
    /// Run a scheduler: who goes next, with whom, where.
    Scheduler(scheduler::Args),
    /// Run a worker: batches to the model backends.
    Worker(worker::Args),
    /// Check a configuration and print it with every default, secrets hidden.
    Check(check::Args),
    /// Issue, list, rotate and block keys.
    Keys(keys::Args),
    /// Submit a file of requests as a batch, watch it, and fetch its results.
    Batch(batch::Args),
    /// Embed a column of a JSONL, CSV or Parquet file.
    Embed(embed::Args),
    /// Print who changed what, and who called which model when.
    Audit(audit::Args),
    /// List jobs that failed for good, run them again, or put them away.
    Dead(dead::Args),
    /// Serve the sandbox backend over HTTP: deterministic answers with a latency and fault model.
    Sandbox(sandbox::Args),
    /// Exit with 0 when a URL answers 200: for container health checks.
    Healthcheck(healthcheck::Args),
}

/// What the roles that run apart from each other take.
#[derive(Debug, clap::Args)]
pub(crate) struct RoleArgs {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The NATS server or servers, instead of the file's.
    #[arg(long, value_name = "URL", env = "TIDEMILL_NATS_URL")]
    nats: Option<String>,
    /// The Redis that keeps limits for all schedulers, instead of the file's.
    #[arg(long, value_name = "URL", env = "TIDEMILL_REDIS_URL")]
    redis: Option<String>,
    /// The name of this process; random unless given. No two running processes may share one.
    #[arg(long)]
    id: Option<String>,
    /// Serve /livez, /readyz and /metrics here.
    #[arg(long, value_name = "ADDR")]
    metrics: Option<SocketAddr>,
}

/// Runs a command to its end. 0: fine; 1: it failed while running; 2: it was asked for something that cannot be; 3: it is
/// done, but not for all of what it was for.
pub(crate) async fn run(command: Command) -> ExitCode {
    let done = match command {
        Command::Up(args) => Box::pin(up::run(args)).await,
        Command::Ingress(args) => ingress::run(args).await,
        Command::Scheduler(args) => scheduler::run(args).await,
        Command::Worker(args) => worker::run(args).await,
        Command::Check(args) => check::run(&args),
        Command::Keys(args) => Box::pin(keys::run(args)).await,
        Command::Audit(args) => Box::pin(audit::run(args)).await,
        Command::Batch(args) => Box::pin(batch::run(args)).await,
        Command::Embed(args) => Box::pin(embed::run(args)).await,
        Command::Dead(args) => Box::pin(dead::run(args)).await,
        Command::Sandbox(args) => sandbox::run(args).await,
        Command::Healthcheck(args) => Box::pin(healthcheck::run(&args)).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(),
    }
}

#[cfg(test)]
mod tests {
    use super::Cli;
    use clap::CommandFactory;

    #[test]
    fn every_command_is_sound() {
        Cli::command().debug_assert();
    }
}
