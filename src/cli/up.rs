//! `tidemill up`: every role in one process, on the best broker that is at hand.

use super::broker::{self, Choice};
use super::ingress::base;
use super::out::{self, Failed};
use super::{setup, signals};
use ingress::Ingress;
use scheduler::Scheduler;
use shared::config::{Config, Secret, Tenant};
use shared::domain::ModelKind;
use shared::entropy;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use workers::Worker;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The configuration file. Without one, two sandbox models are served.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to serve, instead of the file's address.
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// A NATS server, or `memory` for none.
    #[arg(long, value_name = "URL", env = "TIDEMILL_NATS_URL")]
    nats: Option<String>,
    /// The Redis that keeps limits, instead of the file's. Without one they are kept in this process.
    #[arg(long, value_name = "URL", env = "TIDEMILL_REDIS_URL")]
    redis: Option<String>,
    /// A key for an unlimited tenant `dev`, beside the file's tenants. Without it and without a file, one is made.
    #[arg(long, value_name = "KEY", env = "TIDEMILL_DEV_KEY")]
    dev_key: Option<String>,
}

const DEV_TENANT: &str = "dev";

pub(crate) async fn run(args: Args) -> Result<(), Failed> {
    let (mut config, has_file) = match &args.config {
        Some(path) => (setup::read_config(path)?, true),
        None => (Config::sandbox(), false),
    };
    if let Some(listen) = args.listen {
        config.listen = listen;
    }
    setup::use_redis(&mut config, args.redis.as_deref())?;
    let dev_key = args.dev_key.or_else(|| (!has_file).then(made_up_key));
    if let Some(key) = &dev_key {
        add_dev_tenant(&mut config, key)?;
    }
    setup::start_logs(&config);
    signals::outlive_hangups();
    let choice = broker::choose(broker::named(args.nats.as_deref(), &config).as_ref()).await?;
    Box::pin(serve(Arc::new(config), choice, dev_key)).await
}

async fn serve(config: Arc<Config>, choice: Choice, dev_key: Option<String>) -> Result<(), Failed> {
    let Choice { broker, server, note } = choice;
    let registry = setup::registry();
    let limit = Duration::from_millis(config.limits.drain_timeout_ms);
    let worker = Worker::start(&config, None, Arc::clone(&broker), entropy::node_id("worker"), &registry).await.map_err(Failed::broken)?;
    let (directory, _following) = setup::directory(&config, &broker).await?;
    let treasury = setup::treasury(&config, &directory).await?;
    let scheduler =
        Scheduler::start(&config, treasury, Arc::clone(&broker), entropy::node_id("scheduler"), &registry).await.map_err(Failed::broken)?;
    let id = entropy::node_id("ingress");
    let ingress = Ingress::start(Arc::clone(&config), Arc::clone(&broker), directory, id, &registry, true).await;
    let ingress = ingress.map_err(super::ingress::failed)?;
    banner(&config, ingress.local_addr(), ingress.admin_addr(), &note, dev_key.as_deref());
    signals::stop().await?;
    ingress.drain().await;
    worker.drain(limit).await;
    scheduler.drain().await;
    if let Err(error) = broker.flush().await {
        tracing::debug!(%error, "the last messages were not flushed");
    }
    if let Some(server) = server {
        server.stop().await;
    }
    Ok(())
}

fn made_up_key() -> String {
    format!("sk-dev-{:016x}", entropy::draw())
}

fn add_dev_tenant(config: &mut Config, key: &str) -> Result<(), Failed> {
    let key = Secret::literal(key).map_err(|error| Failed::refused(format!("--dev-key: {error}")))?;
    let tenants = &config.tenants;
    if tenants.iter().any(|tenant| tenant.keys.iter().any(|known| known.secret == key)) {
        return Err(Failed::refused("--dev-key: the file gives this key to a tenant already; choose another"));
    }
    if tenants.iter().any(|tenant| tenant.name == DEV_TENANT) {
        return Err(Failed::refused("--dev-key: the file has a tenant `dev` already; give it the key there"));
    }
    config.tenants.push(Tenant::unlimited(DEV_TENANT, key));
    Ok(())
}

fn banner(config: &Config, addr: SocketAddr, admin: Option<SocketAddr>, note: &str, dev_key: Option<&str>) {
    let models: Vec<&str> = config.models.iter().map(|m| m.name.as_str()).collect();
    out::line(&format!("tidemill {}", env!("CARGO_PKG_VERSION")));
    out::line(&format!("  listening on {}", base(config, addr)));
    if let Some(admin) = admin {
        out::line(&format!("  administration on {}", base(config, admin)));
    }
    out::line(&format!("  broker       {note}"));
    out::line(&format!(
        "  models       {}",
        if models.is_empty() { "none: add some to the configuration".into() } else { models.join(", ") }
    ));
    if let Some(key) = dev_key {
        out::line(&format!("  dev key      {key}"));
        if let Some(line) = curl(config, &base(config, addr), key) {
            out::line(&format!("\n{line}\n"));
        }
    }
}

/// A call that works when pasted, for the first model there is.
fn curl(config: &Config, base: &str, key: &str) -> Option<String> {
    let model = config.models.first()?;
    let name = serde_json::Value::from(model.name.as_str());
    let (path, body) = match model.kind {
        ModelKind::Sequence => ("chat/completions", format!(r#"{{"model":{name},"messages":[{{"role":"user","content":"Hello"}}]}}"#)),
        ModelKind::Array => ("embeddings", format!(r#"{{"model":{name},"input":"Hello"}}"#)),
    };
    let body = body.replace('\'', r"'\''");
    let key = key.replace('\'', r"'\''");
    Some(format!("curl -s {base}/v1/{path} -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' -d '{body}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dev_key_that_is_somebodys_already_is_refused() {
        let mut config = Config::sandbox();
        add_dev_tenant(&mut config, "sk-test").unwrap();
        assert!(add_dev_tenant(&mut config, "sk-test").is_err());
        assert!(add_dev_tenant(&mut config, "sk-other").is_err(), "there is a tenant dev by now");
        assert!(add_dev_tenant(&mut Config::sandbox(), "short").is_err());
    }

    #[test]
    fn the_curl_line_quotes_what_a_shell_would_read() {
        let mut config = Config::sandbox();
        config.models[0].name = "it's".into();
        let line = curl(&config, "http://127.0.0.1:1", "sk-test").unwrap();
        assert!(line.contains(r#""model":"it'\''s""#), "{line}");
    }
}
