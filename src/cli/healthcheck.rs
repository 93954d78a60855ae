//! `tidemill healthcheck`: asks a URL once; images without a shell have nothing else to ask with.

use super::out::Failed;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// An http:// URL, such as http://127.0.0.1:8080/readyz.
    #[arg(long)]
    url: String,
}

/// A process that needs longer to say that it is well is not.
const WAIT: Duration = Duration::from_secs(3);

/// The status line is all that is read.
const STATUS_LINE: &[u8] = b"HTTP/1.1 200";

pub(crate) async fn run(args: &Args) -> Result<(), Failed> {
    let rest = args.url.strip_prefix("http://").ok_or_else(|| Failed::refused("--url: use an http:// URL"))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let asked = tokio::time::timeout(WAIT, ask(host, path)).await;
    match asked {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => Err(Failed::broken(format!("{} does not answer 200", args.url))),
        Ok(Err(error)) => Err(Failed::broken(format!("{}: {error}", args.url))),
        Err(_) => Err(Failed::broken(format!("{} does not answer within {WAIT:?}", args.url))),
    }
}

async fn ask(host: &str, path: &str) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(host).await?;
    stream.write_all(format!("GET /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").as_bytes()).await?;
    let mut status = [0; STATUS_LINE.len()];
    stream.read_exact(&mut status).await?;
    Ok(status == STATUS_LINE)
}
