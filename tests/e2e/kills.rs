//! Promise: any process may die without warning under load, and no caller of a living ingress notices more than a wait.
//!
//! Callers never retry. An error is allowed to nobody but a stream that had begun (which must end in an error event) and the
//! callers of the killed ingress itself. Every answer must carry its own prompt's tag or vector, once.

mod callers;

use crate::harness::{KEY, Mill, Role, SOON, StreamEnd, chat, prompt, read_stream, report, tag, until};
use callers::{Callers, Side};
use loadtest::client::{Event, Opened};
use serde_json::json;
use std::time::Duration;

/// Time for the road to heal: leases of 3 s, a stream made anew, and a machine that does much else.
const HEALS_WITHIN: Duration = Duration::from_secs(60);
/// Answers after a kill that show the road carries load again: several from every caller.
const ANSWERS_AFTER: u64 = 40;
/// How often a kill may miss: a worker that ran nothing in that moment proves nothing.
const KILLS_MAX: usize = 10;

/// Words of a stream that runs long enough to be killed in its middle.
const LONG_STREAM_WORDS: u32 = 400;

struct Trial {
    mill: Mill,
    callers: Callers,
    told: String,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_process_is_missed_when_it_is_killed_under_load() {
    let mill =
        Mill::cluster(2, 2, 3).sandbox(&["--a-ms", "5", "--b-ms", "0.15", "--first-token-ms", "20", "--token-ms", "20"]).start().await;
    let callers = Callers::start(&mill.client_of(0, KEY), &mill.client_of(1, KEY), &mill.backend()).await;
    let mut trial = Trial { mill, callers, told: String::new() };
    trial.carries_load("at the start").await;
    trial.kill_a_worker_in_mid_batch().await;
    trial.kill_each_scheduler().await;
    trial.kill_an_ingress().await;
    trial.kill_the_broker().await;
    let outcome = trial.callers.stop().await;
    report("kills", &format!("{}{outcome}", trial.told));
    assert!(outcome.violations.is_empty(), "{:#?}", outcome.violations);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_stream_that_had_begun_says_that_its_worker_died() {
    let mut mill = Mill::cluster(1, 1, 1).sandbox(&["--token-ms", "20"]).start().await;
    let text = prompt("interrupted");
    let body =
        json!({ "model": "chat", "stream": true, "max_tokens": LONG_STREAM_WORDS, "messages": [{ "role": "user", "content": text }] });
    let Opened::Events(mut events) = mill.client().stream("/v1/chat/completions", body.to_string()).await.expect("an answer") else {
        panic!("no stream was opened");
    };
    assert!(matches!(events.next().await, Ok(Event::Data(_))), "it has begun");
    mill.kill(Role::Worker, 0);
    let streamed = tokio::time::timeout(HEALS_WITHIN, read_stream(events)).await.expect("a caller is not left waiting");
    assert!(matches!(&streamed.end, StreamEnd::Error(code) if !code.is_empty()), "{streamed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_answer_that_had_not_begun_comes_from_the_next_worker() {
    let mut mill = Mill::cluster(1, 1, 1).start().await;
    let text = prompt("[[delay:3000]] begun again");
    let client = mill.client();
    let (answer, ()) = tokio::join!(client.post("/v1/chat/completions", chat("chat", &text)), async {
        until("the request runs", SOON, async || mill.stats().await["running"] == 1).await;
        mill.kill(Role::Worker, 0);
        mill.restart(Role::Worker, 0).await;
    });
    let answer = answer.expect("an answer");
    assert!(answer.status == 200 && answer.text().contains(&tag(&text)), "{} {}", answer.status, answer.text());
}

impl Trial {
    /// Waits until the callers of the living ingress have had answers again.
    async fn carries_load(&mut self, when: &str) {
        let began = loadtest::clock::Stopwatch::start();
        let before = self.callers.answered();
        until(&format!("load is carried {when}"), HEALS_WITHIN, async || self.callers.answered() >= before + ANSWERS_AFTER).await;
        self.told.push_str(&format!("{ANSWERS_AFTER} answers {when}: {:.2} s\n", began.elapsed().as_secs_f64()));
    }

    async fn kill_a_worker_in_mid_batch(&mut self) {
        for attempt in 0..KILLS_MAX {
            let worker = attempt % 3;
            let aborted = self.aborted().await;
            self.mill.kill(Role::Worker, worker);
            self.carries_load("after a worker was killed").await;
            self.mill.restart(Role::Worker, worker).await;
            let calls = self.aborted().await - aborted;
            self.told.push_str(&format!("the killed worker ran {calls} calls\n"));
            if calls > 0 {
                return;
            }
        }
        panic!("{KILLS_MAX} killed workers ran nothing");
    }

    /// One of the two owns the models, and after its death the other: killing both in turn kills each model's owner.
    async fn kill_each_scheduler(&mut self) {
        for scheduler in [0, 1] {
            self.mill.kill(Role::Scheduler, scheduler);
            self.carries_load("after a scheduler was killed").await;
            self.mill.restart(Role::Scheduler, scheduler).await;
        }
    }

    async fn kill_an_ingress(&mut self) {
        self.callers.excuse(Side::First);
        self.mill.kill(Role::Ingress, 0);
        self.carries_load("after an ingress was killed").await;
    }

    async fn kill_the_broker(&mut self) {
        self.mill.nats().kill();
        self.mill.nats().restart().await.unwrap_or_else(|error| panic!("{error}"));
        self.carries_load("after nats-server was killed and started").await;
    }

    async fn aborted(&self) -> u64 {
        self.mill.stats().await["aborted"].as_u64().expect("the sandbox counts aborted calls")
    }
}
