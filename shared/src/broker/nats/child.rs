//! edge: a nats-server of our own: a child process on a free port, that does not outlive us.
//!
//! It ends with [`NatsServer::stop`], with a drop, and, through a watchdog, when this process is killed outright: the
//! watchdog is a shell that waits for its standard input to close, which the kernel does for the dead, and then
//! terminates the server. The server stays our direct child and is not reaped before the watchdog is gone, so the
//! process id it was given cannot come to mean anybody else.

use super::version::Version;
use crate::clock;
use serde::Deserialize;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

/// How long the server may take to open its port: it reads its store back first.
const START_MAX: Duration = Duration::from_secs(30);

/// How long it may take to end when asked, before it is killed. Its store survives either.
const STOP_MAX: Duration = Duration::from_secs(5);

/// Between two looks for the file in which the server names its port.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// By itself the server promises its streams no more than three quarters of what is free on the disk when it starts, which
/// on a small one, or one they have filled in part, is less than their caps add up to.
const CONFIG: &str = "jetstream { max_file_store: 1TB }\n";

#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{0} does not run, or is not a nats-server")]
    NotAServer(PathBuf),
    #[error(transparent)]
    TooOld(#[from] super::BrokerError),
    #[error("{0} is in use by another process: stop it, or choose another folder")]
    InUse(PathBuf),
    #[error("nats-server did not start; its log is {0}")]
    NotStarted(PathBuf),
}

/// The nats-server to start: `TIDEMILL_NATS_SERVER`, else `.tidemill/bin/nats-server` below `folder`, else the one on PATH.
/// Not checked yet: see [`version`].
pub fn find(folder: &Path) -> Option<PathBuf> {
    let named = std::env::var_os("TIDEMILL_NATS_SERVER").map(PathBuf::from);
    let local = Some(folder.join(".tidemill/bin/nats-server")).filter(|path| path.is_file());
    named.or(local).or_else(on_path)
}

fn on_path() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join("nats-server")).find(|candidate| candidate.is_file())
}

/// Asks a nats-server for its version.
///
/// # Errors
/// `NotAServer`, or `TooOld` before 2.10.
pub async fn version(program: &Path) -> Result<Version, ChildError> {
    let not_a_server = || ChildError::NotAServer(program.to_owned());
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().await.map_err(|_| not_a_server())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let number = text.trim().strip_prefix("nats-server: v").ok_or_else(not_a_server)?;
    Ok(Version::check(number)?)
}

/// A running nats-server with JetStream.
#[derive(Debug)]
pub struct NatsServer {
    // Dropped in this order: the watchdog first, while the server's process id is certainly the server's.
    watchdog: Child,
    server: Child,
    url: String,
    /// Held while we live: two servers on one store would ruin it.
    _lock: File,
}

impl NatsServer {
    /// Starts `program` on 127.0.0.1, on `port` or a free one, with its store, log and lock below `folder`.
    ///
    /// # Errors
    /// See [`ChildError`]. Nothing is left running.
    pub async fn start(program: &Path, folder: &Path, port: Option<u16>) -> Result<Self, ChildError> {
        version(program).await?;
        let lock = lock(folder)?;
        let ports = folder.join("ports");
        // What a killed server left there names a port that is nobody's.
        let _ = std::fs::remove_dir_all(&ports);
        std::fs::create_dir_all(&ports).map_err(|source| ChildError::Io { path: ports.clone(), source })?;
        let config = folder.join("nats-server.conf");
        std::fs::write(&config, CONFIG).map_err(|source| ChildError::Io { path: config.clone(), source })?;
        let mut server = spawn_server(program, &config, folder, &ports, port)?;
        let watchdog = spawn_watchdog(&server)?;
        let url = wait_for_url(&mut server, &ports).await.ok_or_else(|| ChildError::NotStarted(log_file(folder)))?;
        Ok(Self { watchdog, server, url, _lock: lock })
    }

    /// `nats://127.0.0.1:PORT`
    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn port(&self) -> u16 {
        self.url.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or(0)
    }

    pub fn process_id(&self) -> Option<u32> {
        self.server.id()
    }

    /// Ends the server in good order, or kills it after 5 s.
    pub async fn stop(mut self) {
        drop(self.watchdog.stdin.take());
        let ended = async {
            let _ = self.watchdog.wait().await;
            let _ = self.server.wait().await;
        };
        if timeout(STOP_MAX, ended).await.is_err() {
            self.kill().await;
        }
    }

    /// Kills the server as a crash would.
    pub async fn kill(mut self) {
        let _ = self.watchdog.kill().await;
        let _ = self.server.kill().await;
    }
}

fn lock(folder: &Path) -> Result<File, ChildError> {
    let path = folder.join("lock");
    let opened = std::fs::create_dir_all(folder).and_then(|()| File::create(&path));
    let file = opened.map_err(|source| ChildError::Io { path: path.clone(), source })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(ChildError::InUse(folder.to_owned())),
        Err(TryLockError::Error(source)) => Err(ChildError::Io { path, source }),
    }
}

fn log_file(folder: &Path) -> PathBuf {
    folder.join("nats-server.log")
}

fn spawn_server(program: &Path, config: &Path, folder: &Path, ports: &Path, port: Option<u16>) -> Result<Child, ChildError> {
    let port = port.map_or_else(|| "-1".to_owned(), |port| port.to_string());
    let mut command = Command::new(program);
    command.args(["--addr", "127.0.0.1", "--port", &port, "--jetstream"]);
    command.arg("--store_dir").arg(folder.join("store"));
    command.arg("--config").arg(config);
    command.arg("--ports_file_dir").arg(ports);
    command.arg("--log").arg(log_file(folder));
    // A group of its own: an interrupt at the terminal is for us, and the server must outlive our drain.
    command.process_group(0).kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map_err(|source| ChildError::Io { path: program.to_owned(), source })
}

fn spawn_watchdog(server: &Child) -> Result<Child, ChildError> {
    let id = server.id().map_or_else(String::new, |id| id.to_string());
    let mut command = Command::new("sh");
    command.args(["-c", "read -r _; kill -TERM \"$1\"", "watchdog", &id]);
    command.process_group(0).kill_on_drop(true).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map_err(|source| ChildError::Io { path: "sh".into(), source })
}

#[derive(Deserialize)]
struct Ports {
    nats: Vec<String>,
}

async fn wait_for_url(server: &mut Child, ports: &Path) -> Option<String> {
    let deadline = clock::now() + START_MAX;
    while clock::now() < deadline {
        if let Some(url) = read_url(ports) {
            return Some(url);
        }
        if !matches!(server.try_wait(), Ok(None)) {
            return None;
        }
        sleep(LOOK_INTERVAL).await;
    }
    None
}

/// The first address in the first complete ports file, if there is one yet.
fn read_url(ports: &Path) -> Option<String> {
    let file = std::fs::read_dir(ports).ok()?.flatten().find(|entry| entry.path().extension().is_some_and(|e| e == "ports"))?;
    let ports: Ports = serde_json::from_slice(&std::fs::read(file.path()).ok()?).ok()?;
    ports.nats.into_iter().next()
}
