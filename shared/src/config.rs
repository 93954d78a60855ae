//! core: the configuration, checked: what the roles are given. The shape of the file is in `config/file.rs`.

mod events;
mod file;
mod identity;
mod issuer;
mod jobs;
mod price;
mod redis;
mod secret;
mod tls;
mod webhooks;

pub use events::EventKind;
pub use file::{ConfigError, parse};
pub use identity::{PepperConfig, Tenant, TenantKey};
pub use issuer::{ClaimNames, Issuer, JwksAt, Naming, SignatureAlgorithm};
pub use jobs::Jobs;
pub use price::Price;
pub use redis::Redis;
pub use secret::Secret;
pub use tls::{ClientAuth, ClientTls, ServerTls};
pub use webhooks::{SigningSecret, Webhook, WebhookPolicy, shown};

use crate::broker::limits::Limits as BrokerLimits;
use crate::domain::{ModelKind, Token};
use crate::identity::Role;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Everything the file may say, checked and with every default filled in.
#[derive(Clone, Debug, Serialize)]
pub struct Config {
    pub listen: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ServerTls>,
    /// The listener of the administration, with the same `tls`. `None`: there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<Admin>,
    pub nats: Option<Nats>,
    pub redis: Option<Redis>,
    pub limits: Limits,
    pub jobs: Jobs,
    pub models: Vec<Model>,
    pub roles: Vec<Role>,
    pub tenants: Vec<Tenant>,
    /// Where the tenants' webhooks may lead.
    pub webhooks: WebhookPolicy,
    /// `None`: no keys are issued, and none that were are accepted.
    pub peppers: Option<PepperConfig>,
    /// Whose tokens are accepted beside keys.
    pub issuers: Vec<Issuer>,
    /// What the operator should know and need not mend, such as a key written into the file.
    #[serde(skip)]
    pub warnings: Vec<String>,
}

/// Where the administration is served, apart from the callers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    pub listen: SocketAddr,
}

/// The NATS servers between the roles.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Nats {
    /// One server or several of a cluster: `nats://A:4222,nats://B:4222`. May hold credentials: see [`without_credentials`].
    #[serde(serialize_with = "hidden")]
    pub url: String,
    /// Copies of each stream. Absent: three in a cluster of three or more, else one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<usize>,
    /// With it, a server that does not speak TLS is refused. Absent: TLS where the server or a `tls://` address wants it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ClientTls>,
    pub max_bytes: StreamBytes,
}

/// What the largest streams may hold, in bytes. JetStream reserves as much, so a small disk wants less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StreamBytes {
    /// Outcomes of deferred work that nobody has collected yet.
    pub results: usize,
    /// Uploaded and written files.
    pub files: usize,
    /// The record of model calls, from which budgets are summed anew: it should hold the busiest month.
    pub usage: usize,
}

impl StreamBytes {
    /// Below it a stream would be full with a single batch's work under way.
    const MIN: usize = 64 * 1024 * 1024;

    /// Whether this can work.
    ///
    /// # Errors
    /// A sentence that begins with the key's name.
    fn check(self) -> Result<(), String> {
        let named = [("results", self.results), ("files", self.files), ("usage", self.usage)];
        let short = named.into_iter().find(|(_, bytes)| *bytes < Self::MIN);
        short.map_or(Ok(()), |(key, _)| Err(format!("{key}: at least {} (64 MiB)", Self::MIN)))
    }
}

impl Default for StreamBytes {
    fn default() -> Self {
        let limits = BrokerLimits::default();
        Self { results: limits.results_bytes_max, files: limits.files_bytes_max, usage: limits.usage_bytes_max }
    }
}

/// Server addresses without what stands before an `@`: the form in which they may be shown.
pub fn without_credentials(url: &str) -> String {
    let bare = |one: &str| match (one.find("://"), one.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => format!("{}{}", &one[..scheme + 3], &one[at + 1..]),
        (None, Some(at)) => one[at + 1..].to_owned(),
        _ => one.to_owned(),
    };
    url.split(',').map(bare).collect::<Vec<_>>().join(",")
}

fn hidden<S: serde::Serializer>(url: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&without_credentials(url))
}

/// The bounds of the ingress. Every input has a size, a depth and a time limit.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of one request body.
    pub body_bytes_max: usize,
    /// Bytes of all request bodies in memory.
    pub bodies_bytes_max: usize,
    /// Nesting of one JSON body.
    pub json_depth_max: usize,
    /// Inputs of one embeddings call.
    pub inputs_max: usize,
    /// Requests in flight in one ingress.
    pub in_flight_max: usize,
    /// Requests in flight of one tenant in one ingress.
    pub in_flight_per_tenant_max: usize,
    /// How long a request waits for a rate limit before its caller is told to come back, in milliseconds.
    pub max_wait_ms: u64,
    /// The deadline of a request that does not say, in milliseconds.
    pub request_timeout_ms: u64,
    /// Time for a connection to send its headers, in milliseconds.
    pub header_timeout_ms: u64,
    /// Time for a request to send its body, in milliseconds.
    pub body_timeout_ms: u64,
    /// Time between two pieces of a body, in milliseconds.
    pub body_idle_timeout_ms: u64,
    /// Time for a caller to take something of an answer that waits for it, in milliseconds.
    pub write_timeout_ms: u64,
    /// Connections of one peer address, or of one IPv6 network of 64 bits. Absent: as many as there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections_per_address_max: Option<u32>,
    /// Time for running work to finish after SIGTERM, in milliseconds.
    pub drain_timeout_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 32 * 1024 * 1024,
            bodies_bytes_max: 512 * 1024 * 1024,
            json_depth_max: 64,
            inputs_max: 2_048,
            in_flight_max: 10_000,
            in_flight_per_tenant_max: 2_000,
            max_wait_ms: 1_000,
            request_timeout_ms: 600_000,
            header_timeout_ms: 10_000,
            body_timeout_ms: 60_000,
            body_idle_timeout_ms: 15_000,
            write_timeout_ms: 30_000,
            connections_per_address_max: None,
            drain_timeout_ms: 30_000,
        }
    }
}

/// The longest deadline a caller may ask for.
pub const REQUEST_TIMEOUT_MAX: Duration = Duration::from_secs(3_600);

#[derive(Clone, Debug, Serialize)]
pub struct Model {
    /// The public name.
    pub name: String,
    /// Its name in subjects and leases.
    #[serde(skip)]
    pub token: Token,
    pub kind: ModelKind,
    pub batching: Batching,
    pub price: Price,
    /// A call that would wait longer for a worker is refused at once; absent: one that would wait beyond its deadline.
    pub max_queue_ms: Option<u64>,
    /// Tokens of a request and its answer together. Absent: not known, and taken to be enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_tokens: Option<u32>,
    /// Models of the same kind that serve its requests in turn when it cannot.
    pub fallbacks: Vec<String>,
    pub backends: Vec<Backend>,
}

/// How requests of an array model become batches.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Batching {
    /// Inputs in one backend call.
    pub max_items: u32,
    /// Estimated tokens in one backend call, counted as the backend computes them: see `padded`.
    pub max_tokens: u32,
    /// The backend pads: each input of a call costs as much as the longest, and neighbours of similar length share calls.
    /// Not so unless said or one of the backends is `local`, because most servers pack (vLLM, SGLang, TEI with flash attention)
    /// and would have their batches cut for nothing.
    pub padded: bool,
    /// How long one backend call should take at most, in milliseconds.
    pub objective_ms: u32,
}

impl Default for Batching {
    fn default() -> Self {
        Self { max_items: 64, max_tokens: 16_384, padded: false, objective_ms: 200 }
    }
}

#[derive(Clone, Debug, Serialize)]
pub struct Backend {
    /// Unique within the model; a metric label and a header value.
    pub name: String,
    pub target: Target,
    /// Calls at once: over all workers, or by each worker when `per_worker`.
    pub concurrency: u32,
    /// Outstanding tokens (input + expected output) at once, counted like `concurrency`.
    pub tokens_max: u32,
    pub per_worker: bool,
    /// Time for one call that is not a stream, and between two pieces of one that is.
    #[serde(rename = "timeout_ms", serialize_with = "as_millis")]
    pub timeout: Duration,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// Any OpenAI-compatible server.
    OpenAi {
        /// The base, such as `http://127.0.0.1:9000/v1`.
        url: String,
        /// The model's name there.
        model: String,
        key: Option<Secret>,
        #[serde(skip_serializing_if = "Option::is_none")]
        tls: Option<ClientTls>,
        /// Streams are asked for their usage there, whether or not their caller asked.
        stream_usage: bool,
    },
    /// Deterministic answers with a latency and fault model, in process.
    Sandbox(SandboxConfig),
    /// An embedding model in the worker's own process, on its processor.
    Local {
        /// The folder with `config.json`, `tokenizer.json` and `model.safetensors`.
        model_dir: PathBuf,
    },
}

/// The sandbox backend's behaviour: what it costs, and how it fails.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SandboxConfig {
    /// Fixed cost of one embeddings call, in milliseconds.
    pub a_ms: f64,
    /// Cost of each input of an embeddings call, in milliseconds.
    pub b_ms: f64,
    /// Cost of each token of an embeddings call, padding included, in milliseconds: every input costs what the longest does.
    pub padded_token_ms: f64,
    /// Time to the first token of a generation, in milliseconds.
    pub first_token_ms: f64,
    /// Time of each further token, in milliseconds.
    pub token_ms: f64,
    /// Calls at once; more wait their turn inside the sandbox. 0: no limit.
    pub concurrency: u32,
    /// Length of an embedding unless the caller asks for another.
    pub dimensions: usize,
    /// Key of the hash that answers carry, so that an answer to somebody else's prompt shows.
    pub hash_key: String,
    /// Share of calls (0 to 1) that fail in each way.
    pub faults: Vec<FaultRate>,
}

impl Default for SandboxConfig {
    fn default() -> Self {
        Self {
            a_ms: 0.0,
            b_ms: 0.0,
            padded_token_ms: 0.0,
            first_token_ms: 0.0,
            token_ms: 0.0,
            concurrency: 0,
            dimensions: 64,
            hash_key: "tidemill".into(),
            faults: Vec::new(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultRate {
    pub fault: Fault,
    pub rate: f64,
}

/// A way for the sandbox to fail. Also chosen by a prompt that contains `[[fault:NAME]]` or, for a status, `[[fault:status=503]]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Answers with this HTTP status and an error body.
    Status(u16),
    /// Accepts the call and never answers.
    Hang,
    /// Answers one byte at a time, slowly.
    SlowDrip,
    /// Closes the connection in the middle of the answer.
    Reset,
    /// Answers 200 with broken JSON.
    MalformedJson,
    /// Answers with one vector too few.
    WrongCount,
    /// Ends a stream after a few tokens without `[DONE]`.
    PartialStream,
}

impl Config {
    /// What `tidemill up` serves without a file: two sandbox models and nobody who may call them yet.
    pub fn sandbox() -> Self {
        parse(SANDBOX_YAML, "the built-in configuration").expect("the built-in configuration is valid")
    }

    /// The whole of it as YAML, with every default, and secrets hidden. To read, not to feed back in.
    pub fn to_yaml(&self) -> String {
        serde_saphyr::to_string(self).expect("a configuration is plain data")
    }

    pub fn model(&self, name: &str) -> Option<&Model> {
        self.models.iter().find(|m| m.name == name)
    }
}

fn as_millis<S: serde::Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u32(crate::clock::millis(*span))
}

const SANDBOX_YAML: &str = "\
models:
  - name: sandbox-chat
    kind: sequence
    backends:
      - { kind: sandbox, concurrency: 256, sandbox: { first_token_ms: 50, token_ms: 5 } }
  - name: sandbox-embedding
    kind: array
    backends:
      - { kind: sandbox, concurrency: 1, sandbox: { a_ms: 5, b_ms: 0.15 } }
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_credentials() {
        assert_eq!(without_credentials("nats://u:p@h:4222,tls://t@k"), "nats://h:4222,tls://k");
        assert_eq!(without_credentials("u:p@h"), "h");
        assert_eq!(without_credentials("nats://h:4222"), "nats://h:4222");
    }

    #[test]
    fn a_printed_configuration_holds_no_credentials() {
        let yaml = "nats: { url: 'nats://u:canary@h1:1,canary@h2,h3' }\ntenants: [{ name: t, keys: [sk-canary] }]\n";
        let printed = parse(yaml, "f").unwrap().to_yaml();
        assert!(!printed.contains("canary"), "{printed}");
        assert!(printed.contains("nats://h1:1,h2,h3"), "{printed}");
    }
}
