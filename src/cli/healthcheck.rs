//! `tidemill healthcheck`: asks a URL once; images without a shell have nothing else to ask with.

use super::client::{self, Tls};
use super::out::Failed;
use axum::http::{StatusCode, Uri};
use std::error::Error;
use std::time::Duration;
use tokio::time::timeout;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Such as http://127.0.0.1:8080/readyz.
    #[arg(long)]
    url: Uri,
    #[command(flatten)]
    tls: Tls,
}

/// A process that needs longer to say that it is well is not.
const WAIT: Duration = Duration::from_secs(3);

pub(crate) async fn run(args: &Args) -> Result<(), Failed> {
    let (url, pool) = (&args.url, client::pool(&args.tls)?);
    match timeout(WAIT, pool.get(url.clone())).await {
        Ok(Ok(answer)) if answer.status() == StatusCode::OK => Ok(()),
        Ok(Ok(answer)) => Err(Failed::broken(format!("{url} answers {}", answer.status()))),
        Ok(Err(error)) => Err(Failed::broken(format!("{url}: {}", root(&error)))),
        Err(_) => Err(Failed::broken(format!("{url} does not answer within {WAIT:?}"))),
    }
}

/// What lies at the bottom: the errors above it only say that the call failed.
fn root<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut root = error;
    while let Some(source) = root.source() {
        root = source;
    }
    root
}
