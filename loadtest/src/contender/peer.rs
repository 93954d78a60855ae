//! edge: other gateways as contenders, at pinned versions, installed below one folder from the registry that has them.

use super::{ContenderError, Running, Stage, free_port, key, own_folder};
use crate::child::Child;
use crate::client::Client;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A gateway of somebody else.
#[derive(Debug)]
pub struct Peer {
    pub name: &'static str,
    registry: Registry,
    /// With its version.
    package: &'static str,
    /// Its program in its folder.
    program: &'static str,
    /// What it is started with, for a port and a backend.
    args: fn(&Started<'_>) -> Vec<String>,
    environment: &'static [(&'static str, &'static str)],
    /// What its callers must send, given the backend: some learn it from them.
    headers: fn(&str) -> Headers,
}

type Headers = Vec<(&'static str, String)>;

#[derive(Clone, Copy, Debug)]
enum Registry {
    PyPi,
    Npm,
}

/// What a peer's arguments are made of.
struct Started<'a> {
    port: u16,
    /// Of its metrics.
    other_port: u16,
    backend: &'a str,
    config: &'a Path,
}

/// As it comes, cache-aware policy and logs included, as Tidemill is measured with what its default configuration has on.
/// With `--policy round_robin`, of no less use before a single backend, it took 62 µs of CPU where its default took 107.
pub const VLLM_ROUTER: Peer = Peer {
    name: "vllm-router",
    registry: Registry::PyPi,
    package: "vllm-router==0.1.17",
    program: "bin/vllm-router",
    args: router_args,
    environment: &[],
    headers: |_| Vec::new(),
};

/// As vllm-router, of which it is the origin.
pub const SGLANG_ROUTER: Peer = Peer {
    name: "sglang-router",
    registry: Registry::PyPi,
    package: "sglang-router==0.3.2",
    program: "bin/sglang-router",
    args: sglang_args,
    environment: &[],
    headers: |_| Vec::new(),
};

/// One worker, as it comes; its price list is the one in the package. It insists on a key: the first tenant's.
pub const LITELLM: Peer = Peer {
    name: "litellm",
    registry: Registry::PyPi,
    package: "litellm[proxy]==1.106.2",
    program: "bin/litellm",
    args: |started| {
        words(&format!("--host 127.0.0.1 --port {} --num_workers 1 --telemetry False --config {}", started.port, started.config.display()))
    },
    environment: &[("LITELLM_LOCAL_MODEL_COST_MAP", "True"), ("LITELLM_MASTER_KEY", "sk-load-00000")],
    headers: |_| Vec::new(),
};

/// Learns its backend from its callers' headers.
pub const PORTKEY: Peer = Peer {
    name: "portkey",
    registry: Registry::Npm,
    package: "@portkey-ai/gateway@1.15.2",
    program: "node_modules/@portkey-ai/gateway/build/start-server.js",
    args: |started| words(&format!("--port={} --headless", started.port)),
    environment: &[],
    headers: |backend| vec![("x-portkey-provider", "openai".to_owned()), ("x-portkey-custom-host", format!("{backend}/v1"))],
};

fn router_args(started: &Started<'_>) -> Vec<String> {
    let Started { port, other_port, backend, .. } = started;
    words(&format!("--host 127.0.0.1 --port {port} --prometheus-host 127.0.0.1 --prometheus-port {other_port} --worker-urls {backend}"))
}

fn sglang_args(started: &Started<'_>) -> Vec<String> {
    let mut args = words("launch");
    args.extend(router_args(started));
    args
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

/// Starts it if it is installed.
pub(super) fn start(peer: &Peer, stage: &Stage) -> Result<Running, ContenderError> {
    let home = peer.home(&stage.peers);
    if !peer.is_installed(&home) {
        return Err(ContenderError::NotInstalled);
    }
    let folder = own_folder(stage, peer.name)?;
    let config = folder.join("litellm.yaml");
    std::fs::write(&config, litellm_yaml(stage))?;
    let started = Started { port: free_port()?, other_port: free_port()?, backend: &stage.backend, config: &config };
    let mut command = peer.command(&home);
    command.args((peer.args)(&started)).envs(peer.environment.iter().copied()).current_dir(&folder);
    let mut running = Running::new(peer.name, peer.client(started.port, &stage.backend));
    running.children.push(Child::start_tree(peer.name, command, &folder)?);
    Ok(running)
}

/// Installs it, unless this version is there. Takes a minute or two.
pub fn install(peer: &Peer, peers: &Path) -> Result<(), ContenderError> {
    let home = peer.home(peers);
    if peer.is_installed(&home) {
        return Ok(());
    }
    // Half an installation, or another version's.
    let _ = std::fs::remove_dir_all(&home);
    std::fs::create_dir_all(&home)?;
    match peer.registry {
        Registry::PyPi => {
            run(Command::new("python3").args(["-m", "venv"]).arg(&home))?;
            run(Command::new(home.join("bin/pip")).args(["install", "--quiet", "--disable-pip-version-check", peer.package]))?;
        }
        Registry::Npm => {
            run(Command::new("npm")
                .args(["install", "--no-audit", "--no-fund", "--loglevel=error", "--prefix"])
                .arg(&home)
                .arg(peer.package))?;
        }
    }
    Ok(std::fs::write(home.join(STAMP), peer.package)?)
}

/// Written last: holds the package that is there.
const STAMP: &str = "installed.txt";

fn run(command: &mut Command) -> Result<(), ContenderError> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| ContenderError::Install(format!("{name}: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    Err(ContenderError::Install(format!("{name}: {}", crate::child::tail(&String::from_utf8_lossy(&output.stderr)))))
}

impl Peer {
    fn home(&self, peers: &Path) -> PathBuf {
        peers.join(self.name)
    }

    fn is_installed(&self, home: &Path) -> bool {
        std::fs::read_to_string(home.join(STAMP)).is_ok_and(|package| package == self.package)
    }

    fn command(&self, home: &Path) -> Command {
        match self.registry {
            Registry::PyPi => Command::new(home.join(self.program)),
            Registry::Npm => {
                let mut node = Command::new("node");
                node.arg(home.join(self.program));
                node
            }
        }
    }

    fn client(&self, port: u16, backend: &str) -> Client {
        let client = Client::new(&format!("http://127.0.0.1:{port}"), &key(0));
        (self.headers)(backend).iter().fold(client, |client, (name, value)| client.with_header(name, value))
    }
}

fn litellm_yaml(stage: &Stage) -> String {
    let backend = &stage.backend;
    let mock = || vec![crate::backend::CHAT, crate::backend::ACCELERATOR, crate::backend::PADDED];
    let models = stage.model.as_deref().map_or_else(mock, |given| vec![given]).into_iter().map(|name| {
        format!("  - model_name: {name}\n    litellm_params: {{ model: openai/{name}, api_base: \"{backend}/v1\", api_key: sk-any }}\n")
    });
    format!("model_list:\n{}", models.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_is_not_the_one_installed() {
        let peers = tempfile::tempdir().unwrap();
        let home = VLLM_ROUTER.home(peers.path());
        std::fs::create_dir_all(&home).unwrap();
        assert!(!VLLM_ROUTER.is_installed(&home));
        std::fs::write(home.join(STAMP), "vllm-router==0.0.1").unwrap();
        assert!(!VLLM_ROUTER.is_installed(&home));
        std::fs::write(home.join(STAMP), VLLM_ROUTER.package).unwrap();
        assert!(VLLM_ROUTER.is_installed(&home));
    }

    #[test]
    fn litellm_knows_the_first_tenants_key() {
        assert!(LITELLM.environment.contains(&("LITELLM_MASTER_KEY", key(0).as_str())));
    }

    #[test]
    fn portkey_is_told_its_backend_by_the_caller() {
        let mut head = Vec::new();
        PORTKEY.client(1, "http://b:2").write_head(&mut head, "/x", 0, 0);
        assert!(String::from_utf8(head).unwrap().contains("x-portkey-custom-host: http://b:2/v1\r\n"));
    }
}
