//! edge: what every role does before it starts: read the configuration, open the logs, name itself.

use super::out::Failed;
use super::{RoleArgs, signals};
use scheduler::{Ledger, Treasury};
use shared::broker::Broker;
use shared::config::{self, Config, Redis};
use shared::domain::NodeId;
use shared::identity::{Directory, LiveDirectory};
use shared::quota::fallback::SharedLedger;
use shared::quota::redis::RedisLedger;
use shared::task::Guarded;
use shared::{entropy, telemetry};
use std::path::Path;
use std::sync::Arc;

/// Reads and checks a configuration file.
///
/// # Errors
/// Names file, line and key.
pub(crate) fn read_config(path: &Path) -> Result<Config, Failed> {
    let file = path.display().to_string();
    let yaml = std::fs::read_to_string(path).map_err(|error| Failed::refused(format!("{file}: cannot be read: {error}")))?;
    config::parse(&yaml, &file).map_err(Failed::refused)
}

/// A role that runs apart from the others: its configuration, broker and name.
pub(crate) struct Role {
    pub(crate) config: Config,
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) id: NodeId,
}

impl Role {
    /// Everything that can be refused is refused here, before a port is bound.
    pub(crate) async fn prepare(name: &str, args: &RoleArgs) -> Result<Self, Failed> {
        let mut config = read_config(&args.config)?;
        use_redis(&mut config, args.redis.as_deref())?;
        let id = node_id(name, args.id.as_deref())?;
        let nats = super::broker::named(args.nats.as_deref(), &config).filter(|nats| nats.url != super::broker::MEMORY);
        let nats = nats.ok_or_else(|| {
            Failed::refused("roles that run apart need a NATS server between them: set `nats: { url: … }` in the file, or --nats URL")
        })?;
        start_logs(&config);
        signals::outlive_hangups();
        let broker = super::broker::connect(&nats).await?;
        Ok(Self { config, broker, id })
    }
}

pub(crate) fn node_id(role: &str, given: Option<&str>) -> Result<NodeId, Failed> {
    given.map_or_else(|| Ok(entropy::node_id(role)), |id| NodeId::parse(id).map_err(|error| Failed::refused(format!("--id: {error}"))))
}

pub(crate) fn start_logs(config: &Config) {
    telemetry::init_logs("info");
    for warning in &config.warnings {
        tracing::warn!(target: "config", "{warning}");
    }
}

/// Takes the address that an argument names in place of the file's.
pub(crate) fn use_redis(config: &mut Config, argument: Option<&str>) -> Result<(), Failed> {
    let Some(url) = argument else { return Ok(()) };
    let redis = match config.redis.take() {
        Some(redis) => Redis { url: url.to_owned(), ..redis },
        None => Redis::at(url),
    };
    redis.check().map_err(|error| Failed::refused(format!("--redis: {error}")))?;
    config.redis = Some(redis);
    Ok(())
}

/// Who may call, and within which limits: kept up with the store until the guard is dropped.
pub(crate) async fn directory(config: &Config, broker: &Arc<dyn Broker>) -> Result<(Arc<LiveDirectory>, Guarded), Failed> {
    let file = Directory::new(config, entropy::secret());
    LiveDirectory::follow(file, Arc::clone(broker)).await.map_err(Failed::broken)
}

/// Who has which limits, and where they are counted.
pub(crate) async fn treasury(config: &Config, directory: &LiveDirectory) -> Result<Treasury, Failed> {
    let ledger = match &config.redis {
        Some(redis) => Ledger::Shared(Arc::new(shared_ledger(redis).await?)),
        None => Ledger::Own(Arc::default()),
    };
    Ok(Treasury { directory: directory.place(), ledger })
}

async fn shared_ledger(redis: &Redis) -> Result<SharedLedger, Failed> {
    let mut ledger = RedisLedger::open(&redis.url, redis.timeout()).expect("the configuration was checked");
    if let Some(files) = &redis.tls {
        ledger = ledger.secured(files).map_err(|error| Failed::refused(format!("redis.tls: {error}")))?;
    }
    Ok(SharedLedger::start(ledger, redis.grace()).await)
}

/// Several schedulers without a Redis count apart: a tenant gets its limits from each.
pub(crate) fn warn_of_own_limits(config: &Config) {
    let limited = |tenant: &config::Tenant| !tenant.quota.is_unlimited() || tenant.keys.iter().any(|key| !key.quota.is_unlimited());
    if config.tenants.iter().any(limited) || config.roles.iter().any(|role| !role.quota.is_unlimited()) {
        tracing::warn!(target: "config", "limits are counted by this scheduler alone: name a Redis in the section `redis` where there are several");
    }
}

/// The metrics of this process, with those of the process itself.
pub(crate) fn registry() -> prometheus::Registry {
    let registry = prometheus::Registry::new();
    #[cfg(target_os = "linux")]
    if let Err(error) = registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self())) {
        tracing::debug!(%error, "the process's own metrics are not there");
    }
    registry
}
