//! edge: the calls of any OpenAI-compatible server (vLLM, TGI, llama.cpp, Ollama, SGLang, hosted ones).

use super::http::Client;
use super::response::Response;
use super::{BackendError, BuildError, classify};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Method, Request, Uri};
use http_body_util::Full;
use shared::config::Secret;
use shared::domain::Operation;

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
}

impl OpenAi {
    pub(crate) fn new(name: &str, client: Client, url: &str, model: &str, key: Option<&Secret>) -> Result<Self, BuildError> {
        let uri = |op: Operation| format!("{url}/{}", op.path()).parse().map_err(|_| BuildError::Url(name.to_owned()));
        Ok(Self {
            client,
            chat: uri(Operation::Chat)?,
            completions: uri(Operation::Completions)?,
            responses: uri(Operation::Responses)?,
            embeddings: uri(Operation::Embeddings)?,
            model: serde_json::Value::from(model).to_string(),
            authorization: key.map(|key| bearer(name, key)).transpose()?,
        })
    }

    pub(crate) fn model(&self) -> &str {
        &self.model
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
        self.client.send(request).await.map(Response::from).map_err(|error| classify::call(&error))
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
