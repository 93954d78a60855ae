//! edge: one model backend. Takes a call, gives back the answer judged, or an error that already says what the caller may
//! read and whose fault it may be.
//!
//! An OpenAI-compatible server and the sandbox in this process speak the same bodies; only what carries them differs
//! (`response.rs`). So every check of an answer exists once, and the sandbox's faults meet it too. A model in this process
//! (`local.rs`) is called as what it is, a function. Dropping a call or a stream ends it at the backend at once. Nothing here retries, bisects or chooses a backend.

mod answer;
pub(crate) mod classify;
mod embeddings;
pub mod http;
#[cfg(feature = "local")]
mod local;
#[doc(hidden)]
pub mod measured;
mod openai;
mod rate_limit;
mod request;
mod response;
mod response_event;
mod sse;
mod stream;

pub use embeddings::read as read_embeddings;
pub use stream::{Event, EventStream};

use crate::sandbox::Sandbox;
use ::http::HeaderValue;
use bytes::Bytes;
use openai::OpenAi;
use response::Response;
use shared::config::{self, Target};
use shared::domain::Operation;
use shared::error::Failure;
use shared::tls::TlsError;
use shared::wire::{Fault, Usage};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// A handle to one backend. Cheap to clone; clones share connections and, for a sandbox, its simulated accelerator.
#[derive(Clone)]
pub struct Backend {
    peer: Peer,
    timeout: Duration,
}

#[derive(Clone)]
enum Peer {
    OpenAi(Arc<OpenAi>),
    Sandbox(Arc<Sandbox>),
    #[cfg(feature = "local")]
    Local(local::Local),
}

/// Why a backend cannot be set up; a matter for the configuration.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("the url of backend `{0}` is not one that can be called")]
    Url(String),
    #[error("the key of backend `{0}` cannot stand in a header: use visible ASCII characters only")]
    Key(String),
    #[error("tls of backend `{name}`: {cause}")]
    Tls { name: String, cause: TlsError },
    #[cfg(feature = "local")]
    #[error("the model of backend `{name}`: {cause}")]
    Model { name: String, cause: crate::local::ModelError },
    #[cfg(not(feature = "local"))]
    #[error(
        "backend `{0}` is of kind local, and this executable has no local models: build it with `cargo build --release --features local`"
    )]
    NoLocalModels(String),
}

/// One array call: the inputs of several requests in one.
#[derive(Clone, Copy, Debug)]
pub struct EmbedCall<'a> {
    /// For each request, its inputs as comma-separated raw JSON values.
    pub inputs: &'a [Bytes],
    /// Inputs over all requests.
    pub count: u32,
    /// Further JSON members without braces; may be empty. Never `input`, `model`, `encoding_format` or `user`.
    pub params: &'a str,
    pub traceparent: Option<&'a str>,
}

/// Exactly one vector for each input, in the order of the inputs, all of the same length, all finite.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedded {
    pub vectors: Vec<Vec<f32>>,
    pub prompt_tokens: Option<u32>,
}

impl Embedded {
    pub fn vector(&self, index: usize) -> &[f32] {
        &self.vectors[index]
    }
}

/// One generation.
#[derive(Clone, Debug)]
pub struct GenerateCall {
    pub op: Operation,
    /// The caller's JSON.
    pub body: Bytes,
    /// Where the `model` value stands in the body, quotes included. Absent: the body is parsed to find it.
    pub model_at: Option<(u32, u32)>,
    pub stream: bool,
    pub traceparent: Option<Box<str>>,
}

/// What a generation gives.
pub enum Answer {
    /// A JSON object, byte for byte as the backend wrote it.
    Whole { body: Bytes, usage: Option<Usage> },
    /// The backend has said 200 and `text/event-stream`.
    Stream(EventStream),
}

/// A call's bad end.
#[derive(Debug, thiserror::Error)]
#[error("{}: {detail}", failure.code)]
pub struct BackendError {
    /// For the caller. A rejection carries the backend's own words, which may repeat an input: show it only to the
    /// callers of this very call.
    pub failure: Failure,
    pub fault: Fault,
    pub blame: Blame,
    /// For the log: status, kind of error. Never bodies.
    pub detail: String,
}

/// Whose fault an error may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// One item of a batch may be at fault (rejected, crashed on, wrong count, malformed answer): bisecting finds it.
    MaybeItem,
    /// The backend's, whatever it was asked.
    Backend,
}

impl Blame {
    const fn of(fault: Fault) -> Self {
        if fault.may_be_the_requests() { Self::MaybeItem } else { Self::Backend }
    }
}

impl Backend {
    /// # Errors
    /// A URL or a key that cannot be put into a request, certificates that cannot be used, a local model that cannot be read.
    pub fn new(config: &config::Backend, clients: &mut http::Clients) -> Result<Self, BuildError> {
        let peer = match &config.target {
            Target::OpenAi { url, model, key, tls, stream_usage } => {
                let client = clients.client(tls.as_ref()).map_err(|cause| BuildError::Tls { name: config.name.clone(), cause })?;
                Peer::OpenAi(Arc::new(OpenAi::new(&config.name, client, url, model, key.as_ref(), *stream_usage)?))
            }
            Target::Sandbox(sandbox) => Peer::Sandbox(Sandbox::new(sandbox.clone())),
            #[cfg(feature = "local")]
            Target::Local { model_dir } => Peer::Local(local::Local::load(config, model_dir)?),
            #[cfg(not(feature = "local"))]
            Target::Local { .. } => return Err(BuildError::NoLocalModels(config.name.clone())),
        };
        Ok(Self { peer, timeout: config.timeout })
    }

    /// For how long it will take no call, as far as it has said.
    pub fn rests(&self) -> Duration {
        match &self.peer {
            Peer::OpenAi(openai) => openai.rests(),
            _ => Duration::ZERO,
        }
    }

    /// Embeds all inputs in one call, within the backend's timeout.
    ///
    /// # Errors
    /// As [`BackendError`] says; among them an answer whose count differs from `count`.
    pub async fn embed(&self, call: EmbedCall<'_>) -> Result<Embedded, BackendError> {
        self.within_timeout(self.peer.embed(&call)).await
    }

    /// Generates once: the whole call within the backend's timeout, or, for a stream, its beginning and each further event.
    ///
    /// # Errors
    /// As [`BackendError`] says.
    pub async fn generate(&self, call: GenerateCall) -> Result<Answer, BackendError> {
        let asks = call.stream && call.op != Operation::Responses && self.peer.is_asked_for_usage();
        let (body, hides_usage) = request::generation(&call.body, call.model_at, self.peer.model(), asks)?;
        let begun = self.peer.send(call.op, body, header(call.traceparent.as_deref()));
        if call.stream {
            let events = self.within_timeout(async { begun.await?.events().await }).await?;
            Ok(Answer::Stream(EventStream::new(call.op, events, hides_usage, self.timeout)))
        } else {
            let body = self.within_timeout(async { begun.await?.whole().await }).await?;
            let usage = answer::usage(&body)?;
            Ok(Answer::Whole { body, usage })
        }
    }

    async fn within_timeout<T>(&self, exchange: impl Future<Output = Result<T, BackendError>>) -> Result<T, BackendError> {
        match tokio::time::timeout(self.timeout, exchange).await {
            Ok(result) => result,
            Err(_) => Err(classify::timed_out(self.timeout)),
        }
    }
}

impl Peer {
    /// The model's name there, as a JSON string.
    fn model(&self) -> &str {
        match self {
            Self::OpenAi(openai) => openai.model(),
            Self::Sandbox(_) => "\"sandbox\"",
            #[cfg(feature = "local")]
            Self::Local(_) => "\"local\"",
        }
    }

    /// Whether a stream is asked for its usage there, whoever wants it. A response says it anyway.
    fn is_asked_for_usage(&self) -> bool {
        match self {
            Self::OpenAi(openai) => openai.is_asked_for_usage(),
            _ => true,
        }
    }

    async fn embed(&self, call: &EmbedCall<'_>) -> Result<Embedded, BackendError> {
        #[cfg(feature = "local")]
        if let Self::Local(local) = self {
            return local.embed(call).await;
        }
        let body = request::embeddings(self.model(), call);
        let response = self.send(Operation::Embeddings, body, header(call.traceparent)).await?;
        embeddings::read(&response.whole().await?, call.count)
    }

    async fn send(&self, op: Operation, body: Bytes, traceparent: Option<HeaderValue>) -> Result<Response, BackendError> {
        match self {
            Self::OpenAi(openai) => openai.send(op, body, traceparent).await,
            Self::Sandbox(sandbox) => Ok(sandbox.call(op, &body).await.into()),
            #[cfg(feature = "local")]
            Self::Local(_) => Err(local::not_a_generator()),
        }
    }
}

/// A caller's `traceparent` that cannot stand in a header is not worth failing the call for.
fn header(traceparent: Option<&str>) -> Option<HeaderValue> {
    traceparent.and_then(|value| HeaderValue::from_str(value).ok())
}

impl BackendError {
    /// The inputs of a request could not be told apart: its body is not what the ingress checked.
    pub(crate) fn inputs_unreadable() -> Self {
        let failure = Failure::new(shared::error::Code::Internal, "The request was damaged on its way to the worker; send it again.");
        let detail = "the inputs of a large request cannot be told apart".into();
        Self { failure, fault: Fault::Rejected, blame: Blame::MaybeItem, detail }
    }
}
