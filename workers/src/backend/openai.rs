//! edge: the calls of any OpenAI-compatible server (vLLM, TGI, llama.cpp, Ollama, SGLang, hosted ones).

use super::http::Client;
use super::response::Response;
use super::{BackendError, BuildError, classify, rate_limit};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Method, Request, Uri};
use http_body_util::Full;
use shared::clock::{self, Time};
use shared::config::Secret;
use shared::domain::Operation;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const AGENT: HeaderValue = HeaderValue::from_static(concat!("tidemill/", env!("CARGO_PKG_VERSION")));
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// One model at one server: what every request to it shares, made once.
pub(crate) struct OpenAi {
    client: Client,
    chat: Uri,
    completions: Uri,
    responses: Uri,
    embeddings: Uri,
    /// The model's name as a JSON string, quotes included.
    model: String,
    authorization: Option<HeaderValue>,
    stream_usage: bool,
    /// Until then its rate limit is used up, as far as it has said; in milliseconds of our clock.
    rests_until: AtomicU64,
}

impl OpenAi {
    pub(crate) fn new(
        name: &str,
        client: Client,
        url: &str,
        model: &str,
        key: Option<&Secret>,
        stream_usage: bool,
    ) -> Result<Self, BuildError> {
        let uri = |op: Operation| format!("{url}/{}", op.path()).parse().map_err(|_| BuildError::Url(name.to_owned()));
        Ok(Self {
            client,
            chat: uri(Operation::Chat)?,
            completions: uri(Operation::Completions)?,
            responses: uri(Operation::Responses)?,
            embeddings: uri(Operation::Embeddings)?,
            model: serde_json::Value::from(model).to_string(),
            authorization: key.map(|key| bearer(name, key)).transpose()?,
            stream_usage,
            rests_until: AtomicU64::new(0),
        })
    }

    pub(crate) fn model(&self) -> &str {
        &self.model
    }

    /// Whether a stream is asked for its usage, whoever wants it.
    pub(crate) const fn is_asked_for_usage(&self) -> bool {
        self.stream_usage
    }

    /// For how long it will take no call.
    pub(crate) fn rests(&self) -> Duration {
        Time::from_millis(self.rests_until.load(Ordering::Relaxed)).since(clock::now())
    }

    pub(crate) async fn send(&self, op: Operation, body: Bytes, traceparent: Option<HeaderValue>) -> Result<Response, BackendError> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri(op).clone();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, JSON);
        headers.insert(USER_AGENT, AGENT);
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        if let Some(traceparent) = traceparent {
            headers.insert("traceparent", traceparent);
        }
        let response = self.client.send(request).await.map_err(|error| classify::call(&error))?;
        if let Some(rest) = rate_limit::rest(response.headers()) {
            self.rests_until.fetch_max((clock::now() + rest).as_micros().div_ceil(1_000), Ordering::Relaxed);
        }
        let response = Response::from(response);
        let may_be_the_caller = matches!(op, Operation::Responses | Operation::Completions);
        Ok(if may_be_the_caller { response.that_may_lack_it() } else { response })
    }

    fn uri(&self, op: Operation) -> &Uri {
        match op {
            Operation::Chat => &self.chat,
            Operation::Completions => &self.completions,
            Operation::Responses => &self.responses,
            Operation::Embeddings => &self.embeddings,
        }
    }
}

fn bearer(name: &str, key: &Secret) -> Result<HeaderValue, BuildError> {
    let value = HeaderValue::from_str(&format!("Bearer {}", key.expose()));
    let mut value = value.map_err(|_| BuildError::Key(name.to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}
