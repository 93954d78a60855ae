//! loop: callers in closed loops: each sends its next request when it has its answer.

use crate::client::{Client, ClientError, Event, Opened};
use crate::clock::Stopwatch;
use crate::report::Outcome;
use crate::work::{Check, Mode, Work};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;

/// How many callers ask, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub callers: usize,
    pub until: Until,
}

#[derive(Clone, Copy, Debug)]
pub enum Until {
    Requests(u64),
    Elapsed(Duration),
}

/// One answer, as the caller saw it.
struct Seen {
    first_byte: Duration,
    whole: Duration,
}

/// Why an answer does not count.
enum Bad {
    Client(ClientError),
    Status(u16, String),
    WrongAnswer,
    BrokenStream,
}

/// What the callers share: the next request's number, and when to stop.
struct Turn {
    next: AtomicU64,
    began: Stopwatch,
    until: Until,
}

/// Runs the callers to the end of the plan.
pub async fn run(client: &Client, work: &Work, plan: Plan) -> Outcome {
    let turn = Arc::new(Turn { next: AtomicU64::new(0), began: Stopwatch::start(), until: plan.until });
    let mut callers = JoinSet::new();
    for _ in 0..plan.callers {
        callers.spawn(caller(client.clone(), work.clone(), Arc::clone(&turn)));
    }
    let mut all = Outcome::default();
    while let Some(one) = callers.join_next().await {
        match one {
            Ok(outcome) => all.add(&outcome),
            Err(error) => all.failed(format!("a caller ended: {error}")),
        }
    }
    all.elapsed = turn.began.elapsed();
    all
}

async fn caller(client: Client, work: Work, turn: Arc<Turn>) -> Outcome {
    let mut outcome = Outcome::default();
    while let Some(index) = turn.take() {
        match ask(&client, &work, index).await {
            Ok(seen) => outcome.answered(seen.first_byte, seen.whole),
            Err(bad) => outcome.failed(bad.name()),
        }
    }
    outcome
}

impl Turn {
    fn take(&self) -> Option<u64> {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        let goes_on = match self.until {
            Until::Requests(count) => index < count,
            Until::Elapsed(span) => self.began.elapsed() < span,
        };
        goes_on.then_some(index)
    }
}

async fn ask(client: &Client, work: &Work, index: u64) -> Result<Seen, Bad> {
    match work.mode {
        Mode::Embed | Mode::Chat => ask_whole(client, work, index).await,
        Mode::Stream => ask_stream(client, work, index).await,
    }
}

async fn ask_whole(client: &Client, work: &Work, index: u64) -> Result<Seen, Bad> {
    let began = Stopwatch::start();
    let answer = client.post(work.path(), work.body(index)).await?;
    let whole = began.elapsed();
    if answer.status != 200 {
        return Err(Bad::Status(answer.status, answer.code()));
    }
    if !matches!(work.check, Check::Status) && !work.is_right(index, &answer.text()) {
        return Err(Bad::WrongAnswer);
    }
    Ok(Seen { first_byte: whole, whole })
}

async fn ask_stream(client: &Client, work: &Work, index: u64) -> Result<Seen, Bad> {
    let began = Stopwatch::start();
    let mut events = match client.stream(work.path(), work.body(index)).await? {
        Opened::Events(events) => events,
        Opened::Refused(answer) => return Err(Bad::Status(answer.status, answer.code())),
    };
    let mut first_byte = None;
    let mut words = String::new();
    loop {
        match events.next().await? {
            Event::Data(data) => {
                first_byte.get_or_insert_with(|| began.elapsed());
                collect_words(&work.check, &data, &mut words)?;
            }
            Event::Done => break,
            Event::End => return Err(Bad::BrokenStream),
        }
    }
    let whole = began.elapsed();
    if !work.is_right(index, &words) {
        return Err(Bad::WrongAnswer);
    }
    Ok(Seen { first_byte: first_byte.unwrap_or(whole), whole })
}

/// Reads an event only as far as the check asks: the generator must stay cheaper than what it measures.
fn collect_words(check: &Check, data: &str, words: &mut String) -> Result<(), Bad> {
    if data.starts_with("{\"error\"") {
        return Err(Bad::BrokenStream);
    }
    if !matches!(check, Check::Status) {
        let event: Value = serde_json::from_str(data).map_err(|_| Bad::BrokenStream)?;
        words.push_str(event["choices"][0]["delta"]["content"].as_str().unwrap_or_default());
    }
    Ok(())
}

impl From<ClientError> for Bad {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl Bad {
    fn name(&self) -> String {
        match self {
            Self::Client(error) => error.to_string(),
            Self::Status(status, code) => format!("{status} {code}"),
            Self::WrongAnswer => "an answer that belongs to another request".into(),
            Self::BrokenStream => "a stream that broke off".into(),
        }
    }
}
