//! edge: the whole distributed set-up as processes: three nats-servers, Redis, four backends, two ingresses, two schedulers and three
//! workers, with a road between each role and NATS, the workers and each backend, the schedulers and Redis.

use super::disk::{self, SmallDisk};
use super::journal::{Entry, Journal};
use super::oracle;
use super::plan::Who;
use crate::harness::{
    AUTHORITY, CA_FILE, ENV, KEY_ADMIN, Link, NatsCluster, Node, RedisServer, Role, SOON, Weather, assert_no_canary, ports, probe, until,
};
use loadtest::client::Client;
use loadtest::clock::Stopwatch;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(super) const INGRESSES: usize = 2;
pub(super) const BACKENDS: usize = 4;
const SCHEDULERS: usize = 2;
const WORKERS: usize = 3;
const SERVERS: usize = 3;

/// Time for all roles to be ready: streams of three copies are made meanwhile.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// Time for a process to end when asked: above the configured drain deadline.
const ENDS_WITHIN: Duration = Duration::from_secs(20);

/// The nats-server that stands on the small disk.
pub(super) const ON_SMALL_DISK: usize = 2;

pub(super) struct Stage {
    folder: PathBuf,
    pub(super) nats: NatsCluster,
    pub(super) redis: RedisServer,
    redis_weather: Weather,
    members: Vec<Member>,
    pub(super) disk: Option<SmallDisk>,
    _links: Vec<Link>,
}

/// A process of ours.
struct Member {
    who: Who,
    node: Node,
    address: String,
    /// On its roads to NATS; of a backend, on the road from the workers.
    weather: Weather,
    launched: Stopwatch,
    /// It should run: whoever finds it ended starts it again.
    is_wanted: bool,
}

impl Stage {
    /// With so many GiB on the small disk.
    pub(super) async fn start(folder: &Path, disk_gib: u32) -> Self {
        std::fs::write(folder.join(CA_FILE), AUTHORITY.pem()).expect("the folder is writable");
        let stores: Vec<PathBuf> = (0..SERVERS).map(|index| store(folder, index)).collect();
        let disk = SmallDisk::mount(&stores[ON_SMALL_DISK], disk_gib);
        let nats = NatsCluster::start(folder, &stores).await;
        let (redis, redis_weather) = (RedisServer::start().await, Weather::default());
        let redis_link = Link::start(redis.port(), &redis_weather).await;
        let redis_port = redis_link.port();
        let mut stage = Self { folder: folder.to_owned(), nats, redis, redis_weather, members: Vec::new(), disk, _links: vec![redis_link] };
        let urls = stage.add_backends().await;
        let config = folder.join("tidemill.yaml");
        std::fs::write(&config, yaml(&urls, redis_port)).expect("the folder is writable");
        stage.add_roles(&config).await;
        stage.members.iter_mut().for_each(Member::launch);
        stage
    }

    /// Where the workers find each backend: at the end of a link.
    async fn add_backends(&mut self) -> Vec<String> {
        let mut urls = Vec::new();
        for index in 0..BACKENDS {
            let (port, weather) = (ports::free(), Weather::default());
            let link = Link::start(port, &weather).await;
            urls.push(format!("http://127.0.0.1:{}/v1", link.port()));
            self._links.push(link);
            let args = ["--hash-key", &oracle::key(index), "--a-ms", "10", "--b-ms", "1", "--first-token-ms", "20", "--token-ms", "15"];
            self.add(Who::Backend(index), port, weather, args.map(str::to_owned).to_vec());
        }
        urls
    }

    async fn add_roles(&mut self, config: &Path) {
        let roles = [(WORKERS, Who::Worker as fn(usize) -> Who), (SCHEDULERS, Who::Scheduler), (INGRESSES, Who::Ingress)];
        for who in roles.into_iter().flat_map(|(count, who)| (0..count).map(who)) {
            let (weather, mut servers) = (Weather::default(), Vec::new());
            for port in self.nats.ports() {
                let link = Link::start(port, &weather).await;
                servers.push(format!("nats://127.0.0.1:{}", link.port()));
                self._links.push(link);
            }
            let args = ["--config".to_owned(), config.to_string_lossy().into_owned(), "--nats".to_owned(), servers.join(",")];
            self.add(who, ports::free(), weather, args.to_vec());
        }
    }

    fn add(&mut self, who: Who, port: u16, weather: Weather, mut args: Vec<String>) {
        let (role, index, listen) = match who {
            Who::Ingress(index) => (Role::Ingress, index, "--listen"),
            Who::Scheduler(index) => (Role::Scheduler, index, "--metrics"),
            Who::Worker(index) => (Role::Worker, index, "--metrics"),
            Who::Backend(index) => (Role::Sandbox, index, "--listen"),
            Who::Nats(_) | Who::Redis => unreachable!("no process of ours"),
        };
        args.extend([listen.to_owned(), format!("127.0.0.1:{port}")]);
        let node = Node::new(role, index, args, &self.folder);
        let address = format!("http://127.0.0.1:{port}");
        self.members.push(Member { who, node, address, weather, launched: Stopwatch::start(), is_wanted: true });
    }

    /// Waits until every process can do its work.
    pub(super) async fn ready(&mut self, journal: &Journal) {
        until("all processes are ready", READY_WITHIN, async || {
            self.supervise(journal);
            self.members.iter().all(Member::is_ready)
        })
        .await;
    }

    pub(super) fn address(&self, who: Who) -> &str {
        &self.member(who).address
    }

    /// The backend itself, past its link.
    pub(super) fn backend(&self, index: usize) -> Client {
        Client::new(self.address(Who::Backend(index)), "")
    }

    /// What an operator asks of an ingress.
    pub(super) async fn administration(&mut self, index: usize) -> Client {
        let member = self.member_mut(Who::Ingress(index));
        let child = member.node.child.as_mut().expect("it runs");
        let address = child.printed("administration on ", SOON).await.unwrap_or_else(|error| panic!("{error}"));
        Client::new(&address, KEY_ADMIN)
    }

    /// On the roads that lead to this process, or from it.
    pub(super) fn weather(&self, who: Who) -> &Weather {
        match who {
            Who::Redis => &self.redis_weather,
            _ => &self.member(who).weather,
        }
    }

    /// SIGKILL. Nobody starts it again before [`Stage::revive`].
    pub(super) async fn kill(&mut self, who: Who) {
        match who {
            Who::Nats(index) => self.nats.kill(index),
            Who::Redis => self.redis.kill().await,
            _ => {
                let member = self.member_mut(who);
                member.is_wanted = false;
                member.node.kill();
            }
        }
    }

    pub(super) async fn revive(&mut self, who: Who) {
        match who {
            Who::Nats(index) => self.nats.launch(index),
            Who::Redis => self.redis.restart().await,
            _ => self.member_mut(who).launch(),
        }
    }

    pub(super) async fn signal(&self, who: Who, name: &str) {
        match who {
            Who::Nats(index) => self.nats.signal(index, name),
            Who::Redis => self.redis.signal(name).await,
            _ => self.member(who).signal(name),
        }
    }

    /// Asks a process to end, waits until it has, and starts it again; its exit code.
    pub(super) async fn roll(&mut self, who: Who) -> Option<i32> {
        let member = self.member_mut(who);
        member.is_wanted = false;
        let code = member.end().await;
        member.launch();
        until(&format!("{who} is ready again"), READY_WITHIN, async || self.member(who).is_ready()).await;
        code
    }

    /// Starts whatever has ended by itself, as any orchestrator would, and says so.
    pub(super) fn supervise(&mut self, journal: &Journal) {
        for member in &mut self.members {
            if !(member.is_wanted && member.has_ended()) {
                continue;
            }
            let after_ms = u64::try_from(member.launched.elapsed().as_millis()).expect("less than an aeon");
            journal.note(Entry::Died { who: member.who.to_string(), after_ms });
            member.launch();
        }
    }

    /// Asks every process to end, the callers' side first; who did not as it should. Their logs hold no prompt and no key.
    pub(super) async fn end(mut self) -> Vec<String> {
        let mut wrong = Vec::new();
        for member in self.members.iter_mut().rev() {
            let code = member.end().await;
            if code != Some(0) {
                wrong.push(format!("{} ended with {code:?}", member.who));
            }
        }
        assert_no_canary(&self.folder);
        // The logs tell what was; what the nats-servers stored is large.
        drop((self.nats, self.disk));
        (0..SERVERS).for_each(|index| drop(std::fs::remove_dir_all(store(&self.folder, index))));
        wrong
    }

    fn member(&self, who: Who) -> &Member {
        self.members.iter().find(|member| member.who == who).expect("as many were started")
    }

    fn member_mut(&mut self, who: Who) -> &mut Member {
        self.members.iter_mut().find(|member| member.who == who).expect("as many were started")
    }
}

impl Member {
    fn launch(&mut self) {
        self.node.launch(&ENV);
        (self.launched, self.is_wanted) = (Stopwatch::start(), true);
    }

    fn is_ready(&self) -> bool {
        let page = if matches!(self.who, Who::Backend(_)) { "/stats" } else { "/readyz" };
        probe(&self.address, page).is_some()
    }

    fn has_ended(&mut self) -> bool {
        self.node.child.as_mut().is_none_or(|child| child.exited().is_some())
    }

    fn signal(&self, name: &str) {
        if let Some(child) = &self.node.child {
            child.signal(name);
        }
    }

    async fn end(&mut self) -> Option<i32> {
        let mut child = self.node.child.take()?;
        child.terminate();
        let waiting = tokio::task::spawn_blocking(move || child.wait(ENDS_WITHIN).and_then(|status| status.code()));
        waiting.await.expect("waiting for a process does not panic")
    }
}

/// Where a nats-server keeps its streams.
fn store(folder: &Path, index: usize) -> PathBuf {
    folder.join(format!("store-{index}"))
}

/// A new folder in place of what a run before has left there.
pub(super) fn cleared(folder: PathBuf) -> PathBuf {
    disk::unmount(&store(&folder, ON_SMALL_DISK));
    if folder.exists() {
        std::fs::remove_dir_all(&folder).expect("nobody uses it any more");
    }
    std::fs::create_dir_all(&folder).expect("the repository is writable");
    folder
}

/// The first tenant has limits that nobody reaches, so that everything is reserved and settled; the second one's flood is held back.
fn yaml(backends: &[String], redis_port: u16) -> String {
    let of = |model: &str, concurrency: u32| -> String {
        let named = backends.iter().enumerate();
        named
            .map(|(index, url)| {
                format!("      - {{ kind: openai, name: backend-{index}, url: \"{url}\", model: {model}, concurrency: {concurrency}, timeout_ms: 5000 }}\n")
            })
            .collect()
    };
    let (chat, embed) = (of("sandbox-chat", 16), of("sandbox-embedding", 1));
    format!(
        "nats: {{ url: \"nats://127.0.0.1:1\", replicas: {SERVERS} }}\n\
         redis: {{ url: \"redis://127.0.0.1:{redis_port}\" }}\n\
         admin: {{ listen: \"127.0.0.1:0\" }}\n\
         peppers: {{ current: 1, values: {{ 1: \"env:E2E_PEPPER\" }} }}\n\
         roles:\n  - {{ name: admin, admin: write }}\n\
         limits:\n  drain_timeout_ms: 8000\n\
         models:\n  - name: chat\n    kind: sequence\n    backends:\n{chat}  - name: embed\n    kind: array\n    batching: {{ max_items: 16 }}\n    backends:\n{embed}\
         tenants:\n  - {{ name: first, keys: [ \"env:E2E_KEY\" ], limits: {{ requests_per_minute: 10000000, concurrency: 100000, tokens_per_month: 1000000000000 }} }}\n  \
         - {{ name: second, keys: [ \"env:E2E_KEY_SMALL\" ], limits: {{ concurrency: 20 }} }}\n  \
         - {{ name: ops, role: admin, keys: [ \"env:E2E_KEY_ADMIN\" ] }}\n"
    )
}
