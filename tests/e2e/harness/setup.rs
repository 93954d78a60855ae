//! edge: what a test wants started, and the configuration file that says so.

use super::certificates::{AUTHORITY, Pair};
use super::link::{Link, Weather};
use super::mill::Mill;
use super::node::{Node, Role};
use super::program;
use loadtest::nats::NatsServer;
use std::path::Path;
use tempfile::TempDir;

/// How every key of a test begins, and the pepper. Found in a log, it fails the test.
pub(super) const SECRETS: [&str; 2] = ["sk-e2e-canary", "e2e-canary-pepper"];
/// The first tenant's key.
pub(crate) const KEY: &str = "sk-e2e-canary-first";
/// The second tenant's key.
pub(crate) const KEY_SMALL: &str = "sk-e2e-canary-second";
/// The key of the tenant `ops`, which may administer.
pub(crate) const KEY_ADMIN: &str = "sk-e2e-canary-admin";
/// Under which issued keys are hashed.
pub(crate) const PEPPER: &str = "e2e-canary-pepper-0123456789abcdef";
/// What every process finds in its environment: keys stand in the configuration by reference, and our authority takes the place of
/// the system's roots.
pub(crate) const ENV: [(&str, &str); 5] =
    [("E2E_KEY", KEY), ("E2E_KEY_SMALL", KEY_SMALL), ("E2E_KEY_ADMIN", KEY_ADMIN), ("E2E_PEPPER", PEPPER), ("SSL_CERT_FILE", CA_FILE)];

pub(crate) const CA_FILE: &str = "ca.pem";

/// What the administration needs of the file.
const ADMIN: &str = "admin: { listen: \"127.0.0.1:0\" }\npeppers: { current: 1, values: { 1: \"env:E2E_PEPPER\" } }\nroles:\n  - { name: admin, admin: write }\n  - { name: reader, admin: read }\n";

/// A road to be started. The models: `chat`, `narrow` (one call at a time) and `embed`, all at one HTTP sandbox.
pub(crate) struct Setup {
    layout: Layout,
    nats: bool,
    weather: Option<Weather>,
    sandbox: Vec<String>,
    limits: Vec<String>,
    quota: String,
    tls: Option<(Pair, String)>,
    tenants: Vec<String>,
    sections: String,
    models: String,
    backend_timeout_ms: u32,
}

enum Layout {
    Up,
    Cluster { ingresses: usize, schedulers: usize, workers: usize },
}

impl Mill {
    /// All roles in one process, on the in-process broker.
    pub(crate) fn up() -> Setup {
        Setup {
            layout: Layout::Up,
            nats: false,
            weather: None,
            sandbox: Vec::new(),
            limits: Vec::new(),
            quota: "{}".into(),
            tls: None,
            tenants: Vec::new(),
            sections: String::new(),
            models: String::new(),
            backend_timeout_ms: 30_000,
        }
    }

    /// Separate processes on one nats-server.
    pub(crate) fn cluster(ingresses: usize, schedulers: usize, workers: usize) -> Setup {
        Setup { layout: Layout::Cluster { ingresses, schedulers, workers }, nats: true, ..Self::up() }
    }
}

impl Setup {
    /// On JetStream instead of the in-process broker.
    pub(crate) fn nats(mut self) -> Self {
        self.nats = true;
        self
    }

    /// On JetStream, over a road with this weather.
    pub(crate) fn weather(mut self, weather: &Weather) -> Self {
        self.weather = Some(weather.clone());
        self.nats()
    }

    /// With an administration at each ingress, and a tenant `ops` that may use it.
    pub(crate) fn admin(mut self) -> Self {
        self.sections.push_str(ADMIN);
        self.tenants.push("{ name: ops, role: admin, keys: [ \"env:E2E_KEY_ADMIN\" ] }".into());
        self
    }

    /// The sandbox's options, such as `&["--a-ms", "5"]`.
    pub(crate) fn sandbox(mut self, args: &[&str]) -> Self {
        self.sandbox = args.iter().map(|&arg| arg.to_owned()).collect();
        self
    }

    /// A line of the configuration's `limits`.
    pub(crate) fn limit(mut self, line: &str) -> Self {
        self.limits.push(line.to_owned());
        self
    }

    /// The limits of the tenant `first`, such as `{ requests_per_minute: 60 }`.
    pub(crate) fn quota(mut self, limits: &str) -> Self {
        self.quota = limits.to_owned();
        self
    }

    /// https with this certificate. `clients` are further keys of the section `tls`, such as `client_ca: ca.pem`, and the
    /// file of that name is there.
    pub(crate) fn tls(mut self, pair: Pair, clients: &str) -> Self {
        self.tls = Some((pair, clients.to_owned()));
        self
    }

    /// One more tenant, such as `{ name: third, keys: [ sk-e2e-canary-third ] }`.
    pub(crate) fn tenant(mut self, yaml: &str) -> Self {
        self.tenants.push(yaml.to_owned());
        self
    }

    /// One more model: an entry of the configuration's `models`.
    pub(crate) fn model(mut self, yaml: &str) -> Self {
        self.models.push_str(yaml);
        self
    }

    /// More sections of the configuration, such as `roles`.
    pub(crate) fn sections(mut self, yaml: &str) -> Self {
        self.sections.push_str(yaml);
        self
    }

    /// How long the workers wait for the backend.
    pub(crate) fn backend_timeout_ms(mut self, ms: u32) -> Self {
        self.backend_timeout_ms = ms;
        self
    }

    /// Starts it all and waits until every process is ready.
    pub(crate) async fn start(self) -> Mill {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut sandbox = Node::new(Role::Sandbox, 0, self.sandbox_args(), folder.path());
        sandbox.launch(&[]);
        let nats = self.start_nats(&folder).await;
        sandbox.ready().await;
        if let Some((pair, _)) = &self.tls {
            pair.write(folder.path());
        }
        std::fs::write(folder.path().join(CA_FILE), AUTHORITY.pem()).expect("the temporary folder is writable");
        let config = folder.path().join("tidemill.yaml");
        std::fs::write(&config, self.yaml(sandbox.address())).expect("the temporary folder is writable");
        let (url, link) = self.road_to(nats.as_ref()).await;
        let nodes = self.nodes(&config, &url, folder.path());
        let mut mill = Mill::new(folder, sandbox, nats, link, nodes);
        mill.start().await;
        mill
    }

    async fn start_nats(&self, folder: &TempDir) -> Option<NatsServer> {
        if !self.nats {
            return None;
        }
        let server = NatsServer::start(program::nats_server(), folder.path()).await;
        Some(server.unwrap_or_else(|error| panic!("{error}")))
    }

    /// Where the roles find their broker.
    async fn road_to(&self, nats: Option<&NatsServer>) -> (String, Option<Link>) {
        let url = nats.map_or_else(|| "memory".to_owned(), NatsServer::url);
        let Some(weather) = &self.weather else { return (url, None) };
        let port = url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("the address of a server ends in its port");
        let link = Link::start(port, weather).await;
        (format!("nats://127.0.0.1:{}", link.port()), Some(link))
    }

    fn sandbox_args(&self) -> Vec<String> {
        ["--listen", "127.0.0.1:0"].iter().map(|&arg| arg.to_owned()).chain(self.sandbox.iter().cloned()).collect()
    }

    fn nodes(&self, config: &Path, nats: &str, folder: &Path) -> Vec<Node> {
        let node = |role: Role, index: usize| {
            let address = if role.takes_requests() { "--listen" } else { "--metrics" };
            let config = config.to_string_lossy();
            let args = ["--config", &config, "--nats", nats, address, "127.0.0.1:0"];
            Node::new(role, index, args.iter().map(|&arg| arg.to_owned()).collect(), folder)
        };
        let counts = match self.layout {
            Layout::Up => vec![(Role::Up, 1)],
            Layout::Cluster { ingresses, schedulers, workers } => {
                vec![(Role::Worker, workers), (Role::Scheduler, schedulers), (Role::Ingress, ingresses)]
            }
        };
        counts.into_iter().flat_map(|(role, count)| (0..count).map(move |index| (role, index))).map(|(role, i)| node(role, i)).collect()
    }

    fn yaml(&self, backend: &str) -> String {
        let quota = &self.quota;
        let limits: String = self.limits.iter().map(|line| format!("  {line}\n")).collect();
        let models: String = [("chat", "sequence", 256), ("narrow", "sequence", 1), ("embed", "array", 1)]
            .map(|(name, kind, concurrency)| {
                let timeout_ms = self.backend_timeout_ms;
                let (url, model) = (format!("{backend}/v1"), if kind == "array" { "sandbox-embedding" } else { "sandbox-chat" });
                format!(
                    "  - name: {name}\n    kind: {kind}\n    backends:\n      - {{ kind: openai, url: \"{url}\", model: {model}, concurrency: {concurrency}, timeout_ms: {timeout_ms} }}\n"
                )
            })
            .concat();
        let tls = self.tls.as_ref().map(|(_, clients)| format!("tls: {{ cert: cert.pem, key: key.pem, {clients} }}\n")).unwrap_or_default();
        let tenants: String = self.tenants.iter().map(|tenant| format!("  - {tenant}\n")).collect();
        let (sections, more) = (&self.sections, &self.models);
        format!(
            "{tls}limits:\n  drain_timeout_ms: 8000\n{limits}models:\n{models}{more}tenants:\n  - {{ name: first, limits: {quota}, keys: [ \"env:E2E_KEY\" ] }}\n  - {{ name: second, keys: [ \"env:E2E_KEY_SMALL\" ] }}\n{tenants}{sections}"
        )
    }
}
