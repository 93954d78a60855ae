//! edge: an HTTP client of one server: JSON out, JSON or an event stream back, over pooled keep-alive connections.

use crate::sse;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName};
use http::{HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use std::sync::Arc;

/// Why there is no answer at all.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("the request cannot be built: {0}")]
    Request(#[from] http::Error),
    #[error("no answer: {0}")]
    Connect(#[from] hyper_util::client::legacy::Error),
    #[error("the answer broke off: {0}")]
    Body(#[from] hyper::Error),
    #[error(transparent)]
    Event(#[from] sse::TooLong),
}

/// Asks one server, in the name of one key or of several in turn. Cheap to clone; clones share the connections.
#[derive(Clone, Debug)]
pub struct Client {
    http: hyper_util::client::legacy::Client<HttpConnector, Full<Bytes>>,
    base: String,
    /// Empty: no credential.
    keys: Arc<[HeaderValue]>,
    headers: HeaderMap,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// The answer to a request for a stream.
#[derive(Debug)]
pub enum Opened {
    Events(Events),
    /// Anything that is not a 200, as a whole.
    Refused(Answer),
}

/// A running stream. Dropping it closes the connection.
#[derive(Debug)]
pub struct Events {
    pub headers: HeaderMap,
    body: Incoming,
    parser: sse::Parser,
}

/// One thing that happens on a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Data(String),
    /// `data: [DONE]`.
    Done,
    /// The server closed the stream.
    End,
}

impl Client {
    /// `base` is such as `http://127.0.0.1:8080`; an empty key sends no credential.
    pub fn new(base: &str, key: &str) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector);
        let keys: Vec<&str> = if key.is_empty() { Vec::new() } else { vec![key] };
        Self { http, base: base.trim_end_matches('/').to_owned(), keys: bearers(keys), headers: HeaderMap::new() }
    }

    /// The same server, asked in the name of these keys in turn.
    #[must_use]
    pub fn with_keys<'a>(mut self, keys: impl IntoIterator<Item = &'a str>) -> Self {
        self.keys = bearers(keys);
        self
    }

    /// A header on every request. One that HTTP cannot carry is left out.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            self.headers.insert(name, value);
        }
        self
    }

    pub fn base(&self) -> &str {
        &self.base
    }

    /// `host:port`.
    pub fn authority(&self) -> &str {
        self.base.strip_prefix("http://").unwrap_or(&self.base)
    }

    /// Writes the head of the index-th request, for who speaks HTTP by hand.
    pub fn write_head(&self, out: &mut Vec<u8>, path: &str, index: u64, length: usize) {
        out.clear();
        for part in ["POST ", path, " HTTP/1.1\r\nhost: ", self.authority(), "\r\ncontent-type: application/json\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
        let authorization = self.key(index).map(|key| (&AUTHORIZATION, key));
        for (name, value) in self.headers.iter().chain(authorization) {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                out.extend_from_slice(part);
            }
        }
        out.extend_from_slice(format!("content-length: {length}\r\n\r\n").as_bytes());
    }

    fn key(&self, index: u64) -> Option<&HeaderValue> {
        let place = index.checked_rem(self.keys.len() as u64)?;
        self.keys.get(usize::try_from(place).ok()?)
    }

    pub async fn get(&self, path: &str) -> Result<Answer, ClientError> {
        let response = self.send(Method::GET, path, &[], Bytes::new()).await?;
        Answer::read(response).await
    }

    pub async fn post(&self, path: &str, body: impl Into<Bytes>) -> Result<Answer, ClientError> {
        self.post_with(path, &[], body).await
    }

    /// With headers, which replace those that would be sent otherwise.
    pub async fn post_with(&self, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Result<Answer, ClientError> {
        let response = self.send(Method::POST, path, headers, body.into()).await?;
        Answer::read(response).await
    }

    pub async fn stream(&self, path: &str, body: impl Into<Bytes>) -> Result<Opened, ClientError> {
        Opened::read(self.send(Method::POST, path, &[], body.into()).await?).await
    }

    pub async fn delete(&self, path: &str) -> Result<Answer, ClientError> {
        Answer::read(self.send(Method::DELETE, path, &[], Bytes::new()).await?).await
    }

    /// Reads a stream that is there already.
    pub async fn open(&self, path: &str) -> Result<Opened, ClientError> {
        Opened::read(self.send(Method::GET, path, &[], Bytes::new()).await?).await
    }

    async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Bytes) -> Result<Response<Incoming>, ClientError> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base)).header(CONTENT_TYPE, "application/json");
        if let Some(key) = self.keys.first() {
            request = request.header(AUTHORIZATION, key);
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let mut request = request.body(Full::new(body))?;
        for (name, value) in headers {
            let (name, value) = (name.parse::<HeaderName>(), HeaderValue::from_str(value));
            request.headers_mut().insert(name.map_err(http::Error::from)?, value.map_err(http::Error::from)?);
        }
        Ok(self.http.request(request).await?)
    }
}

fn bearers<'a>(keys: impl IntoIterator<Item = &'a str>) -> Arc<[HeaderValue]> {
    keys.into_iter().filter_map(|key| HeaderValue::from_str(&format!("Bearer {key}")).ok()).collect()
}

impl Opened {
    async fn read(response: Response<Incoming>) -> Result<Self, ClientError> {
        if response.status() == http::StatusCode::OK {
            let (head, body) = response.into_parts();
            Ok(Self::Events(Events { headers: head.headers, body, parser: sse::Parser::default() }))
        } else {
            Answer::read(response).await.map(Self::Refused)
        }
    }
}

impl Answer {
    async fn read(response: Response<Incoming>) -> Result<Self, ClientError> {
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Self { status: head.status.as_u16(), headers: head.headers, body })
    }

    /// The body as JSON; `null` when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The body as text, for messages.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The `code` of an error body; empty when there is none.
    pub fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

impl Events {
    /// Waits for the next event.
    ///
    /// # Errors
    /// The connection broke in the middle of the body.
    pub async fn next(&mut self) -> Result<Event, ClientError> {
        loop {
            if let Some(data) = self.parser.next_event() {
                return Ok(if data == "[DONE]" { Event::Done } else { Event::Data(data) });
            }
            let Some(frame) = self.body.frame().await else { return Ok(Event::End) };
            if let Some(data) = frame?.data_ref() {
                self.parser.push(data)?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_take_turns() {
        let client = Client::new("http://h:1/", "sk-none").with_keys(["sk-a", "sk-b"]).with_header("Prefer", "respond-async");
        let head = |index| {
            let mut out = b"left over".to_vec();
            client.write_head(&mut out, "/x", index, 7);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            head(2),
            "POST /x HTTP/1.1\r\nhost: h:1\r\ncontent-type: application/json\r\nprefer: respond-async\r\nauthorization: Bearer sk-a\r\ncontent-length: 7\r\n\r\n"
        );
        assert!(head(3).contains("Bearer sk-b"));
    }

    #[test]
    fn without_a_key_no_credential_is_sent() {
        let mut out = Vec::new();
        Client::new("http://h:1", "").write_head(&mut out, "/x", 0, 0);
        assert!(!String::from_utf8(out).unwrap().contains("authorization"));
    }
}
