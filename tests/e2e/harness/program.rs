//! edge: the programs the tests drive, and how one is run to its end.

use super::{KEY_ADMIN, SOON};
use loadtest::child::Child;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// The repository's scratch folder, which `tests/run --setup` fills.
pub(crate) fn scratch() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(".tidemill")
}

/// The executable under test.
pub(crate) fn tidemill() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    // What the developer's shell says must not steer a test.
    for variable in ["TIDEMILL_NATS_URL", "TIDEMILL_DEV_KEY", "TIDEMILL_LOG", "TIDEMILL_URL", "TIDEMILL_API_KEY"] {
        command.env_remove(variable);
    }
    command
}

pub(crate) fn nats_server() -> PathBuf {
    loadtest::nats::find(Path::new(env!("CARGO_MANIFEST_DIR"))).expect("no nats-server: run `tests/run --setup` first")
}

/// `TIDEMILL_REDIS_SERVER`, else the one that `tests/run --setup` installs, else the one on PATH.
pub(crate) fn redis_server() -> PathBuf {
    let installed = scratch().join("bin/redis-server");
    let named = std::env::var_os("TIDEMILL_REDIS_SERVER").map(PathBuf::from);
    named.or_else(|| installed.is_file().then_some(installed)).unwrap_or_else(|| "redis-server".into())
}

/// Python with the official SDK.
pub(crate) fn python() -> Command {
    let python = scratch().join("venv/bin/python");
    assert!(python.exists(), "no Python environment: run `tests/run --setup` first");
    Command::new(python)
}

/// Node with the official SDK, which scripts load from the folder in `TIDEMILL_NODE`.
pub(crate) fn node_js() -> Command {
    let home = scratch().join("node");
    assert!(home.join("node_modules/openai").exists(), "no Node SDK: run `tests/run --setup` first");
    let mut command = Command::new("node");
    command.env("TIDEMILL_NODE", home);
    command
}

/// A program that is run to its end.
pub(crate) struct Program {
    child: Child,
    _folder: TempDir,
}

/// Runs a command of the administration to its end; what it printed.
pub(crate) async fn administer(admin: &str, args: &[&str]) -> String {
    let mut command = tidemill();
    command.args(args).args(["--admin", admin]).env("TIDEMILL_ADMIN_KEY", KEY_ADMIN);
    let ended = Program::start("administration", command).end(SOON).await;
    assert_eq!(ended.code, Some(0), "{args:?}: {ended:?}");
    ended.out.trim().to_owned()
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Program {
    pub(crate) fn start(name: &str, command: Command) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let child = Child::start(name, command, folder.path()).unwrap_or_else(|error| panic!("{error}"));
        Self { child, _folder: folder }
    }

    /// Waits until it has printed a line that begins with `marker`.
    pub(crate) async fn printed(&mut self, marker: &str, within: Duration) {
        if let Err(error) = self.child.printed(marker, within).await {
            panic!("{error}");
        }
    }

    pub(crate) fn has_printed(&self, text: &str) -> bool {
        self.child.output().contains(text)
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill();
    }

    /// Waits for its end; one that takes longer is killed and has no code.
    pub(crate) async fn end(mut self, within: Duration) -> Ended {
        let waiting = tokio::task::spawn_blocking(move || {
            let code = self.child.wait(within).and_then(|status| status.code());
            Ended { code, out: self.child.output(), err: self.child.log() }
        });
        waiting.await.expect("waiting for a process does not panic")
    }
}
