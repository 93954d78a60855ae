//! loop: callers that never retry and judge every answer they get.

use crate::harness::{StreamEnd, chat, chat_stream, embed, prompt, read_stream, tag};
use loadtest::client::{Answer, Client, Opened};
use loadtest::clock::Stopwatch;
use serde_json::Value;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinSet;

/// Callers at each ingress.
const CALLERS: usize = 8;
/// Every request's deadline, and a little more after which it counts as forgotten.
const DEADLINE_MS: &str = "60000";
const FORGOTTEN_AFTER: Duration = Duration::from_secs(65);
/// Violations kept: the first ones tell.
const VIOLATIONS_MAX: usize = 50;

/// Whose callers: those of the ingress that will be killed, or of the one that lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    First,
    Second,
}

/// Callers at both ingresses, until stopped.
pub(super) struct Callers {
    shared: Arc<Shared>,
    running: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    first_excused: AtomicBool,
    /// Answers to callers of the second ingress, which lives throughout.
    answered: AtomicU64,
    interrupted: AtomicU64,
    longest_ms: AtomicU64,
    violations: Mutex<Vec<String>>,
}

/// What all callers saw.
pub(super) struct Outcome {
    pub(super) violations: Vec<String>,
    answered: u64,
    interrupted: u64,
    longest_ms: u64,
}

struct Caller {
    client: Client,
    side: Side,
    /// The one text it embeds, and the backend's own vector for it.
    text: String,
    vector: Value,
    shared: Arc<Shared>,
}

/// How a request ended, when it ended well.
enum Good {
    Answered,
    /// A stream that had begun and said that it could not go on.
    Interrupted,
}

impl Callers {
    pub(super) async fn start(first: &Client, second: &Client, backend: &Client) -> Self {
        let shared = Arc::new(Shared::default());
        let mut running = JoinSet::new();
        for index in 0..CALLERS * 2 {
            let (client, side) = if index < CALLERS { (first, Side::First) } else { (second, Side::Second) };
            let text = prompt(&format!("the text of caller {index}"));
            let own = backend.post("/v1/embeddings", embed("sandbox-embedding", &text)).await.expect("the backend answers");
            let vector = own.json()["data"][0]["embedding"].clone();
            assert!(vector.is_array(), "{}", own.text());
            let caller = Caller { client: client.clone(), side, text, vector, shared: Arc::clone(&shared) };
            running.spawn(caller.run(index));
        }
        Self { shared, running }
    }

    /// Answers so far to callers of the ingress that lives.
    pub(super) fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// From now on the callers of this side may see errors.
    pub(super) fn excuse(&self, side: Side) {
        assert_eq!(side, Side::First, "the second ingress lives throughout");
        self.shared.first_excused.store(true, Ordering::SeqCst);
    }

    pub(super) async fn stop(&mut self) -> Outcome {
        self.shared.stop.store(true, Ordering::SeqCst);
        while let Some(caller) = self.running.join_next().await {
            caller.expect("a caller does not panic");
        }
        let shared = &self.shared;
        let violations = std::mem::take(&mut *shared.violations.lock().expect("no caller panicked"));
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (answered, interrupted) = (load(&shared.answered), load(&shared.interrupted));
        Outcome { violations, answered, interrupted, longest_ms: load(&shared.longest_ms) }
    }
}

impl Caller {
    async fn run(self, index: usize) {
        for turn in 0_u64.. {
            if self.shared.stop.load(Ordering::SeqCst) {
                return;
            }
            let text = prompt(&format!("caller {index} turn {turn}"));
            let began = Stopwatch::start();
            let asked = tokio::time::timeout(FORGOTTEN_AFTER, self.ask(turn, &text)).await;
            let ended = asked.unwrap_or_else(|_| Err("was forgotten".into()));
            self.shared.longest_ms.fetch_max(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
            match ended {
                Ok(good) => self.count(&good),
                Err(_) if self.is_excused() => return,
                Err(bad) => self.violation(format!("caller {index} turn {turn} after {:?}: {bad}", began.elapsed())),
            }
        }
    }

    fn is_excused(&self) -> bool {
        self.side == Side::First && self.shared.first_excused.load(Ordering::SeqCst)
    }

    fn count(&self, good: &Good) {
        let counter = match good {
            Good::Interrupted => &self.shared.interrupted,
            Good::Answered if self.side == Side::Second => &self.shared.answered,
            Good::Answered => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn violation(&self, what: String) {
        let mut violations = self.shared.violations.lock().expect("no caller panicked");
        if violations.len() < VIOLATIONS_MAX {
            violations.push(what);
        }
    }

    async fn ask(&self, turn: u64, text: &str) -> Result<Good, String> {
        match turn % 3 {
            0 => self.ask_chat(text).await,
            1 => self.ask_stream(text).await,
            _ => self.ask_vector().await,
        }
    }

    async fn ask_chat(&self, text: &str) -> Result<Good, String> {
        let answer = self.post("/v1/chat/completions", chat("chat", text)).await?;
        let json = answer.json();
        is_own_answer(json["choices"][0]["message"]["content"].as_str().unwrap_or_default(), text)?;
        Ok(Good::Answered)
    }

    async fn ask_vector(&self) -> Result<Good, String> {
        let answer = self.post("/v1/embeddings", embed("embed", &self.text)).await?;
        if answer.json()["data"][0]["embedding"] != self.vector {
            return Err(format!("a vector that is not its own: {}", answer.text()));
        }
        Ok(Good::Answered)
    }

    async fn ask_stream(&self, text: &str) -> Result<Good, String> {
        let opened = self.client.stream("/v1/chat/completions", chat_stream("chat", text)).await.map_err(|e| e.to_string())?;
        let streamed = match opened {
            Opened::Events(events) => read_stream(events).await,
            Opened::Refused(answer) => return Err(format!("{} {}", answer.status, answer.text())),
        };
        match streamed.end {
            StreamEnd::Done => is_own_answer(&streamed.text, text).map(|()| Good::Answered),
            StreamEnd::Error(_) if !streamed.text.is_empty() => Ok(Good::Interrupted),
            StreamEnd::Error(code) => Err(format!("a stream that had not begun ended with {code}")),
            StreamEnd::Cut => Err(format!("a stream was cut without a word after `{}`", streamed.text)),
        }
    }

    async fn post(&self, path: &str, body: String) -> Result<Answer, String> {
        let answer = self.client.post_with(path, &[("x-request-timeout-ms", DEADLINE_MS)], body).await.map_err(|e| e.to_string())?;
        if answer.status == 200 { Ok(answer) } else { Err(format!("{} {}", answer.status, answer.text())) }
    }
}

/// The answer carries its own prompt's tag, and no other, once.
fn is_own_answer(answer: &str, text: &str) -> Result<(), String> {
    if answer.contains(&tag(text)) && answer.matches("sandbox:").count() == 1 {
        return Ok(());
    }
    Err(format!("an answer to another prompt, or twice: {answer}"))
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { answered, interrupted, longest_ms, violations } = self;
        writeln!(f, "answered at the living ingress: {answered}; streams ended by an error event: {interrupted}")?;
        writeln!(f, "longest wait of a caller: {longest_ms} ms; violations: {}", violations.len())
    }
}
