//! `loadtest relay`: the floor of a gateway's latency, in a process of its own.

use super::{Failed, print};
use loadtest::relay::{self, Road};
use std::net::SocketAddr;
use tokio::net::TcpListener;
use tokio::runtime::Builder;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The backend's address, such as http://127.0.0.1:9000.
    #[arg(long)]
    backend: String,
    /// A nats-server to go through.
    #[arg(long, value_name = "URL")]
    nats: Option<String>,
}

/// On a runtime such as gateways have, with a thread for each core.
pub(crate) async fn run(args: Args) -> Result<bool, Failed> {
    let served = tokio::task::spawn_blocking(move || {
        let runtime = Builder::new_multi_thread().enable_all().build().map_err(|error| error.to_string())?;
        runtime.block_on(serve(args)).map_err(|error| error.to_string())
    });
    served.await??;
    Ok(true)
}

async fn serve(args: Args) -> Result<(), Failed> {
    let road = Road::open(&args.backend, args.nats.as_deref()).await?;
    let listener = TcpListener::bind(args.listen).await?;
    print(&format!("listening on http://{}", listener.local_addr()?))?;
    relay::serve(listener, road).await;
    Ok(())
}
