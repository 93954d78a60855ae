//! edge: a nats-server of our own: on a free port, with its store in a folder, restartable on both.

use crate::child::{Child, ChildError, POLL};
use crate::clock::Stopwatch;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Time for a nats-server to open its ports.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// By itself a server lends its streams three quarters of the free disk, and the caps of ours may sum to more.
const CONFIG: &str = "jetstream { max_file_store: 1TB }\n";

/// A nats-server with JetStream. Ends with its guard.
#[derive(Debug)]
pub struct NatsServer {
    program: PathBuf,
    folder: PathBuf,
    child: Child,
    starts: u32,
    ports: Ports,
}

#[derive(Clone, Copy, Debug)]
struct Ports {
    client: u16,
    monitoring: u16,
}

/// Chosen by the server: a free port asked for and then given up could be taken by another.
const ANY: Ports = Ports { client: 0, monitoring: 0 };

/// The server to use: `TIDEMILL_NATS_SERVER`, `.tidemill/bin` below `root`, or the one on PATH.
pub fn find(root: &Path) -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("TIDEMILL_NATS_SERVER") {
        return Some(path.into());
    }
    let own = root.join(".tidemill/bin/nats-server");
    if own.exists() { Some(own) } else { on_path("nats-server") }
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

impl NatsServer {
    pub async fn start(program: PathBuf, folder: &Path) -> Result<Self, ChildError> {
        let folder = folder.to_owned();
        let child = launch(&program, &folder, 0, ANY)?;
        let mut server = Self { program, folder, child, starts: 1, ports: ANY };
        server.ports = server.read_ports().await?;
        Ok(server)
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// `nats://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.ports.client)
    }

    /// The address of its monitoring pages.
    pub fn monitoring(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.monitoring)
    }

    /// Ends it without any warning.
    pub fn kill(&mut self) {
        self.child.kill();
    }

    /// Starts it again on the same ports and the same store.
    pub async fn restart(&mut self) -> Result<(), ChildError> {
        self.child.kill();
        self.child = launch(&self.program, &self.folder, self.starts, self.ports)?;
        self.starts += 1;
        self.read_ports().await.map(|_| ())
    }

    async fn read_ports(&mut self) -> Result<Ports, ChildError> {
        let began = Stopwatch::start();
        let file = ports_folder(&self.folder, self.starts - 1);
        loop {
            if let Some(ports) = ports_in(&file) {
                return Ok(ports);
            }
            let line = "its ports file".to_owned();
            let (name, log) = (self.child.name().to_owned(), crate::child::tail(&self.child.log()));
            if let Some(status) = self.child.exited() {
                return Err(ChildError::Ended { name, status, line, log });
            }
            if began.elapsed() > START_TIMEOUT {
                return Err(ChildError::Silent { name, line, within: START_TIMEOUT, log });
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

fn ports_folder(folder: &Path, start: u32) -> PathBuf {
    folder.join(format!("nats-ports-{start}"))
}

fn launch(program: &Path, folder: &Path, start: u32, ports: Ports) -> Result<Child, ChildError> {
    let name = format!("nats-{start}");
    let ports_folder = ports_folder(folder, start);
    let config = folder.join("nats.conf");
    let written = std::fs::create_dir_all(&ports_folder).and_then(|()| std::fs::write(&config, CONFIG));
    written.map_err(|source| ChildError::Start { name: name.clone(), source })?;
    let port = |port: u16| if port == 0 { "-1".to_owned() } else { port.to_string() };
    let mut command = Command::new(program);
    command.args(["-a", "127.0.0.1", "-p", &port(ports.client), "-m", &port(ports.monitoring), "-js"]);
    command.arg("-c").arg(config);
    command.arg("-sd").arg(folder.join("nats-store")).arg("--ports_file_dir").arg(ports_folder);
    Child::start_tree(&name, command, folder)
}

fn ports_in(folder: &Path) -> Option<Ports> {
    let files = std::fs::read_dir(folder).ok()?;
    let file = files.flatten().map(|entry| entry.path()).find(|path| path.extension().is_some_and(|e| e == "ports"))?;
    let ports: Value = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    let port = |kind: &str| ports[kind][0].as_str()?.rsplit(':').next()?.trim_end_matches('/').parse().ok();
    Some(Ports { client: port("nats")?, monitoring: port("monitoring")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ports_file_is_read_only_when_whole() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("nats-server_7.ports");
        std::fs::write(&file, r#"{"nats":["nats://127.0.0.1:4"#).unwrap();
        assert!(ports_in(dir.path()).is_none());
        std::fs::write(&file, r#"{"nats":["nats://127.0.0.1:41"],"monitoring":["http://127.0.0.1:42"]}"#).unwrap();
        let ports = ports_in(dir.path()).unwrap();
        assert_eq!((ports.client, ports.monitoring), (41, 42));
    }
}
