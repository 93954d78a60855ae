//! Promise: a response in the background outlives its caller and whatever dies under it: it is polled, cancelled, and its events are read on, at any
//! ingress; and no reader is ever told the events of two attempts as one. What the official SDK sees is in `tests/sdk/python_background.py`.

use crate::harness::{KEY, KEY_SMALL, Mill, Program, Role, SOON, Setup, prompt, python, report, tag, until};
use loadtest::client::{ClientError, Event, Events, Opened};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

/// Time for the script on a busy machine.
const SCRIPT_TIMEOUT: Duration = Duration::from_secs(120);
/// A script that skipped its checks must not pass.
const CHECKS_MIN: usize = 10;

async fn passes(setup: Setup, elsewhere: usize, report_as: &str) {
    let mill = setup.sandbox(&["--first-token-ms", "20", "--token-ms", "20"]).start().await;
    let mut python = python();
    python.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk/python_background.py"));
    python.env("TIDEMILL_URL", mill.ingress(0)).env("TIDEMILL_URL_ELSEWHERE", mill.ingress(elsewhere));
    python.env("TIDEMILL_KEY", KEY).env("TIDEMILL_KEY_OTHER", KEY_SMALL).env("SANDBOX_URL", mill.backend().base());
    let ended = Program::start("background", python).end(SCRIPT_TIMEOUT).await;
    assert_eq!(ended.code, Some(0), "{}\n{}", ended.out, ended.err);
    let checks = ended.out.lines().filter(|line| line.starts_with("ok ")).count();
    assert!(checks >= CHECKS_MIN, "only {checks} checks:\n{}", ended.out);
    report(report_as, &format!("{checks} checks passed"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_python_sdk_reads_background_responses_in_one_process() {
    passes(Mill::up(), 0, "python_background.py in process").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_python_sdk_reads_background_responses_over_jetstream() {
    passes(Mill::cluster(2, 2, 2), 1, "python_background.py over JetStream").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn who_may_wait_in_one_lane_only_is_held_to_it_by_what_the_body_asks() {
    let roles = "roles:\n  - { name: now, lanes: [ interactive ] }\n  - { name: later, lanes: [ async ] }\n";
    let keys = [("now", "sk-e2e-canary-now"), ("later", "sk-e2e-canary-later")];
    let setup = keys.iter().fold(Mill::up().sections(roles), |setup, (role, key)| {
        setup.tenant(&format!("{{ name: of-{role}, role: {role}, keys: [ {key} ] }}"))
    });
    let mill = setup.start().await;
    let body =
        |background| json!({ "model": "chat", "input": prompt("lanes"), "max_output_tokens": 2, "background": background }).to_string();
    for ((_, key), statuses) in keys.iter().zip([[200, 403], [403, 200]]) {
        for (background, status) in [false, true].into_iter().zip(statuses) {
            let answer = mill.client_of(0, key).post("/v1/responses", body(background)).await.expect("an answer");
            assert_eq!(answer.status, status, "{key} {background}: {}", answer.text());
        }
    }
}

/// The next event's data; none at the stream's end.
async fn next(events: &mut Events) -> Option<Value> {
    match events.next().await.expect("the stream is not cut") {
        Event::Data(data) => Some(serde_json::from_str(&data).expect("JSON")),
        Event::Done => panic!("a response's stream has no [DONE]"),
        Event::End => None,
    }
}

async fn rest(mut events: Events) -> Vec<Value> {
    let mut all = Vec::new();
    while let Some(event) = next(&mut events).await {
        all.push(event);
    }
    all
}

fn words(events: &[Value]) -> String {
    events.iter().filter_map(|event| event["delta"].as_str()).collect()
}

async fn opened(opened: Result<Opened, ClientError>) -> Events {
    match opened.expect("an answer") {
        Opened::Events(events) => events,
        Opened::Refused(answer) => panic!("refused: {answer:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_never_sees_two_attempts_as_one() {
    let mut mill = Mill::cluster(2, 1, 1).sandbox(&["--first-token-ms", "5", "--token-ms", "20"]).start().await;
    let text = prompt("attempted twice");
    let body = json!({ "model": "chat", "input": text, "background": true, "stream": true, "max_output_tokens": 150 }).to_string();
    let mut events = opened(mill.client().stream("/v1/responses", body).await).await;
    let mut seen = Vec::new();
    while words(&seen).len() < 20 {
        seen.push(next(&mut events).await.expect("it goes on"));
    }
    mill.kill(Role::Worker, 0);
    mill.restart(Role::Worker, 0).await;

    seen.extend(rest(events).await);
    assert_eq!(seen.last().expect("events")["error"]["code"], "stream_interrupted", "{seen:?}");
    let (id, number) = (seen[0]["response"]["id"].as_str().expect("an id"), seen[seen.len() - 2]["sequence_number"].clone());
    let path = |starting_after: &str| format!("/v1/responses/{id}?stream=true{starting_after}");
    let void = rest(opened(mill.client_of(1, KEY).open(&path(&format!("&starting_after={number}"))).await).await).await;
    assert_eq!((void.len(), &void[0]["error"]["code"]), (1, &json!("stream_interrupted")), "{void:?}");

    let whole = rest(opened(mill.client_of(1, KEY).open(&path("")).await).await).await;
    let last = whole.last().expect("events");
    assert_eq!((&last["type"], &last["response"]["id"]), (&json!("response.completed"), &json!(id)));
    assert_eq!(words(&whole), last["response"]["output"][0]["content"][0]["text"].as_str().expect("text"));
    assert!(words(&whole).contains(&tag(&text)));
    let numbers: Vec<_> = whole.iter().map(|event| event["sequence_number"].as_u64().expect("a number")).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    until("both readers have left", SOON, async || mill.metric("tidemill_requests_in_flight") == 0.0).await;
}
