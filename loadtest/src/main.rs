//! The command line of the load generator. Everything runs on one thread: it shares the machine with what it measures.

use clap::{Parser, Subcommand};
use std::process::ExitCode;

mod commands;

#[derive(Parser)]
#[command(about = "Load generator: callers against OpenAI-compatible servers on this machine")]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Callers in closed loops, or a steady rate, against one server.
    Run(commands::run::Args),
    /// Single-text embeddings: straight at one serialised accelerator, and through Tidemill.
    Batching(commands::batching::Args),
    /// Tidemill, the bare backend and other gateways, side by side.
    Compare(commands::compare::Args),
    /// What a request costs as callers, load, tenants, models or open streams grow.
    Growth(commands::growth::Args),
    /// The barest gateway, straight or through a nats-server: the floor of what any adds.
    Relay(commands::relay::Args),
    /// The mock model server of the measurements.
    Backend(commands::backend::Args),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let done = tokio::select! {
        done = Box::pin(perform(Cli::parse().command)) => done,
        // Dropping the task ends its children.
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
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

/// Whether nothing failed.
async fn perform(task: Task) -> Result<bool, commands::Failed> {
    match task {
        Task::Run(args) => commands::run::run(args).await,
        Task::Batching(args) => commands::batching::run(args).await,
        Task::Compare(args) => commands::compare::run(args).await,
        Task::Growth(args) => commands::growth::run(args).await,
        Task::Relay(args) => commands::relay::run(args).await,
        Task::Backend(args) => commands::backend::run(args).await,
    }
}
