//! edge: a running road, and the judgement at its end.

use super::SOON;
use super::ask::CANARY;
use super::link::Link;
use super::node::{Node, Role};
use super::probe;
use super::setup::{ENV, KEY, SECRETS};
use loadtest::child::{POLL, tail};
use loadtest::client::Client;
use loadtest::clock::{Stopwatch, block_for};
use loadtest::nats::NatsServer;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// Time for the last work to leave the road after the last answer.
const QUIET_WITHIN: Duration = Duration::from_secs(15);
/// Time for a process to end when asked: above the configured drain deadline.
const EXIT_WITHIN: Duration = Duration::from_secs(12);

/// A started road. Dropping it asserts that nothing is left behind.
pub(crate) struct Mill {
    nodes: Vec<Node>,
    sandbox: Node,
    nats: Option<NatsServer>,
    folder: TempDir,
    /// Between the roles and NATS.
    _link: Option<Link>,
}

impl Mill {
    pub(super) fn new(folder: TempDir, sandbox: Node, nats: Option<NatsServer>, link: Option<Link>, nodes: Vec<Node>) -> Self {
        Self { nodes, sandbox, nats, folder, _link: link }
    }

    pub(super) async fn start(&mut self) {
        for node in &mut self.nodes {
            node.launch(&ENV);
        }
        for node in &mut self.nodes {
            node.ready().await;
        }
    }

    /// A client of the first ingress with the first tenant's key.
    pub(crate) fn client(&self) -> Client {
        self.client_of(0, KEY)
    }

    pub(crate) fn client_of(&self, ingress: usize, key: &str) -> Client {
        Client::new(self.ingress(ingress), key)
    }

    /// The address of an ingress.
    pub(crate) fn ingress(&self, index: usize) -> &str {
        let mut ingresses = self.nodes.iter().filter(|node| node.role.takes_requests());
        ingresses.nth(index).expect("as many ingresses were started").address()
    }

    /// The address of an ingress's administration.
    pub(crate) async fn admin(&mut self, index: usize) -> String {
        let mut ingresses = self.nodes.iter_mut().filter(|node| node.role.takes_requests());
        let child = ingresses.nth(index).expect("as many ingresses were started").child.as_mut().expect("it runs");
        child.printed("administration on ", SOON).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// A client of the backend itself.
    pub(crate) fn backend(&self) -> Client {
        Client::new(self.sandbox.address(), "")
    }

    /// What the backend counted.
    pub(crate) async fn stats(&self) -> Value {
        self.backend().get("/stats").await.expect("the sandbox answers").json()
    }

    pub(crate) async fn reset_stats(&self) {
        self.backend().post("/stats/reset", "").await.expect("the sandbox answers");
    }

    pub(crate) fn kill(&mut self, role: Role, index: usize) {
        self.node(role, index).kill();
    }

    /// Starts a killed process again.
    pub(crate) async fn restart(&mut self, role: Role, index: usize) {
        let node = self.node(role, index);
        node.launch(&ENV);
        node.ready().await;
    }

    /// Where its processes run and find their files.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What a process has logged.
    pub(crate) fn log(&mut self, role: Role, index: usize) -> String {
        self.node(role, index).child.as_ref().expect("it runs").log()
    }

    /// SIGHUP.
    pub(crate) fn hang_up(&mut self, role: Role, index: usize) {
        self.node(role, index).child.as_ref().expect("it runs").hang_up();
    }

    /// The sum of a metric's samples at the first ingress; zero when there are none.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        probe::metric(self.ingress(0), name).unwrap_or_default()
    }

    /// SIGTERM.
    pub(crate) fn terminate(&mut self, role: Role, index: usize) {
        self.node(role, index).child.as_ref().expect("it runs").terminate();
    }

    /// Waits for a terminated process; its exit code.
    pub(crate) async fn exit_code(&mut self, role: Role, index: usize, within: Duration) -> Option<i32> {
        let mut child = self.node(role, index).child.take().expect("it runs");
        let waiting = tokio::task::spawn_blocking(move || child.wait(within));
        waiting.await.expect("waiting for a process does not panic").and_then(|status| status.code())
    }

    pub(crate) fn nats(&mut self) -> &mut NatsServer {
        self.nats.as_mut().expect("the road runs on NATS")
    }

    fn node(&mut self, role: Role, index: usize) -> &mut Node {
        self.nodes.iter_mut().filter(|node| node.role == role).nth(index).expect("as many were started")
    }

    /// What is still on the road; empty when all is quiet.
    fn left_behind(&self) -> Vec<String> {
        let mut left = Vec::new();
        for node in self.nodes.iter().filter(|node| node.role.takes_requests() && node.is_running()) {
            let in_flight = probe::metric(node.address(), "tidemill_requests_in_flight");
            if in_flight != Some(0.0) {
                left.push(format!("{:?}: tidemill_requests_in_flight is {in_flight:?}", node.role));
            }
        }
        let stats = probe::get(self.sandbox.address(), "/stats").unwrap_or_default();
        let running = serde_json::from_str::<Value>(&stats).unwrap_or_default()["running"].clone();
        if running != 0 {
            left.push(format!("sandbox: running is {running}"));
        }
        if let Some(nats) = &self.nats {
            let queued = probe::stream_messages(&nats.monitoring(), "QI");
            if queued != Some(0) {
                left.push(format!("stream QI: messages are {queued:?}"));
            }
        }
        left
    }

    fn assert_quiet(&self) {
        let began = Stopwatch::start();
        loop {
            let left = self.left_behind();
            if left.is_empty() {
                return;
            }
            assert!(began.elapsed() < QUIET_WITHIN, "left behind after {QUIET_WITHIN:?}: {left:#?}");
            block_for(POLL);
        }
    }

    /// Asks every process to end, callers' side first, and asserts that each does.
    fn assert_ends(&mut self) {
        self.nodes.reverse();
        for node in self.nodes.iter_mut().chain([&mut self.sandbox]) {
            let Some(child) = &mut node.child else { continue };
            child.terminate();
            let status = child.wait(EXIT_WITHIN);
            let code = status.and_then(|status| status.code());
            assert_eq!(code, Some(0), "{} was asked to end and should exit with 0; it is {status:?}", child.name());
        }
    }

    /// Whether a line of any process's log holds all of these.
    pub(crate) fn has_logged(&self, words: &[&str]) -> bool {
        let logs = logs(self.folder.path());
        logs.iter().flat_map(|(_, text)| text.lines()).any(|line| words.iter().all(|word| line.contains(word)))
    }

    fn print_logs(&self) {
        for (name, text) in logs(self.folder.path()) {
            if !text.trim().is_empty() {
                eprintln!("---- {name}\n{}", tail(&text));
            }
        }
    }
}

impl Drop for Mill {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let judged = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                self.assert_quiet();
                self.assert_ends();
                assert_no_canary(self.folder.path());
                assert_no_canary_is_stored(&self.folder.path().join(STORE));
            }));
            let Err(failure) = judged else { return };
            self.print_logs();
            std::panic::resume_unwind(failure);
        }
        self.print_logs();
    }
}

/// How every token begins, and at least how many characters follow. (The ids among a million rows spell the three by chance.)
const TOKEN: (&[u8], usize) = (b"eyJ", 16);

/// Whether there is a prompt, a key or a token.
fn holds_canary(bytes: &[u8]) -> bool {
    let (begin, more) = TOKEN;
    let is_word = |rest: &[u8]| rest.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte));
    let is_token = |window: &[u8]| window.strip_prefix(begin).is_some_and(is_word);
    let mut canaries = [CANARY].into_iter().chain(SECRETS);
    bytes.windows(begin.len() + more).any(is_token)
        || canaries.any(|canary| bytes.windows(canary.len()).any(|window| window == canary.as_bytes()))
}

/// No log of these processes holds a prompt or a key.
pub(crate) fn assert_no_canary(folder: &Path) {
    for (name, text) in logs(folder) {
        let line = text.lines().find(|line| holds_canary(line.as_bytes()));
        assert!(line.is_none(), "{name} holds a prompt or a key: {}", line.unwrap_or_default());
    }
}

/// Where the nats-server keeps its streams.
const STORE: &str = "nats-store/jetstream/$G/streams";

/// The streams that stay for long: usage, audit, who may do what, and what failed for good. The lanes and blobs hold requests, and
/// are not looked at.
const KEPT: [&str; 4] = ["tidemill_usage", "tidemill_audit", "KV_tidemill_identity", "tidemill_dead"];

fn assert_no_canary_is_stored(streams: &Path) {
    if !streams.exists() {
        return;
    }
    for stream in KEPT {
        let blocks = files(&streams.join(stream));
        assert!(!blocks.is_empty(), "{stream} is kept elsewhere: this looks at nothing");
        for file in blocks {
            let bytes = std::fs::read(&file).unwrap_or_default();
            assert!(!holds_canary(&bytes), "{} holds a prompt or a key", file.display());
        }
    }
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn logs(folder: &Path) -> Vec<(String, String)> {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let logs = files.filter(|path| path.extension().is_some_and(|e| e == "out" || e == "err"));
    let mut logs: Vec<_> = logs
        .map(|path| {
            (path.file_name().unwrap_or_default().to_string_lossy().into_owned(), std::fs::read_to_string(&path).unwrap_or_default())
        })
        .collect();
    logs.sort();
    logs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_keys_and_tokens_are_found_and_an_id_is_none() {
        for secret in [CANARY, KEY, "token=eyJhbGciOiJFZERTQSIsImtpZCI6ImEifQ.e30"] {
            assert!(holds_canary(format!("\u{1}{secret}\u{1}").as_bytes()), "{secret}");
        }
        assert!(!holds_canary(b"\xc4\x10\x92\x5d\x03eyJ\x8f\x52\x85\xd3\xbd\x32\xd2\xc3\xec\x85\xa6model"));
    }
}
