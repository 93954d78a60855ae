//! edge: a cluster of nats-servers whose members can be killed, paused, retired and started again, each on its ports and its store.

use super::{ports, probe, program, until};
use loadtest::child::Child;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Time for the cluster to have a leader and every copy: on a busy machine, and after everything was killed.
const WHOLE_WITHIN: Duration = Duration::from_secs(60);

pub(crate) struct NatsCluster {
    servers: Vec<Server>,
    folder: PathBuf,
}

struct Server {
    name: String,
    client: u16,
    monitoring: u16,
    starts: u32,
    child: Option<Child>,
}

impl NatsCluster {
    /// One server for each store. They tell clients nothing of each other, so that who comes over a link stays on it.
    pub(crate) async fn start(folder: &Path, stores: &[PathBuf]) -> Self {
        let ports: Vec<[u16; 3]> = stores.iter().map(|_| [ports::free(), ports::free(), ports::free()]).collect();
        let routes: Vec<String> = ports.iter().map(|[_, _, route]| format!("\"nats://127.0.0.1:{route}\"")).collect();
        let mut cluster = Self { servers: Vec::new(), folder: folder.to_owned() };
        for (index, (ports, store)) in ports.into_iter().zip(stores).enumerate() {
            let (name, [client, monitoring, _]) = (format!("nats-{index}"), ports);
            let config = config(&name, ports, &routes, store);
            std::fs::write(folder.join(format!("{name}.conf")), config).expect("the folder is writable");
            cluster.servers.push(Server { name, client, monitoring, starts: 0, child: None });
            cluster.launch(index);
        }
        cluster.whole().await;
        cluster
    }

    /// The ports for clients.
    pub(crate) fn ports(&self) -> Vec<u16> {
        self.servers.iter().map(|server| server.client).collect()
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self, index: usize) {
        if let Some(mut child) = self.servers[index].child.take() {
            child.kill();
        }
    }

    /// Starts a server that was killed or has retired.
    pub(crate) fn launch(&mut self, index: usize) {
        let server = &mut self.servers[index];
        let mut command = Command::new(program::nats_server());
        command.arg("-c").arg(self.folder.join(format!("{}.conf", server.name)));
        let name = format!("{}-{}", server.name, server.starts);
        server.starts += 1;
        server.child = Some(Child::start(&name, command, &self.folder).unwrap_or_else(|error| panic!("{error}")));
    }

    /// SIGSTOP and SIGCONT are `STOP` and `CONT`; `USR2` retires a server: it sends its clients away and ends (lame duck).
    pub(crate) fn signal(&self, index: usize, name: &str) {
        if let Some(child) = &self.servers[index].child {
            child.signal(name);
        }
    }

    pub(crate) fn has_ended(&mut self, index: usize) -> bool {
        self.servers[index].child.as_mut().is_none_or(|child| child.exited().is_some())
    }

    /// Waits until every server has caught up with all that it holds a copy of.
    pub(crate) async fn whole(&self) {
        until("every nats-server is healthy", WHOLE_WITHIN, async || self.servers.iter().all(Server::is_healthy)).await;
    }

    /// Who leads a stream, if that can be known now.
    pub(crate) fn leader_of(&self, stream: &str) -> Option<usize> {
        let mut states = self.servers.iter().filter_map(|server| probe::get(&server.pages(), "/jsz?streams=true"));
        let name = states.find_map(|state| leader_in(&serde_json::from_str(&state).ok()?, stream))?;
        self.servers.iter().position(|server| server.name == name)
    }
}

impl Server {
    fn pages(&self) -> String {
        format!("http://127.0.0.1:{}", self.monitoring)
    }

    fn is_healthy(&self) -> bool {
        probe::get(&self.pages(), "/healthz").is_some()
    }
}

fn leader_in(state: &Value, stream: &str) -> Option<String> {
    let accounts = state["account_details"].as_array()?.iter().filter_map(|account| account["stream_detail"].as_array());
    let found = accounts.flatten().find(|one| one["name"] == stream)?;
    found["cluster"]["leader"].as_str().map(str::to_owned)
}

/// A lame duck goes as fast as a server allows: a second for its clients to hear of it, then they are sent away one by one.
fn config(name: &str, [client, monitoring, own_route]: [u16; 3], routes: &[String], store: &Path) -> String {
    let (routes, store) = (routes.join(", "), store.display());
    format!(
        "server_name: {name}\nlisten: \"127.0.0.1:{client}\"\nhttp: \"127.0.0.1:{monitoring}\"\n\
         jetstream {{ store_dir: \"{store}\", max_file_store: 1TB }}\n\
         cluster {{ name: chaos, listen: \"127.0.0.1:{own_route}\", routes: [ {routes} ], no_advertise: true }}\n\
         lame_duck_grace_period: \"1s\"\nlame_duck_duration: \"30s\"\n"
    )
}
