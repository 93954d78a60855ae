//! edge: the administration's client: one request, one answer, with the key from the environment, where no process list shows it.

use super::client::{self, Pool, Tls};
use super::out::Failed;
use axum::http::{Method, Request, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use serde_json::Value;
use std::time::Duration;
use tokio::time::timeout;

/// An answer takes as long as a month of usage takes to be summed, and no longer.
const WAIT: Duration = Duration::from_secs(30);

/// Bytes of one answer: a page of the longest entries.
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;

const KEY: &str = "TIDEMILL_ADMIN_KEY";

/// Where the administration is.
#[derive(Debug, clap::Args)]
pub(crate) struct Admin {
    /// The administration's address. Its key is read from TIDEMILL_ADMIN_KEY.
    #[arg(long = "admin", global = true, value_name = "URL", env = "TIDEMILL_ADMIN_URL", default_value = "http://127.0.0.1:9091")]
    url: String,
    #[command(flatten)]
    tls: Tls,
}

pub(crate) struct Client {
    pool: Pool,
    base: String,
    key: String,
}

impl Client {
    pub(crate) fn new(admin: &Admin) -> Result<Self, Failed> {
        let key = std::env::var(KEY).map_err(|_| Failed::refused(format!("set {KEY} to a key whose role has admin rights")))?;
        Ok(Self { pool: client::pool(&admin.tls)?, base: admin.url.trim_end_matches('/').to_owned(), key })
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value, Failed> {
        self.ask(Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value, Failed> {
        self.ask(Method::POST, path, Some(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Result<Value, Failed> {
        self.ask(Method::DELETE, path, None).await
    }

    /// Goes through a list page by page, each from behind the `id` of the last entry before.
    pub(crate) async fn pages(&self, path: &str, id: &str, mut show: impl FnMut(&Value)) -> Result<(), Failed> {
        let mut after = String::new();
        loop {
            let page = self.get(&format!("{path}&after={}", escape(&after))).await?;
            let entries = page["data"].as_array().map(Vec::as_slice).unwrap_or_default();
            entries.iter().for_each(&mut show);
            match entries.last().and_then(|entry| entry[id].as_str()) {
                Some(last) if page["has_more"] == true => after = last.to_owned(),
                _ => return Ok(()),
            }
        }
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Failed> {
        let url = format!("{}/admin/{path}", self.base);
        let request = Request::builder()
            .method(method)
            .uri(&url)
            .header(header::AUTHORIZATION, format!("Bearer {}", self.key))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body.map_or_else(Bytes::new, |body| body.to_string().into())))
            .map_err(|error| Failed::refused(format!("--admin: {error}")))?;
        let answered = timeout(WAIT, self.answer(request)).await;
        let (is_fine, text) = answered.map_err(|_| Failed::broken(format!("{url}: no answer within {WAIT:?}")))??;
        let json = serde_json::from_slice(&text).unwrap_or(Value::Null);
        if is_fine { Ok(json) } else { Err(Failed::broken(refusal(&url, &json))) }
    }

    async fn answer(&self, request: Request<Full<Bytes>>) -> Result<(bool, Bytes), Failed> {
        let url = request.uri().to_string();
        let failed = |error: &dyn std::error::Error| Failed::broken(format!("{url}: {error}"));
        let response = self.pool.request(request).await.map_err(|error| failed(&error))?;
        let is_fine = response.status().is_success();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(|error| failed(error.as_ref()))?;
        Ok((is_fine, body.to_bytes()))
    }
}

fn refusal(url: &str, answer: &Value) -> String {
    match (answer["error"]["code"].as_str(), answer["error"]["message"].as_str()) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        _ => format!("{url}: this is no administration of Tidemill"),
    }
}

/// A value inside a URL's path or query.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}
