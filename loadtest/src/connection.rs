//! edge: one keep-alive connection of one caller, written and read by hand: the generator shares the machine with what it measures.

use crate::client::Client;
use crate::http1::{Decoder, Malformed};
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Room for a usual answer in one read.
const READ_BYTES: usize = 16 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    #[error("no connection: {0}")]
    Connect(std::io::Error),
    #[error("the connection broke: {0}")]
    Broken(#[from] std::io::Error),
    #[error("the connection was closed in the middle of an answer")]
    Closed,
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// Connects when first asked, and again after a failure.
#[derive(Debug)]
pub struct Connection {
    client: Client,
    stream: Option<TcpStream>,
    input: BytesMut,
    output: Vec<u8>,
    body: Vec<u8>,
}

impl Connection {
    pub fn new(client: Client) -> Self {
        Self { client, stream: None, input: BytesMut::with_capacity(READ_BYTES), output: Vec::new(), body: Vec::new() }
    }

    /// Posts the index-th request and reads its answer, which stays in [`Connection::body`]. `began_to_answer` is called
    /// when the first bytes of the body are there. Returns the status.
    pub async fn post(&mut self, path: &str, index: u64, body: &[u8], began_to_answer: impl FnMut()) -> Result<u16, ConnectionError> {
        self.client.write_head(&mut self.output, path, index, body.len());
        self.output.extend_from_slice(body);
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => connect(self.client.authority()).await?,
        };
        stream.write_all(&self.output).await?;
        let head = self.read(&mut stream, began_to_answer).await?;
        // Only a connection whose answer was read to its end is used again.
        self.stream = (!head.closes).then_some(stream);
        Ok(head.status)
    }

    pub fn body(&self) -> &[u8] {
        &self.body
    }

    async fn read(&mut self, stream: &mut TcpStream, mut began_to_answer: impl FnMut()) -> Result<crate::http1::Head, ConnectionError> {
        self.input.clear();
        self.body.clear();
        let mut decoder = Decoder::default();
        loop {
            self.input.reserve(READ_BYTES);
            let ended = stream.read_buf(&mut self.input).await? == 0;
            let had_none = self.body.is_empty();
            let whole = decoder.decode(&mut self.input, &mut self.body)?;
            if had_none && !self.body.is_empty() {
                began_to_answer();
            }
            if whole || (ended && decoder.closed()) {
                return Ok(decoder.head());
            }
            if ended {
                return Err(ConnectionError::Closed);
            }
        }
    }
}

async fn connect(authority: &str) -> Result<TcpStream, ConnectionError> {
    let stream = TcpStream::connect(authority).await.map_err(ConnectionError::Connect)?;
    stream.set_nodelay(true).map_err(ConnectionError::Connect)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// Answers each connection's requests with these bytes, one write a request, and closes after the last.
    async fn server(answers: &'static [&'static [u8]]) -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = Client::new(&format!("http://{}", listener.local_addr().unwrap()), "sk-a");
        tokio::task::spawn_local(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                for answer in answers {
                    let mut request = [0; 4096];
                    let read = stream.read(&mut request).await.unwrap();
                    let request = String::from_utf8_lossy(&request[..read]).into_owned();
                    assert!(
                        request.starts_with("POST /x HTTP/1.1\r\n") && request.contains("Bearer sk-a") && request.ends_with("\r\n\r\n{}")
                    );
                    stream.write_all(answer).await.unwrap();
                }
            }
        });
        client
    }

    async fn local(test: impl Future) {
        tokio::task::LocalSet::new().run_until(async { drop(test.await) }).await;
    }

    #[tokio::test]
    async fn a_connection_is_kept_while_the_server_keeps_it() {
        local(async {
            const KEPT: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            const CLOSED: &[u8] = b"HTTP/1.1 429 No\r\nconnection: close\r\n\r\nslow";
            let mut connection = Connection::new(server(&[KEPT, CLOSED]).await);
            let mut begun = 0;
            for expected in [(200, "ok"), (429, "slow"), (200, "ok")] {
                let status = connection.post("/x", 0, b"{}", || begun += 1).await.unwrap();
                assert_eq!((status, connection.body()), (expected.0, expected.1.as_bytes()));
            }
            assert_eq!(begun, 3);
        })
        .await;
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_is_an_error_and_the_next_request_connects_anew() {
        local(async {
            let mut connection = Connection::new(server(&[b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"]).await);
            for _ in 0..2 {
                assert!(matches!(connection.post("/x", 0, b"{}", || ()).await, Err(ConnectionError::Closed)));
            }
        })
        .await;
    }
}
