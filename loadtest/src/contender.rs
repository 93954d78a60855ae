//! edge: who is compared: started in front of the backend, ready when a request has come back through it, ended by its drop.

use crate::child::{Child, ChildError, POLL, tail};
use crate::client::Client;
use crate::clock::Stopwatch;
use crate::nats::NatsServer;
use crate::process;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub mod peer;
mod relay;
mod tidemill;

/// The roads of a request to the backend.
#[derive(Clone, Copy, Debug)]
pub enum Contender {
    /// No gateway.
    Direct,
    Tidemill(tidemill::Layout),
    Peer(&'static peer::Peer),
    Relay(relay::Relay),
}

const MEMORY: Contender = Contender::Tidemill(tidemill::Layout::Memory);
const LIMITS: Contender = Contender::Tidemill(tidemill::Layout::Limited);
const REDIS: Contender = Contender::Tidemill(tidemill::Layout::LimitedByRedis);
const JETSTREAM: Contender = Contender::Tidemill(tidemill::Layout::JetStream);
const APART: Contender = Contender::Tidemill(tidemill::Layout::Apart);
const VLLM_ROUTER: Contender = Contender::Peer(&peer::VLLM_ROUTER);
const SGLANG_ROUTER: Contender = Contender::Peer(&peer::SGLANG_ROUTER);
const LITELLM: Contender = Contender::Peer(&peer::LITELLM);
const PORTKEY: Contender = Contender::Peer(&peer::PORTKEY);
const RELAY: Contender = Contender::Relay(relay::Relay::Straight);
const RELAY_JETSTREAM: Contender = Contender::Relay(relay::Relay::JetStream);

/// Who is compared unless others are named.
pub const GATEWAYS: [Contender; 8] = [Contender::Direct, MEMORY, JETSTREAM, APART, VLLM_ROUTER, SGLANG_ROUTER, LITELLM, PORTKEY];

/// All of them, in the order of the tables.
pub const ALL: [Contender; 12] =
    [Contender::Direct, RELAY, RELAY_JETSTREAM, MEMORY, LIMITS, REDIS, JETSTREAM, APART, VLLM_ROUTER, SGLANG_ROUTER, LITELLM, PORTKEY];

/// What all contenders are started with.
#[derive(Clone, Debug)]
pub struct Stage {
    /// For configurations, logs and stores.
    pub folder: PathBuf,
    /// The backend's address, such as `http://127.0.0.1:9000`.
    pub backend: String,
    /// The only model there, which embeds and pads, if the backend is not the mock.
    pub model: Option<String>,
    pub tidemill: PathBuf,
    pub nats_server: Option<PathBuf>,
    /// Where peers are installed.
    pub peers: PathBuf,
    /// How many tenants Tidemill knows.
    pub tenants: usize,
    /// How many chat models, all alike, Tidemill serves besides the backend's own.
    pub extra_models: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum ContenderError {
    #[error(transparent)]
    Child(#[from] ChildError),
    #[error("a file of the measurement: {0}")]
    File(#[from] std::io::Error),
    #[error("no nats-server was found: put one at .tidemill/bin/nats-server or on PATH")]
    NoNats,
    #[error("it is not installed: run `loadtest compare --install`")]
    NotInstalled,
    #[error("{0}")]
    Install(String),
    #[error("it did not answer within {0:.1?}; the last of its log: {1}")]
    NotReady(Duration, String),
}

/// A contender that runs. Its processes end with it.
#[derive(Debug)]
pub struct Running {
    pub name: &'static str,
    pub client: Client,
    /// In the order in which they end: whoever needs another stands before it.
    children: Vec<Child>,
    nats: Option<NatsServer>,
}

/// An interpreted gateway may take half a minute on a busy machine.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// The key of a tenant.
pub fn key(tenant: usize) -> String {
    format!("sk-load-{tenant:05}")
}

/// The name of an extra model.
pub fn extra_model(index: usize) -> String {
    format!("chat-{index}")
}

impl Contender {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Tidemill(layout) => layout.name(),
            Self::Peer(peer) => peer.name,
            Self::Relay(relay) => relay.name(),
        }
    }

    /// Starts it and waits until it answers.
    pub async fn start(self, stage: &Stage) -> Result<Running, ContenderError> {
        let mut running = match self {
            Self::Direct => Running::new(self.name(), Client::new(&stage.backend, "")),
            Self::Tidemill(layout) => tidemill::start(layout, stage).await?,
            Self::Peer(peer) => peer::start(peer, stage)?,
            Self::Relay(relay) => relay::start(relay, stage).await?,
        };
        running.ready(&stage.probe()).await?;
        Ok(running)
    }
}

impl Stage {
    /// A request that shows that a road is open.
    fn probe(&self) -> (&'static str, String) {
        match &self.model {
            Some(model) => ("/v1/embeddings", json!({ "model": model, "input": "ready?" }).to_string()),
            None => ("/v1/chat/completions", json!({ "model": "chat", "messages": [{ "role": "user", "content": "ready?" }] }).to_string()),
        }
    }
}

impl Running {
    fn new(name: &'static str, client: Client) -> Self {
        Self { name, client, children: Vec::new(), nats: None }
    }

    /// Its processes with all their descendants, as of now.
    pub fn processes(&self) -> Vec<u32> {
        let roots: Vec<u32> = self.children.iter().map(Child::id).chain(self.nats.as_ref().map(NatsServer::id)).collect();
        process::tree(&roots)
    }

    /// Waits until a request comes back through it.
    async fn ready(&mut self, (path, body): &(&'static str, String)) -> Result<(), ContenderError> {
        let began = Stopwatch::start();
        loop {
            let last = match self.client.post(path, body.clone()).await {
                Ok(answer) if answer.status == 200 => return Ok(()),
                Ok(answer) => format!("{} {}", answer.status, answer.text()),
                Err(error) => error.to_string(),
            };
            let ended = self.children.iter_mut().find_map(|child| child.exited().map(|_| tail(&child.log())));
            if ended.is_some() || began.elapsed() > READY_TIMEOUT {
                return Err(ContenderError::NotReady(began.elapsed(), ended.unwrap_or(last)));
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// A port that was free a moment ago, for programs that cannot choose one themselves.
fn free_port() -> std::io::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A folder of its own below the stage's.
fn own_folder(stage: &Stage, name: &str) -> std::io::Result<PathBuf> {
    let folder = Path::new(&stage.folder).join(name);
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}
