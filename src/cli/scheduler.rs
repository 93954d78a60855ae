//! `tidemill scheduler`: one scheduler, apart from the other roles.

use super::out::{self, Failed};
use super::setup::{self, Role};
use super::{RoleArgs, signals, status};
use ::scheduler::Scheduler;
use std::sync::Arc;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    role: RoleArgs,
}

pub(crate) async fn run(args: Args) -> Result<(), Failed> {
    let Role { config, broker, id } = Role::prepare("scheduler", &args.role).await?;
    if config.redis.is_none() {
        setup::warn_of_own_limits(&config);
    }
    let registry = setup::registry();
    let _status = status::serve(args.role.metrics, Arc::clone(&broker), registry.clone()).await?;
    let (directory, _following) = setup::directory(&config, &broker).await?;
    let treasury = setup::treasury(&config, &directory).await?;
    let scheduler = Scheduler::start(&config, treasury, Arc::clone(&broker), id, &registry).await.map_err(Failed::broken)?;
    out::line("ready");
    signals::stop().await?;
    scheduler.drain().await;
    broker.flush().await.map_err(Failed::broken)
}
