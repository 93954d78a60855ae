//! edge: Tidemill as a contender: in one process on either broker, or each role in a process of its own.

use super::{ContenderError, Running, Stage, extra_model, free_port, key, own_folder};
use crate::backend;
use crate::child::Child;
use crate::client::Client;
use crate::nats::NatsServer;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How Tidemill runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `tidemill up` on its in-process broker.
    Memory,
    /// The same, where every window of a tenant's and a key's limits is counted and none ever refuses.
    Limited,
    /// The same, counted in a Redis.
    LimitedByRedis,
    /// `tidemill up` over a nats-server.
    JetStream,
    /// Ingress, scheduler and worker apart, over a nats-server.
    Apart,
}

const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Calls of a sequence model at once: the peers have no such limit, so this one must not be met.
const CONCURRENCY: usize = 4_096;

/// What would say something else than our arguments.
const ENVIRONMENT: [&str; 4] = ["TIDEMILL_NATS_URL", "TIDEMILL_REDIS_URL", "TIDEMILL_DEV_KEY", "TIDEMILL_LOG"];

impl Layout {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Memory => "tidemill-memory",
            Self::Limited => "tidemill-limits",
            Self::LimitedByRedis => "tidemill-redis",
            Self::JetStream => "tidemill-jetstream",
            Self::Apart => "tidemill-apart",
        }
    }
}

pub(super) async fn start(layout: Layout, stage: &Stage) -> Result<Running, ContenderError> {
    let folder = own_folder(stage, layout.name())?;
    let config = folder.join("tidemill.yaml");
    let redis = match layout {
        Layout::LimitedByRedis => Some(start_redis(stage, &folder)?),
        _ => None,
    };
    let limited = matches!(layout, Layout::Limited | Layout::LimitedByRedis);
    std::fs::write(&config, config_yaml(stage, limited, redis.as_ref().map(|(port, _)| *port)))?;
    let nats = match layout {
        Layout::Memory | Layout::Limited | Layout::LimitedByRedis => None,
        Layout::JetStream | Layout::Apart => {
            Some(NatsServer::start(stage.nats_server.clone().ok_or(ContenderError::NoNats)?, &folder).await?)
        }
    };
    let broker = nats.as_ref().map_or_else(|| "memory".to_owned(), NatsServer::url);
    let start = |role: &str, args: &[&str]| {
        let mut command = Command::new(&stage.tidemill);
        // What the developer's shell says must not steer a measurement. The access log is part of what is measured: it goes
        // to a file.
        ENVIRONMENT.iter().for_each(|name| _ = command.env_remove(name));
        command.arg(role).args(args).args(["--nats", &broker, "--config"]).arg(&config);
        Child::start_tree(role, command, Path::new(&folder))
    };
    let serve: &[&str] = &["--listen", "127.0.0.1:0"];
    let mut children = match layout {
        Layout::Memory | Layout::Limited | Layout::LimitedByRedis | Layout::JetStream => vec![start("up", serve)?],
        Layout::Apart => vec![start("ingress", serve)?, start("scheduler", &[])?, start("worker", &[])?],
    };
    let address = children[0].printed("listening on ", START_TIMEOUT).await?;
    children.extend(redis.map(|(_, server)| server));
    let keys: Vec<String> = (0..stage.tenants.max(1)).map(key).collect();
    let client = Client::new(&address, "").with_keys(keys.iter().map(String::as_str));
    Ok(Running { name: layout.name(), client, children, nats })
}

/// A redis-server that keeps nothing, and its port.
fn start_redis(stage: &Stage, folder: &Path) -> Result<(u16, Child), ContenderError> {
    let installed = stage.nats_server.as_ref().map(|nats| nats.with_file_name("redis-server")).filter(|file| file.is_file());
    let named = std::env::var_os("TIDEMILL_REDIS_SERVER").map(PathBuf::from);
    let port = free_port()?;
    let mut command = Command::new(named.or(installed).unwrap_or_else(|| "redis-server".into()));
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"]).arg(folder);
    Ok((port, Child::start_tree("redis", command, folder)?))
}

/// Every window there is, and none that a measurement fills.
const LIMITS: &str = "{ requests_per_minute: 1000000000, tokens_per_minute: 10000000000, concurrency: 1000000, tokens_per_day: 1000000000000, usd_per_month: 1000000 }";

fn config_yaml(stage: &Stage, limited: bool, redis: Option<u16>) -> String {
    let backend = &stage.backend;
    let mut yaml = String::from("models:\n");
    let mut model = |name: &str, of: &str, kind: &str, concurrency: usize| {
        let padded = of == backend::PADDED || stage.model.is_some();
        let _ = writeln!(
            yaml,
            "  - {{ name: {name}, kind: {kind}, batching: {{ padded: {padded} }}, backends: [{{ kind: openai, url: \"{backend}/v1\", model: {of}, concurrency: {concurrency} }}] }}"
        );
    };
    if let Some(given) = &stage.model {
        model(given, given, "array", 1);
    } else {
        model(backend::CHAT, backend::CHAT, "sequence", CONCURRENCY);
        model(backend::SLOW_CHAT, backend::SLOW_CHAT, "sequence", CONCURRENCY);
        model(backend::ACCELERATOR, backend::ACCELERATOR, "array", 1);
        model(backend::PADDED, backend::PADDED, "array", 1);
    }
    (0..stage.extra_models).for_each(|index| model(&extra_model(index), backend::CHAT, "sequence", CONCURRENCY));
    if let Some(port) = redis {
        let _ = writeln!(yaml, "redis: {{ url: \"redis://127.0.0.1:{port}\" }}");
    }
    let limits = if limited { LIMITS } else { "{}" };
    yaml.push_str("tenants:\n");
    for tenant in 0..stage.tenants.max(1) {
        let _ = writeln!(yaml, "  - {{ name: tenant-{tenant}, limits: {limits}, keys: [ {{ key: {}, limits: {limits} }} ] }}", key(tenant));
    }
    yaml
}
