//! `tidemill worker`: one worker, apart from the other roles.

use super::out::{self, Failed};
use super::setup::{self, Role};
use super::{RoleArgs, signals, status};
use std::sync::Arc;
use std::time::Duration;
use workers::{StartError, Worker};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    role: RoleArgs,
    /// Serve only these models.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    models: Option<Vec<String>>,
}

pub(crate) async fn run(args: Args) -> Result<(), Failed> {
    let Role { config, broker, id } = Role::prepare("worker", &args.role).await?;
    let registry = setup::registry();
    let _status = status::serve(args.role.metrics, Arc::clone(&broker), registry.clone()).await?;
    let worker = Worker::start(&config, args.models.as_deref(), Arc::clone(&broker), id, &registry).await.map_err(failed)?;
    out::line("ready");
    signals::stop().await?;
    worker.drain(Duration::from_millis(config.limits.drain_timeout_ms)).await;
    broker.flush().await.map_err(Failed::broken)
}

fn failed(error: StartError) -> Failed {
    match error {
        StartError::UnknownModel(_) | StartError::Backend(_) => Failed::refused(error),
        StartError::Broker(_) | StartError::Metrics(_) => Failed::broken(error),
    }
}
