//! edge: one connection to Redis, given up when a call over it fails, and made again only when asked to.

use super::scripts::{Script, TEXTS};
use super::wire::{Answer, Call};
use super::{Away, BadUrl};
use crate::config::ClientTls;
use crate::tls::{self, TlsError};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ClientTlsConfig, ErrorKind, Pipeline, RedisError, ServerErrorKind, TlsCertificates};
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::timeout;

/// How long making a connection may take, TLS and scripts included. No request waits for it.
const CONNECT_MAX: Duration = Duration::from_secs(1);

/// What is written to see whether it may be.
const PROBE_MS: u64 = 1_000;

pub(super) struct Link {
    client: Client,
    /// The longest a call may take.
    call_max: Duration,
    slot: Mutex<Slot>,
}

#[derive(Default)]
struct Slot {
    connection: Option<MultiplexedConnection>,
    /// Which connection this is: a call that fails late does not take a newer one down.
    made: u64,
}

impl Link {
    pub(super) fn open(url: &str, call_max: Duration) -> Result<Self, BadUrl> {
        let client = Client::open(url).map_err(|error| BadUrl(error.category().to_owned()))?;
        Ok(Self { client, call_max, slot: Mutex::default() })
    }

    /// The client speaks TLS from the files' bytes. That they go together is found out here, where it can be said which is wrong.
    pub(super) fn secured(self, files: &ClientTls) -> Result<Self, TlsError> {
        tls::client(Some(files))?;
        let pem = |path: &Option<PathBuf>| path.as_deref().map(tls::read).transpose();
        let pair = pem(&files.cert)?.zip(pem(&files.key)?);
        let client_tls = pair.map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key });
        let certificates = TlsCertificates { client_tls, root_cert: pem(&files.ca)? };
        let client = Client::build_with_tls(self.client.get_connection_info().clone(), certificates);
        Ok(Self { client: client.map_err(|error| TlsError::Refused(error.to_string()))?, ..self })
    }

    pub(super) fn is_connected(&self) -> bool {
        self.slot().connection.is_some()
    }

    /// Connects anew, and finds out whether calls would be answered in time: they write, which one that is full or a replica refuses.
    pub(super) async fn connect(&self) -> Result<(), Away> {
        let settings = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let connected = self.client.get_multiplexed_async_connection_with_config(&settings);
        let mut connection = within(CONNECT_MAX, connected).await?;
        within(CONNECT_MAX, load(&mut connection)).await?;
        let probe = redis::cmd("SET").arg("tm:probe").arg(1).arg("PX").arg(PROBE_MS).to_owned();
        within(self.call_max, probe.exec_async(&mut connection)).await?;
        let mut slot = self.slot();
        *slot = Slot { connection: Some(connection), made: slot.made + 1 };
        Ok(())
    }

    /// Runs a script for each call, all in one round trip.
    pub(super) async fn call(&self, script: Script, calls: &[Call]) -> Result<Vec<Answer>, Away> {
        let (connection, made) = {
            let slot = self.slot();
            (slot.connection.clone(), slot.made)
        };
        let mut connection = connection.ok_or_else(|| Away("not connected".into()))?;
        let answers = within(self.call_max, run(&mut connection, script, calls)).await;
        if answers.is_err() {
            self.give_up(made);
        }
        answers
    }

    fn give_up(&self, made: u64) {
        let mut slot = self.slot();
        if slot.made == made {
            slot.connection = None;
        }
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A server that was restarted or told to flush its scripts gets them again. To run a call twice is safe: see `quota/core`.
async fn run(connection: &mut MultiplexedConnection, script: Script, calls: &[Call]) -> Result<Vec<Answer>, RedisError> {
    let mut pipeline = Pipeline::with_capacity(calls.len());
    for call in calls {
        pipeline.cmd("EVALSHA").arg(script.hash()).arg(1).arg(&call.tenant).arg(&call.asked);
    }
    match pipeline.query_async(connection).await {
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
            load(connection).await?;
            pipeline.query_async(connection).await
        }
        answers => answers,
    }
}

async fn load(connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
    let mut pipeline = Pipeline::new();
    for text in TEXTS {
        pipeline.cmd("SCRIPT").arg("LOAD").arg(text).ignore();
    }
    pipeline.exec_async(connection).await
}

async fn within<T>(most: Duration, work: impl Future<Output = Result<T, RedisError>>) -> Result<T, Away> {
    match timeout(most, work).await {
        Ok(done) => done.map_err(|error| Away(error.to_string())),
        Err(_) => Err(Away(format!("no answer within {} ms", most.as_millis()))),
    }
}
