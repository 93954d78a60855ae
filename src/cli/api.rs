//! edge: the client of OpenAI's files and batches, which Tidemill and others serve. What is large is streamed in both directions.
//!
//! What may pass (no connection, 408, 409, 429, 5xx) is tried again for as long as the caller has patience. That is safe for
//! every request made here: a batch is looked for before it is made again, and a file uploaded twice is one too many.

mod batch;
mod content;
mod submit;
mod upload;

pub(crate) use batch::{Batch, Counts, State};
pub(crate) use content::Content;

use super::out::{self, Failed};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use axum::http::{Method, Request, Response};
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::crypto::aws_lc_rs;
use serde_json::Value;
use shared::clock;
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::time::timeout;

/// Time for the head of an answer: far more than a server that works needs.
const HEAD_WAIT: Duration = Duration::from_secs(60);

/// Time for an upload: 200 MB, the largest batch file, at 1 Mbit/s, twice.
const UPLOAD_WAIT: Duration = Duration::from_secs(3_600);

/// A peer that vanished without a word is noticed after a few of these.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Bytes of one answer that is an object, such as a batch with the errors of its validation.
const OBJECT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The pauses between tries double from the first to the last.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// The try after which the caller is told that something is wrong: what passes sooner is not worth a word.
const TRIES_UNTOLD: u32 = 3;

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Where the models are served.
#[derive(Debug, clap::Args)]
pub(crate) struct Server {
    /// The address of the API, up to and with /v1.
    #[arg(long, global = true, value_name = "URL", env = "TIDEMILL_URL", default_value = "http://127.0.0.1:8080/v1")]
    url: String,
    /// The key. Better set in the environment: a command line can be read by every user of the machine.
    #[arg(long, global = true, env = "TIDEMILL_API_KEY", hide_env_values = true)]
    key: Option<String>,
}

pub(crate) struct Api {
    pool: Pool<HttpsConnector<HttpConnector>, Body>,
    base: String,
    key: Option<HeaderValue>,
    patience: Duration,
}

/// Why one try did not work.
pub(crate) enum Trouble {
    /// Another try may. With the pause that the server asks for, if it does.
    Passing(String, Option<Duration>),
    Lasting(Failed),
}

impl From<Failed> for Trouble {
    fn from(failed: Failed) -> Self {
        Self::Lasting(failed)
    }
}

impl Api {
    /// `patience`: how long to go on trying when a request meets trouble that may pass.
    pub(crate) fn new(server: &Server, patience: Duration) -> Result<Self, Failed> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(HEAD_WAIT));
        tcp.set_keepalive(Some(KEEPALIVE));
        let tls = HttpsConnectorBuilder::new().with_provider_and_native_roots(aws_lc_rs::default_provider()).map_err(Failed::broken)?;
        let pool = Pool::builder(TokioExecutor::new()).build(tls.https_or_http().enable_http1().wrap_connector(tcp));
        let key = server.key.as_deref().map(bearer).transpose()?;
        Ok(Self { pool, base: server.url.trim_end_matches('/').to_owned(), key, patience })
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value, Failed> {
        self.persist(async || self.object(Method::GET, path, None).await).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value, Failed> {
        self.persist(async || self.object(Method::POST, path, Some(body)).await).await
    }

    /// Deletes a file that is not needed any more. One that stays does no harm.
    pub(crate) async fn discard(&self, file: &str) {
        let _ = self.persist(async || self.object(Method::DELETE, &format!("files/{file}"), None).await).await;
    }

    /// Uploads the lines of a batch; the file's id.
    pub(crate) async fn upload(&self, file: &Path) -> Result<String, Failed> {
        let answer = self.persist(async || self.upload_once(file).await).await?;
        let id = answer["id"].as_str().map(str::to_owned);
        id.ok_or_else(|| Failed::broken(format!("{}: the answer to an upload has no id", self.base)))
    }

    /// One try to open a file on the server for reading.
    pub(crate) async fn content(&self, file: &str) -> Result<Content, Trouble> {
        let request = self.request(Method::GET, &format!("files/{file}/content"), empty())?;
        Ok(Content::new(self.answer(request, HEAD_WAIT).await?.into_body()))
    }

    /// Tries until it works, will never work, or the patience is at its end. The patience begins with the first trouble.
    pub(crate) async fn persist<T>(&self, mut attempt: impl AsyncFnMut() -> Result<T, Trouble>) -> Result<T, Failed> {
        let (mut trouble_since, mut pause, mut tries) = (None, PAUSE_MIN, 0);
        loop {
            let (why, after) = match attempt().await {
                Ok(done) => return Ok(done),
                Err(Trouble::Lasting(failed)) => return Err(failed),
                Err(Trouble::Passing(why, after)) => (why, after),
            };
            tries += 1;
            if clock::now().since(*trouble_since.get_or_insert_with(clock::now)) >= self.patience {
                return Err(Failed::broken(why));
            }
            if tries == TRIES_UNTOLD {
                out::note(&format!("{why}; trying again for at most {} s", self.patience.as_secs()));
            }
            tokio::time::sleep(after.unwrap_or(pause).min(PAUSE_MAX)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn object(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Trouble> {
        let mut request = self.request(method, path, body.map_or_else(empty, |body| whole(body.to_string().into())))?;
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        read(self.answer(request, HEAD_WAIT).await?).await
    }

    async fn upload_once(&self, file: &Path) -> Result<Value, Trouble> {
        let upload = upload::of(file).await.map_err(|error| Failed::broken(format!("{}: {error}", file.display())))?;
        let mut request = self.request(Method::POST, "files", upload.body)?;
        request.headers_mut().extend(upload.headers);
        read(self.answer(request, UPLOAD_WAIT).await?).await
    }

    fn request(&self, method: Method, path: &str, body: Body) -> Result<Request<Body>, Trouble> {
        let request = Request::builder().method(method).uri(format!("{}/{path}", self.base)).body(body);
        let mut request = request.map_err(|error| Failed::refused(format!("--url: {error}")))?;
        if let Some(key) = &self.key {
            request.headers_mut().insert(AUTHORIZATION, key.clone());
        }
        Ok(request)
    }

    async fn answer(&self, request: Request<Body>, wait: Duration) -> Result<Response<Incoming>, Trouble> {
        let url = request.uri().to_string();
        let passing = |why: &dyn std::fmt::Display| Trouble::Passing(format!("{url}: {why}"), None);
        let answered = timeout(wait, self.pool.request(request)).await.map_err(|_| passing(&format_args!("no answer within {wait:?}")))?;
        let response = answered.map_err(|error| passing(&with_cause(&error)))?;
        if response.status().is_success() { Ok(response) } else { Err(refusal(&url, response).await) }
    }
}

fn bearer(key: &str) -> Result<HeaderValue, Failed> {
    let value = HeaderValue::from_str(&format!("Bearer {key}"));
    let mut value = value.map_err(|_| Failed::refused("the key cannot stand in a header: use visible ASCII characters only"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn empty() -> Body {
    whole(Bytes::new())
}

fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

async fn read(response: Response<Incoming>) -> Result<Value, Trouble> {
    let passing = |why: String| Trouble::Passing(why, None);
    let body = timeout(HEAD_WAIT, Limited::new(response.into_body(), OBJECT_BYTES_MAX).collect()).await;
    let body = body.map_err(|_| passing(format!("an answer did not come to its end within {HEAD_WAIT:?}")))?;
    let body = body.map_err(|error| passing(format!("an answer broke off: {error}")))?;
    serde_json::from_slice(&body.to_bytes())
        .map_err(|_| Trouble::Lasting(Failed::broken("an answer is no JSON: is this an API of models?")))
}

/// Reads why the server said no.
async fn refusal(url: &str, response: Response<Incoming>) -> Trouble {
    let (status, headers) = (response.status(), response.headers().clone());
    let answer = read(response).await.unwrap_or(Value::Null);
    let why = match (answer["error"]["code"].as_str(), answer["error"]["message"].as_str()) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (None, Some(message)) => message.to_owned(),
        _ => format!("{url}: status {status}"),
    };
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let may_pass = matches!(status.as_u16(), 408 | 409 | 429 | 500..) && header("x-should-retry") != Some("false");
    let after = header("retry-after").and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs);
    if may_pass { Trouble::Passing(why, after) } else { Trouble::Lasting(Failed::broken(why)) }
}

/// The client's own words stop before the system's reason.
fn with_cause(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
