//! loop: the callers: calls of every kind at an even rate, each with a prompt of its own, and a line in the log for each beginning
//! and each end.

use super::ask::{Ask, Got};
use super::front::Front;
use super::journal::{Entry, Journal, Kind, Outcome, Why};
use super::oracle;
use super::{batch, deferred};
use crate::harness::{KEY, KEY_SMALL, StreamEnd, embed, read_stream};
use axum::http::HeaderMap;
use loadtest::client::{Answer, Events};
use serde_json::{Value, json};
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinSet;

/// How long a caller's request may take, and after how long the caller calls it forgotten: longer than its ingress may be stopped.
pub(super) const DEADLINE_MS: &str = "20000";
const PATIENCE: Duration = Duration::from_secs(50);

/// What of ten calls is which.
const MIX: [Kind; 10] = {
    use Kind::{Chat, Embed, Job, Stream};
    [Chat, Embed, Stream, Chat, Embed, Job, Chat, Embed, Stream, Embed]
};

/// All callers.
pub(super) struct Load {
    pub(super) seed: u64,
    pub(super) journal: Arc<Journal>,
    pub(super) front: Front,
    next: AtomicU64,
    /// No new calls.
    stopped: AtomicBool,
    /// Whoever still waits for deferred work gives up.
    is_over: AtomicBool,
    running: Mutex<JoinSet<()>>,
}

impl Load {
    pub(super) fn new(seed: u64, journal: Arc<Journal>, front: Front) -> Arc<Self> {
        let (next, stopped, is_over) = (AtomicU64::new(0), AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { seed, journal, front, next, stopped, is_over, running: Mutex::default() })
    }

    /// Calls that many times a second until stopped.
    pub(super) fn begin(self: &Arc<Self>, rate: f64) {
        let load = Arc::clone(self);
        self.spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
            while !load.stopped.load(Ordering::Relaxed) {
                ticks.tick().await;
                load.one();
            }
        });
    }

    fn one(self: &Arc<Self>) {
        let (load, call) = (Arc::clone(self), self.numbers(1));
        let kind = MIX[usize::try_from(call % 10).expect("below ten")];
        self.spawn(async move {
            match kind {
                Kind::Job => deferred::job(&load, call).await,
                _ => load.interactive(call, kind, Why::Load, "").await,
            }
        });
    }

    /// One batch after the other of each kind, of this many rows, until stopped.
    pub(super) fn batches(self: &Arc<Self>, embeddings: u64, chats: u64) {
        for (kind, rows) in [(Kind::EmbedRow, embeddings), (Kind::ChatRow, chats)] {
            let load = Arc::clone(self);
            self.spawn(async move {
                while !load.stopped.load(Ordering::Relaxed) {
                    batch::run(&load, kind, rows).await;
                }
            });
        }
    }

    /// Many calls at once of a tenant whose concurrency is limited.
    pub(super) fn flood(self: &Arc<Self>, calls: u64) {
        self.many(calls, |load, call| async move { load.interactive(call, Kind::Chat, Why::Flood, "").await });
    }

    /// Calls whose callers leave after a moment.
    pub(super) fn cancel_storm(self: &Arc<Self>, calls: u64) {
        self.many(calls, |load, call| async move {
            let kind = [Kind::Chat, Kind::Embed, Kind::Stream][usize::try_from(call % 3).expect("below three")];
            let told = "[[delay:300]]";
            load.asked(call, kind, Why::Storm, told, load.front.turn(call));
            let moment = Duration::from_millis(5 * (call % 60));
            let outcome = tokio::time::timeout(moment, load.ask(call, kind, Why::Storm, told)).await.unwrap_or(Outcome::Left);
            load.ended(call, outcome);
        });
    }

    /// Prompts that every backend fails at, in between those of others.
    pub(super) fn poison(self: &Arc<Self>, calls: u64) {
        self.many(calls, |load, call| async move {
            let faults = ["status=400", "status=422", "wrong_count", "malformed_json", "reset", "status=500", "partial_stream"];
            let told = format!("[[fault:{}]]", faults[usize::try_from(call).expect("small") % faults.len()]);
            let kind = [Kind::Embed, Kind::Chat, Kind::Stream][usize::try_from(call % 3).expect("below three")];
            load.interactive(call, kind, Why::Poison, &told).await;
        });
    }

    fn many<F: Future<Output = ()> + Send + 'static>(self: &Arc<Self>, calls: u64, one: impl Fn(Arc<Self>, u64) -> F) {
        let first = self.numbers(calls);
        (first..first + calls).for_each(|call| self.spawn(one(Arc::clone(self), call)));
    }

    /// The first of that many new numbers.
    pub(super) fn numbers(&self, count: u64) -> u64 {
        self.next.fetch_add(count, Ordering::Relaxed)
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut running = self.running.lock().expect("nobody panics while spawning");
        while running.try_join_next().is_some() {}
        running.spawn(work);
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Waits until every call has ended, deferred ones this long at most.
    pub(super) async fn ended_within(&self, longest: Duration) {
        let mut running = std::mem::take(&mut *self.running.lock().expect("nobody panics while spawning"));
        let all = async { while running.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(longest, all).await;
        self.is_over.store(true, Ordering::Relaxed);
        while running.join_next().await.is_some() {}
    }

    pub(super) fn asked(&self, call: u64, kind: Kind, why: Why, told: &str, ingress: usize) {
        self.journal.note(Entry::Asked { call, kind, why, ingress, told: told.to_owned() });
    }

    pub(super) fn ended(&self, call: u64, outcome: Outcome) {
        self.journal.note(Entry::Ended { call, outcome });
    }

    pub(super) fn prompt(&self, call: u64, told: &str) -> String {
        oracle::prompt_of(self.seed, call, told)
    }

    async fn interactive(&self, call: u64, kind: Kind, why: Why, told: &str) {
        self.asked(call, kind, why, told, self.front.turn(call));
        let outcome = tokio::time::timeout(PATIENCE, self.ask(call, kind, why, told)).await.unwrap_or(Outcome::Forgotten);
        self.ended(call, outcome);
    }

    async fn ask(&self, call: u64, kind: Kind, why: Why, told: &str) -> Outcome {
        let (key, prompt) = (if why == Why::Flood { KEY_SMALL } else { KEY }, self.prompt(call, told));
        let ask = Ask::post(path(kind), body(kind, &prompt)).streamed(kind == Kind::Stream);
        match self.front.send(call, key, &ask).await {
            Err(error) => Outcome::NoConnection { why: error.to_string() },
            Ok(Got::Whole(answer)) => of_answer(kind, &answer),
            Ok(Got::Stream(events)) => of_stream(events).await,
        }
    }
}

pub(super) const fn path(kind: Kind) -> &'static str {
    match kind {
        Kind::Embed | Kind::EmbedRow => "/v1/embeddings",
        Kind::Chat | Kind::Stream | Kind::Job | Kind::ChatRow => "/v1/chat/completions",
    }
}

/// The body of a call of this kind.
pub(super) fn body(kind: Kind, prompt: &str) -> String {
    match kind {
        Kind::Embed | Kind::EmbedRow => embed("embed", prompt),
        Kind::Chat | Kind::Stream | Kind::Job | Kind::ChatRow => {
            let messages = json!([{ "role": "user", "content": prompt }]);
            json!({ "model": "chat", "max_tokens": oracle::tokens(kind), "stream": kind == Kind::Stream, "messages": messages }).to_string()
        }
    }
}

async fn of_stream(events: Events) -> Outcome {
    let request = request_id(&events.headers);
    let streamed = read_stream(events).await;
    match streamed.end {
        StreamEnd::Done => Outcome::Answered { digest: oracle::of_text(&streamed.text), request },
        StreamEnd::Error(code) => Outcome::Interrupted { code },
        StreamEnd::Cut => Outcome::Cut,
    }
}

/// A whole answer, whatever it is.
fn of_answer(kind: Kind, answer: &Answer) -> Outcome {
    if answer.status != 200 {
        return Outcome::Refused { status: answer.status, code: answer.code() };
    }
    Outcome::Answered { digest: digest(kind, &answer.json()), request: request_id(&answer.headers) }
}

/// Of what a body in OpenAI's shape says. One that says nothing has a digest that is nobody's.
pub(super) fn digest(kind: Kind, body: &Value) -> String {
    if matches!(kind, Kind::Embed | Kind::EmbedRow) {
        let vector = body["data"][0]["embedding"].as_array().map(Vec::as_slice).unwrap_or_default();
        #[expect(clippy::cast_possible_truncation, reason = "they were written as f32")]
        let vector: Vec<f32> = vector.iter().filter_map(Value::as_f64).map(|x| x as f32).collect();
        return oracle::of_vector(&vector);
    }
    oracle::of_text(body["choices"][0]["message"]["content"].as_str().unwrap_or_default())
}

fn request_id(headers: &HeaderMap) -> String {
    headers.get("x-request-id").and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned()
}
