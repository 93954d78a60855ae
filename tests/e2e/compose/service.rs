//! edge: the services of a compose file as local processes.

use super::file::{Compose, Service};
use crate::harness::{SOON, nats_server, scratch, tidemill, until};
use loadtest::child::{Child, tail};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// Time for a service to become healthy: three nats-servers have to agree on a leader first.
const HEALTHY_WITHIN: Duration = Duration::from_secs(60);

/// Restarts that are still a start: an engine would go on for ever.
const RESTARTS_MAX: usize = 12;

/// The running services.
pub(super) struct Stack {
    /// Every service's own loopback address.
    addresses: BTreeMap<String, String>,
    children: BTreeMap<String, Child>,
    /// Services that ended before they were healthy, with their last words.
    pub(super) restarts: Vec<String>,
    folder: TempDir,
}

impl Stack {
    pub(super) fn of(compose: &Compose) -> Self {
        // Two test runs at once differ in their process ids, and so in their addresses.
        let run = std::process::id();
        let (second, third) = (64 + run % 64, run / 64 % 256);
        let address = |index: usize| format!("127.{second}.{third}.{}", index + 1);
        let addresses = compose.services.keys().enumerate().map(|(index, name)| (name.clone(), address(index))).collect();
        Self { addresses, children: BTreeMap::new(), restarts: Vec::new(), folder: TempDir::new().expect("a temporary folder") }
    }

    pub(super) fn address(&self, service: &str) -> &str {
        &self.addresses[service]
    }

    pub(super) fn running(&self) -> usize {
        self.children.len()
    }

    /// Starts services as an engine would: one whose dependencies are not healthy yet waits.
    pub(super) async fn start_in_order(&mut self, compose: &Compose) {
        let mut healthy: Vec<&str> = Vec::new();
        while healthy.len() < compose.services.len() {
            let ready: Vec<(&String, &Service)> = compose.services.iter().filter(|(name, s)| may_start(name, s, &healthy)).collect();
            assert!(!ready.is_empty(), "services that wait for each other");
            for (name, service) in &ready {
                self.launch(name, service);
            }
            for (name, service) in ready {
                self.healthy(name, service).await;
                healthy.push(name);
            }
        }
    }

    /// Asks every Tidemill process to end, the callers' side first, and asserts that it does.
    pub(super) async fn stop_roles(&mut self) {
        for role in ["ingress", "scheduler", "worker", "sandbox"] {
            for (name, child) in self.children.iter_mut().filter(|(name, _)| name.starts_with(role)) {
                child.terminate();
                until(&format!("{name} ends when asked"), SOON * 2, async || child.exited().is_some()).await;
                assert_eq!(child.exited().and_then(|status| status.code()), Some(0), "{name}: {}", tail(&child.log()));
            }
        }
    }

    fn launch(&mut self, name: &str, service: &Service) {
        let mut command = program(service);
        command.args(service.command.iter().skip(program_words(service)).map(|arg| self.local(name, service, arg)));
        command.envs(service.environment()).current_dir(self.folder.path());
        let child = Child::start(name, command, self.folder.path()).unwrap_or_else(|error| panic!("{error}"));
        self.children.insert(name.to_owned(), child);
    }

    async fn healthy(&mut self, name: &str, service: &Service) {
        let test: Vec<String> = service.healthcheck.test.iter().map(|arg| self.local(name, service, arg)).collect();
        until(&format!("{name} is healthy"), HEALTHY_WITHIN, async || {
            self.restart_if_ended(name, service);
            is_healthy(&test)
        })
        .await;
    }

    /// What the restart policy of every service asks of an engine.
    fn restart_if_ended(&mut self, name: &str, service: &Service) {
        let child = self.children.get_mut(name).expect("it was launched");
        let Some(status) = child.exited() else { return };
        assert_eq!(service.restart, "unless-stopped", "{name} ended with {status}: {}", tail(&child.log()));
        self.restarts.push(format!("{name} ended with {status}: {}", child.log().lines().last().unwrap_or_default()));
        assert!(self.restarts.len() <= RESTARTS_MAX, "services that never start: {:#?}", self.restarts);
        self.launch(name, service);
    }

    /// A word of the file as it must read on this machine.
    fn local(&self, name: &str, service: &Service, word: &str) -> String {
        let mut word = self.hosts(name, word);
        for volume in &service.volumes {
            let (source, target) = volume.split_once(':').expect("SOURCE:TARGET");
            let target = target.trim_end_matches(":ro");
            if word.starts_with(target) {
                word = word.replacen(target, &self.mounted(name, source).to_string_lossy(), 1);
            }
        }
        word
    }

    /// A mounted file as a copy with this machine's addresses, or a volume as a folder.
    fn mounted(&self, name: &str, source: &str) -> PathBuf {
        let Some(file) = source.strip_prefix("./") else { return self.folder.path().join(format!("volume-{source}")) };
        let text = std::fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(file)).expect("the mounted file is there");
        let copy = self.folder.path().join(format!("{name}-{}", file.replace('/', "-")));
        std::fs::write(&copy, self.hosts(name, &text)).expect("the temporary folder is writable");
        copy
    }

    /// Host names become addresses; "everywhere" and "myself" become this service's own.
    fn hosts(&self, name: &str, text: &str) -> String {
        let own = &self.addresses[name];
        let text = text.replace("0.0.0.0", own).replace("127.0.0.1", own);
        self.addresses.iter().fold(text, |text, (host, address)| text.replace(&format!("//{host}:"), &format!("//{address}:")))
    }
}

fn may_start(name: &str, service: &Service, healthy: &[&str]) -> bool {
    let waits = service.depends_on.iter().any(|(other, dependency)| {
        assert_eq!(dependency.condition, "service_healthy", "{name} depends on {other}");
        !healthy.contains(&other.as_str())
    });
    !healthy.contains(&name) && !waits
}

/// The program of an image.
fn program(service: &Service) -> Command {
    match service.image.split(':').next() {
        Some("nats") => Command::new(nats_server()),
        Some("redis") => Command::new(scratch().join("bin/redis-server")),
        Some("tidemill") => tidemill(),
        other => panic!("no local program stands for the image {other:?}"),
    }
}

/// Images with an entry point take arguments only; redis's takes the program's name too.
fn program_words(service: &Service) -> usize {
    usize::from(service.image.starts_with("redis:"))
}

/// Runs a health check once. The images' own tools are stood in for by ours.
fn is_healthy(test: &[String]) -> bool {
    let url = test.iter().find(|word| word.starts_with("http://"));
    let mut command = match (test[1].as_str(), url) {
        ("tidemill", _) => {
            let mut command = tidemill();
            command.args(&test[2..]);
            command
        }
        ("wget", Some(url)) => {
            let mut command = tidemill();
            command.args(["healthcheck", "--url", url]);
            command
        }
        // No client of redis comes with its server everywhere: that it accepts connections must do.
        ("redis-cli", _) => return std::net::TcpStream::connect((test[3].as_str(), 6379)).is_ok(),
        other => panic!("no local program stands for the health check {other:?}"),
    };
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
