//! `tidemill ingress`: one ingress, apart from the other roles.

use super::out::{self, Failed};
use super::setup::{self, Role};
use super::{RoleArgs, signals, status};
use ::ingress::Ingress;
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
    let ingress = Ingress::start(Arc::new(config), Arc::clone(&broker), id, &registry, false).await.map_err(Failed::broken)?;
    out::line(&format!("listening on http://{}", ingress.local_addr()));
    out::line("ready");
    signals::stop().await?;
    ingress.drain().await;
    broker.flush().await.map_err(Failed::broken)
}
