//! edge: the administration's client: one request, one answer, with the key from the environment, where no process list shows it.

use super::client::{self, Pool, Tls};
use super::out::Failed;
use axum::http::{Method, Request, StatusCode, header};
use backon::{ConstantBuilder, Retryable};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use serde_json::Value;
use std::time::Duration;
use tokio::time::timeout;

/// An answer takes as long as a month of usage takes to be summed, and no longer.
const WAIT: Duration = Duration::from_secs(30);

/// Bytes of one answer: a page of the longest entries.
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;

/// How often, and how long after, an answer is asked for again.
const REPEATS_MAX: usize = 5;
const PAUSE: Duration = Duration::from_secs(1);

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

    /// What changes nothing is asked for again where the answer is that it cannot be had just now: a long export outlasts that.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, Failed> {
        let pauses = ConstantBuilder::new().with_delay(PAUSE).with_max_times(REPEATS_MAX);
        let answered = (|| self.ask(Method::GET, path, None)).retry(pauses).when(|refused| refused.may_pass).await;
        answered.map_err(|refused| refused.why)
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value, Failed> {
        self.ask(Method::POST, path, Some(body)).await.map_err(|refused| refused.why)
    }

    pub(crate) async fn delete(&self, path: &str) -> Result<Value, Failed> {
        self.ask(Method::DELETE, path, None).await.map_err(|refused| refused.why)
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

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Refused> {
        let url = format!("{}/admin/{path}", self.base);
        let request = Request::builder()
            .method(method)
            .uri(&url)
            .header(header::AUTHORIZATION, format!("Bearer {}", self.key))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body.map_or_else(Bytes::new, |body| body.to_string().into())))
            .map_err(|error| Failed::refused(format!("--admin: {error}")))?;
        let answered = timeout(WAIT, self.answer(request)).await;
        let (status, text) = answered.map_err(|_| Failed::broken(format!("{url}: no answer within {WAIT:?}")))??;
        let json = serde_json::from_slice(&text).unwrap_or(Value::Null);
        if status.is_success() {
            return Ok(json);
        }
        Err(Refused { may_pass: status == StatusCode::SERVICE_UNAVAILABLE, why: Failed::broken(refusal(&url, &json)) })
    }

    async fn answer(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), Failed> {
        let url = request.uri().to_string();
        let failed = |error: &dyn std::error::Error| Failed::broken(format!("{url}: {error}"));
        let response = self.pool.request(request).await.map_err(|error| failed(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(|error| failed(error.as_ref()))?;
        Ok((status, body.to_bytes()))
    }
}

/// Why there is no answer, and whether there may be one soon.
struct Refused {
    may_pass: bool,
    why: Failed,
}

impl From<Failed> for Refused {
    fn from(why: Failed) -> Self {
        Self { may_pass: false, why }
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
