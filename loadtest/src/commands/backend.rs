//! `loadtest backend`: the mock model server, in a process of its own.

use super::{Failed, print};
use loadtest::backend::{self, Costs};
use std::net::SocketAddr;
use tokio::net::TcpListener;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(long, default_value = "127.0.0.1:9000")]
    listen: SocketAddr,
    #[command(flatten)]
    costs: Costs,
}

pub(crate) async fn run(args: Args) -> Result<bool, Failed> {
    let listener = TcpListener::bind(args.listen).await?;
    print(&format!("listening on http://{}", listener.local_addr()?))?;
    backend::serve(listener, args.costs).await;
    Ok(true)
}
