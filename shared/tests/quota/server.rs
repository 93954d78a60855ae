//! A redis-server of a test's own: on a free port, nothing on disk, gone with the test.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

pub(crate) struct RedisServer {
    child: Child,
    port: u16,
    folder: TempDir,
    /// Where its certificates are, when it speaks TLS.
    tls: Option<PathBuf>,
}

/// `TIDEMILL_REDIS_SERVER`, else the one that `tests/run --setup` installs, else the one on PATH.
fn program() -> PathBuf {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("shared/ is in the repository");
    let installed = repository.join(".tidemill/bin/redis-server");
    let named = std::env::var_os("TIDEMILL_REDIS_SERVER").map(PathBuf::from);
    named.or_else(|| installed.is_file().then_some(installed)).unwrap_or_else(|| "redis-server".into())
}

impl RedisServer {
    pub(crate) async fn start() -> Self {
        Self::start_with(None).await
    }

    /// One that speaks TLS only, with `server.pem` and `server-key.pem` of a folder, to clients whom `ca.pem` has signed.
    pub(crate) async fn start_tls(files: &Path) -> Self {
        Self::start_with(Some(files.to_owned())).await
    }

    async fn start_with(tls: Option<PathBuf>) -> Self {
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let folder = TempDir::new().unwrap();
        let child = spawn(port, &folder, tls.as_deref());
        let mut server = Self { child, port, folder, tls };
        server.opened().await;
        server
    }

    pub(crate) fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "rediss" } else { "redis" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// Ends it as a crash would.
    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// A new one at the same port, which knows nothing.
    pub(crate) async fn restart(&mut self) {
        self.child = spawn(self.port, &self.folder, self.tls.as_deref());
        self.opened().await;
    }

    /// Stops it (`STOP`) or lets it go on (`CONT`).
    pub(crate) async fn signal(&self, signal: &str) {
        let id = self.child.id().expect("it runs").to_string();
        let status = Command::new("kill").args(["-s", signal, &id]).status().await.unwrap();
        assert!(status.success());
    }

    /// Runs one command there.
    pub(crate) async fn command(&self, words: &[&str]) {
        self.ask::<redis::Value>(words).await;
    }

    /// Runs one command there, and tells its answer.
    pub(crate) async fn answer(&self, words: &[&str]) -> String {
        self.ask(words).await
    }

    async fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let client = redis::Client::open(self.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut command = redis::cmd(words[0]);
        words[1..].iter().for_each(|word| {
            command.arg(word);
        });
        command.query_async(&mut connection).await.unwrap()
    }

    async fn opened(&mut self) {
        while TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            assert!(self.child.try_wait().unwrap().is_none(), "redis-server did not start");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn spawn(port: u16, folder: &TempDir, tls: Option<&Path>) -> Child {
    let mut command = Command::new(program());
    let port = port.to_string();
    match tls {
        None => command.args(["--port", &port]),
        Some(files) => {
            command.args(["--port", "0", "--tls-port", &port]).arg("--tls-cert-file").arg(files.join("server.pem"));
            command.arg("--tls-key-file").arg(files.join("server-key.pem")).arg("--tls-ca-cert-file").arg(files.join("ca.pem"))
        }
    };
    command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"]);
    command.arg(folder.path()).kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("no redis-server was found: run tests/run --setup first")
}
