//! edge: which broker carries the messages: a given server, one started here, or this process itself.

use super::out::Failed;
use shared::broker::Broker;
use shared::broker::limits::Limits;
use shared::broker::memory::MemoryBroker;
use shared::broker::nats::child::{self, NatsServer};
use shared::broker::nats::{NatsBroker, Options};
use shared::config::{Config, Nats, StreamBytes, without_credentials};
use std::path::Path;
use std::sync::Arc;

/// The `--nats` value that keeps everything in this process.
pub(crate) const MEMORY: &str = "memory";

/// Where a nats-server started here keeps its store.
const STORE: &str = ".tidemill/nats";

/// A broker, and the server behind it if it was started here.
pub(crate) struct Choice {
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) server: Option<NatsServer>,
    /// For the banner.
    pub(crate) note: String,
}

/// The server that the arguments name, else the one that the file names.
pub(crate) fn named(argument: Option<&str>, config: &Config) -> Option<Nats> {
    let of_file = config.nats.clone();
    match argument {
        Some(url) => Some(Nats { url: url.to_owned(), ..of_file.unwrap_or_default() }),
        None => of_file,
    }
}

/// Connects to a NATS server.
pub(crate) async fn connect(nats: &Nats) -> Result<Arc<dyn Broker>, Failed> {
    let StreamBytes { results, files, usage } = nats.max_bytes;
    let limits = Limits { results_bytes_max: results, files_bytes_max: files, usage_bytes_max: usage, ..Limits::default() };
    let options = Options { replicas: nats.replicas, tls: nats.tls.clone(), limits };
    let broker = NatsBroker::connect(&nats.url, options)
        .await
        .map_err(|error| Failed::broken(format!("{}: {error}", without_credentials(&nats.url))))?;
    Ok(broker)
}

/// `tidemill up`: a server that is named, else one that is installed, else none.
pub(crate) async fn choose(named: Option<&Nats>) -> Result<Choice, Failed> {
    match named {
        Some(nats) if nats.url == MEMORY => Ok(in_process("as asked")),
        Some(nats) => {
            let broker = connect(nats).await?;
            let note = broker.describe();
            Ok(Choice { broker, server: None, note })
        }
        None => installed().await,
    }
}

async fn installed() -> Result<Choice, Failed> {
    let Some(program) = child::find(Path::new(".")) else { return Ok(in_process("no nats-server was found")) };
    if let Err(error) = child::version(&program).await {
        return Ok(in_process(&error.to_string()));
    }
    let server = NatsServer::start(&program, Path::new(STORE), None).await.map_err(Failed::broken)?;
    let broker = connect(&Nats { url: server.url().to_owned(), replicas: Some(1), ..Nats::default() }).await?;
    let note = format!("{}, started from {}, durable in {STORE}", broker.describe(), program.display());
    Ok(Choice { broker, server: Some(server), note })
}

fn in_process(why: &str) -> Choice {
    let note = format!("in process ({why}): one process only, and nothing survives a restart");
    Choice { broker: MemoryBroker::new(), server: None, note }
}
