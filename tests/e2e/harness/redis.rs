//! edge: a redis-server of a test's own: on a free port, nothing on disk, gone with the test.

use super::{ports, program};
use shared::quota::redis::RedisLedger;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

pub(crate) struct RedisServer {
    child: Child,
    port: u16,
}

impl RedisServer {
    pub(crate) async fn start() -> Self {
        let port = ports::free();
        let mut server = Self { child: spawn(port), port };
        server.opened().await;
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Ends it as a crash would, and with it all that it knew.
    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.expect("it ran");
    }

    /// A new one at the same port, which knows nothing.
    pub(crate) async fn restart(&mut self) {
        self.child = spawn(self.port);
        self.opened().await;
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// Stops it (`STOP`) or lets it go on (`CONT`).
    pub(crate) async fn signal(&self, signal: &str) {
        let id = self.child.id().expect("it runs").to_string();
        assert!(Command::new("kill").args(["-s", signal, &id]).status().await.expect("there is a kill").success());
    }

    /// Has it forget everything, scripts included.
    pub(crate) async fn flush(&self) {
        let mut connection = TcpStream::connect(("127.0.0.1", self.port)).await.expect("it is there");
        connection.write_all(b"FLUSHALL\r\nSCRIPT FLUSH\r\n").await.expect("it reads");
        let mut answers = [0; 10];
        connection.read_exact(&mut answers).await.expect("it answers");
        assert_eq!(&answers, b"+OK\r\n+OK\r\n");
    }

    /// What it knows, as schedulers see it.
    pub(crate) async fn ledger(&self) -> RedisLedger {
        let ledger = RedisLedger::open(&self.url(), Duration::from_secs(5)).expect("an address");
        ledger.connect().await.expect("it is there");
        ledger
    }

    async fn opened(&mut self) {
        while TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            assert!(self.child.try_wait().expect("its state is known").is_none(), "redis-server did not start");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn spawn(port: u16) -> Child {
    let mut command = Command::new(program::redis_server());
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    command.kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::null());
    command.spawn().expect("no redis-server was found: run tests/run --setup first")
}
