//! edge: a file on the server, read as it comes: whole into another file, or line by line.

use super::Trouble;
use futures::TryStreamExt;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite};
use tokio::time::timeout;
use tokio_util::io::StreamReader;

/// Time between two pieces: the server reads them from its own store.
const PIECE_WAIT: Duration = Duration::from_secs(60);

/// Bytes of one line: an answer of the longest generation, or of some thousand vectors.
const LINE_BYTES_MAX: u64 = 64 * 1024 * 1024;

pub(crate) struct Content {
    reader: Box<dyn AsyncBufRead + Send + Unpin>,
    line: Vec<u8>,
}

impl Content {
    pub(super) fn new(body: Incoming) -> Self {
        let pieces = body.into_data_stream().map_err(io::Error::other);
        Self { reader: Box::new(StreamReader::new(Box::pin(pieces))), line: Vec::new() }
    }

    /// The next line without its end. `None`: there are no more.
    pub(crate) async fn line(&mut self) -> Result<Option<&[u8]>, Trouble> {
        self.line.clear();
        let mut bounded = (&mut self.reader).take(LINE_BYTES_MAX);
        let read = timeout(PIECE_WAIT, bounded.read_until(b'\n', &mut self.line)).await;
        let read = read.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(|error| broken_off(&error))?;
        Ok((read > 0).then(|| self.line.trim_ascii_end()))
    }

    /// All of it, into `target`; the number of bytes.
    pub(crate) async fn copy(&mut self, target: &mut (impl AsyncWrite + Unpin)) -> Result<u64, Trouble> {
        tokio::io::copy_buf(&mut self.reader, target).await.map_err(|error| broken_off(&error))
    }
}

fn broken_off(error: &io::Error) -> Trouble {
    Trouble::Passing(format!("a download broke off: {error}"), None)
}
