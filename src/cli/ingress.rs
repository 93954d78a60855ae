//! `tidemill ingress`: one ingress, apart from the other roles.

use super::out::{self, Failed};
use super::setup::{self, Role};
use super::{RoleArgs, signals, status};
use ::ingress::{Ingress, StartError};
use shared::config::Config;
use std::net::SocketAddr;
use std::sync::Arc;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    role: RoleArgs,
    /// Where to serve, instead of the file's address.
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
}

pub(crate) async fn run(args: Args) -> Result<(), Failed> {
    let Role { mut config, broker, id } = Role::prepare("ingress", &args.role).await?;
    if let Some(listen) = args.listen {
        config.listen = listen;
    }
    let registry = setup::registry();
    let _status = status::serve(args.role.metrics, Arc::clone(&broker), registry.clone()).await?;
    let config = Arc::new(config);
    let (directory, _following) = setup::directory(&config, &broker).await?;
    let ingress = Ingress::start(Arc::clone(&config), Arc::clone(&broker), directory, id, &registry, false).await.map_err(failed)?;
    out::line(&format!("listening on {}", base(&config, ingress.local_addr())));
    if let Some(admin) = ingress.admin_addr() {
        out::line(&format!("administration on {}", base(&config, admin)));
    }
    out::line("ready");
    signals::stop().await?;
    ingress.drain().await;
    broker.flush().await.map_err(Failed::broken)
}

/// Where callers find it.
pub(super) fn base(config: &Config, addr: SocketAddr) -> String {
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    format!("{scheme}://{addr}")
}

pub(super) fn failed(error: StartError) -> Failed {
    match error {
        StartError::Tls(_) | StartError::Issuer(_) => Failed::refused(error),
        StartError::Bind { .. } | StartError::Broker(_) | StartError::Metrics(_) => Failed::broken(error),
    }
}
