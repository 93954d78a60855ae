//! edge: bytes on a socket, for requests that no client library would send.

use serde_json::Value;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// One connection.
pub(crate) struct RawConnection {
    stream: TcpStream,
    received: Vec<u8>,
}

/// An answer as it stood on the wire.
#[derive(Debug)]
pub(crate) struct RawAnswer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl RawConnection {
    /// `base` is such as `http://127.0.0.1:8080`; of https, too, the bytes are sent as they are.
    pub(crate) async fn open(base: &str) -> Self {
        let (_, host) = base.split_once("://").expect("a base address");
        let stream = TcpStream::connect(host).await.expect("the ingress listens");
        stream.set_nodelay(true).expect("a live socket");
        Self { stream, received: Vec::new() }
    }

    /// Sends bytes; a server that has already closed is no failure of the test.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    /// Reads one answer; `None` when the connection ends without one, or nothing comes in time.
    pub(crate) async fn answer(&mut self, within: Duration) -> Option<RawAnswer> {
        tokio::time::timeout(within, self.read_answer()).await.ok().flatten()
    }

    async fn read_answer(&mut self) -> Option<RawAnswer> {
        loop {
            if let Some(answer) = whole(&self.received, false) {
                return Some(answer);
            }
            if !matches!(self.stream.read_buf(&mut self.received).await, Ok(1..)) {
                return whole(&self.received, true);
            }
        }
    }
}

impl RawAnswer {
    /// The `code` and `message` of an error body.
    pub(crate) fn error(&self) -> (String, String) {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_default();
        let field = |name: &str| body["error"][name].as_str().unwrap_or_default().to_owned();
        (field("code"), field("message"))
    }
}

fn whole(received: &[u8], ended: bool) -> Option<RawAnswer> {
    let text = String::from_utf8_lossy(received);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
    let is_whole = ended || length.is_some_and(|length: usize| body.len() >= length);
    let status = head.split(' ').nth(1)?.parse().ok()?;
    is_whole.then(|| RawAnswer { status, body: body.to_owned() })
}
