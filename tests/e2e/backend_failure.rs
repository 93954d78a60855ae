//! Promise: one backend of four that is dead, slow or lying is hardly anybody's error, adds little to the others' load, and is
//! left alone within two seconds; within four where it takes one call at a time.

use crate::harness::{Mill, Node, Role, SOON, chat, embed, prompt, report, tag, until};
use loadtest::client::{Answer, Client};
use loadtest::clock::Stopwatch;
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::JoinSet;

const CALLERS: usize = 24;
/// Answers before the trouble, and with it: enough that one error in a thousand shows.
const WELL: usize = 300;
const ILL: usize = 3_000;
/// A backend that hangs is told by this. Three in a row open its breaker: where calls go one by one, that takes three times as
/// long, and the waits for their turns.
const TIMEOUT_MS: u32 = 200;

const ERRORS_MAX: f64 = 0.001;
const AMPLIFICATION_MAX: f64 = 1.2;
const OPENS_WITHIN: Duration = Duration::from_secs(2);
/// Where a backend takes one call at a time, failures come one after the other, each when its turn comes.
const OPENS_WITHIN_ONE_BY_ONE: Duration = Duration::from_secs(4);

/// What callers ask of the pool.
#[derive(Clone, Copy)]
struct Asked {
    kind: &'static str,
    path: &'static str,
    body: fn(&str, &str) -> String,
    /// What a backend counts of it.
    counted: &'static str,
    /// The backends' own options.
    pace: &'static [&'static str],
    concurrency: u32,
}

const CHAT: Asked = Asked {
    kind: "sequence",
    path: "/v1/chat/completions",
    body: chat,
    counted: "chat_calls",
    pace: &["--first-token-ms", "15"],
    concurrency: 16,
};

const EMBED: Asked = Asked {
    kind: "array",
    path: "/v1/embeddings",
    body: embed,
    counted: "embed_items",
    pace: &["--a-ms", "5", "--b-ms", "0.5", "--concurrency", "1"],
    concurrency: 1,
};

/// Four sandboxes behind one model.
struct Pool {
    mill: Mill,
    backends: Vec<Node>,
    asked: Asked,
    /// Counted by one that was killed.
    buried: u64,
    _folder: TempDir,
}

impl Pool {
    async fn start(asked: Asked) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut backends: Vec<Node> = (0..4).map(|n| sandbox(n, asked.pace, folder.path())).collect();
        for backend in &mut backends {
            backend.launch(&[]);
        }
        let mut model = format!("  - name: pool\n    kind: {}\n    backends:\n", asked.kind);
        for backend in &mut backends {
            backend.ready().await;
            let (url, concurrency) = (backend.address(), asked.concurrency);
            model.push_str(&format!(
                "      - {{ kind: openai, name: at-{}, url: \"{url}/v1\", concurrency: {concurrency}, timeout_ms: {TIMEOUT_MS} }}\n",
                &url[url.len() - 5..]
            ));
        }
        let mill = Mill::up().model(&model).start().await;
        Self { mill, backends, asked, buried: 0, _folder: folder }
    }

    /// The last backend dies, or fails in this way from now on.
    async fn strike(&mut self, fault: Option<&str>) {
        match fault {
            Some(fault) => {
                let rates = json!([{ "fault": fault, "rate": 1.0 }]).to_string();
                let told = Client::new(self.backends[3].address(), "").post("/faults", rates).await.expect("the sandbox answers");
                assert!((200..300).contains(&told.status), "{}", told.text());
            }
            None => {
                self.buried = self.counted(3).await;
                self.backends[3].kill();
            }
        }
    }

    /// Of what was asked, what a backend has seen; nothing, where none is.
    async fn counted(&self, backend: usize) -> u64 {
        let stats = Client::new(self.backends[backend].address(), "").get("/stats").await;
        stats.map_or(0, |stats| stats.json()[self.asked.counted].as_u64().unwrap_or_default())
    }

    async fn seen(&self) -> u64 {
        let mut seen = self.buried;
        for backend in 0..4 {
            seen += self.counted(backend).await;
        }
        seen
    }
}

fn sandbox(index: usize, args: &[&str], folder: &Path) -> Node {
    let args = ["--listen", "127.0.0.1:0"].iter().chain(args).map(|&arg| arg.to_owned()).collect();
    Node::new(Role::Sandbox, index + 1, args, folder)
}

/// Callers who ask again as soon as they are answered.
struct Crowd {
    answered: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    callers: JoinSet<Vec<String>>,
}

impl Crowd {
    fn gather(client: &Client, asked: Asked) -> Self {
        let (answered, stop, mut callers) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default(), JoinSet::new());
        for caller in 0..CALLERS {
            callers.spawn(call_again_and_again(client.clone(), asked, caller, Arc::clone(&answered), Arc::clone(&stop)));
        }
        Self { answered, stop, callers }
    }

    async fn answers(&self, count: usize) {
        let before = self.answered.load(Ordering::Relaxed);
        until("the callers are answered", SOON * 6, async || self.answered.load(Ordering::Relaxed) >= before + count).await;
    }

    /// Requests, and what was wrong with some.
    async fn disperse(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let wrong = self.callers.join_all().await.concat();
        (self.answered.load(Ordering::Relaxed), wrong)
    }
}

async fn call_again_and_again(
    client: Client,
    asked: Asked,
    caller: usize,
    answered: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
) -> Vec<String> {
    let (mut wrong, mut turn) = (Vec::new(), 0);
    while !stop.load(Ordering::Relaxed) {
        let text = prompt(&format!("caller {caller} turn {turn}"));
        let answer = client.post(asked.path, (asked.body)("pool", &text)).await;
        wrong.extend(answer.map_or_else(|error| Some(error.to_string()), |answer| complaint(&answer, asked, &text)));
        answered.fetch_add(1, Ordering::Relaxed);
        turn += 1;
    }
    wrong
}

fn complaint(answer: &Answer, asked: Asked, text: &str) -> Option<String> {
    let is_own = match asked.kind {
        "array" => answer.json()["data"].as_array().is_some_and(|data| data.len() == 1),
        _ => answer.text().contains(&tag(text)),
    };
    (answer.status != 200 || !is_own).then(|| format!("{} {}", answer.status, answer.text()))
}

async fn one_of_four_fails(asked: Asked, name: &str, fault: Option<&str>) {
    let mut pool = Pool::start(asked).await;
    let crowd = Crowd::gather(&pool.mill.client(), asked);
    crowd.answers(WELL).await;
    pool.strike(fault).await;
    let struck = Stopwatch::start();
    until("the breaker opens", SOON, async || pool.mill.metric("tidemill_breakers_open") > 0.0).await;
    let opened = struck.elapsed();
    crowd.answers(ILL).await;
    let (requests, wrong) = crowd.disperse().await;
    let (seen, retries) = (pool.seen().await, pool.mill.metric("tidemill_retries_total"));
    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
    let (errors, amplification) = (wrong.len() as f64 / requests as f64, seen as f64 / requests as f64);
    report(
        &format!("backend-failure-{}-{name}", asked.kind),
        &format!(
            "{requests} requests, {:.3} % errors, {retries} retries, amplification {amplification:.3}, breaker open after {opened:?}",
            errors * 100.0
        ),
    );
    assert!(errors <= ERRORS_MAX, "{} of {requests} failed: {:#?}", wrong.len(), wrong.first());
    assert!(amplification <= AMPLIFICATION_MAX, "{seen} calls for {requests} requests");
    let within = if asked.concurrency == 1 { OPENS_WITHIN_ONE_BY_ONE } else { OPENS_WITHIN };
    assert!(opened <= within, "the breaker opened after {opened:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_backend_of_four_is_nobodys_error() {
    one_of_four_fails(CHAT, "dead", None).await;
    one_of_four_fails(EMBED, "dead", None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_of_four_that_hangs_is_nobodys_error() {
    one_of_four_fails(CHAT, "slow", Some("hang")).await;
    one_of_four_fails(EMBED, "slow", Some("hang")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_of_four_that_lies_is_nobodys_error() {
    one_of_four_fails(CHAT, "lying", Some("malformed_json")).await;
    one_of_four_fails(EMBED, "lying", Some("wrong_count")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_is_well_again_is_called_again() {
    let mut pool = Pool::start(CHAT).await;
    pool.strike(None).await;
    let crowd = Crowd::gather(&pool.mill.client(), CHAT);
    until("the breaker opens", SOON, async || pool.mill.metric("tidemill_breakers_open") > 0.0).await;
    pool.backends[3].launch(&[]);
    pool.backends[3].ready().await;
    until("the breaker closes", SOON * 2, async || pool.mill.metric("tidemill_breakers_open") == 0.0).await;
    crowd.answers(WELL).await;
    let (_, wrong) = crowd.disperse().await;
    assert!(pool.counted(3).await > 0 && wrong.is_empty(), "{wrong:#?}");
}
