//! Promise: a tenant gets what its limits allow and no more, from however many callers it asks; and everything reserved
//! is given back.

use crate::harness::{KEY, KEY_SMALL, Mill, SOON, chat, embed, prompt, until};
use futures::future::join_all;
use loadtest::client::{Answer, Client};
use std::time::Duration;

const CHAT: &str = "/v1/chat/completions";

async fn ask(client: &Client, text: &str) -> Answer {
    client.post(CHAT, chat("chat", &prompt(text))).await.expect("an answer")
}

async fn ask_at_once(client: &Client, count: usize) -> Vec<Answer> {
    join_all((0..count).map(|n| async move { ask(client, &format!("limited {n}")).await })).await
}

fn count(answers: &[Answer], status: u16) -> usize {
    answers.iter().filter(|answer| answer.status == status).count()
}

fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer.headers.get(name).unwrap_or_else(|| panic!("{name} is missing: {answer:?}")).to_str().expect("text")
}

fn code(answer: &Answer) -> String {
    answer.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
}

/// Reservations that schedulers hold open, by their own word.
async fn none_is_reserved(mill: &Mill) {
    until("every reservation has ended", SOON, async || mill.metric("tidemill_quota_reservations") == 0.0).await;
}

#[tokio::test]
async fn a_bucket_admits_what_it_holds_and_the_rest_is_told_when_to_come_back() {
    let mill = Mill::up().quota("{ requests_per_minute: 6, request_burst: 5 }").limit("max_wait_ms: 0").start().await;
    let answers = ask_at_once(&mill.client_of(0, KEY), 20).await;
    assert_eq!((count(&answers, 200), count(&answers, 429)), (5, 15));
    let refused = answers.iter().find(|answer| answer.status == 429).expect("one");
    assert_eq!(code(refused), "rate_limit_exceeded");
    let wait: u64 = header(refused, "retry-after-ms").parse().expect("a number");
    assert!((1..=10_000).contains(&wait), "{wait}");
    assert_eq!(header(refused, "x-ratelimit-limit-requests"), "5");
    assert_eq!(header(refused, "x-ratelimit-remaining-requests"), "0");
    assert!(refused.headers.get("x-should-retry").is_none());
    let answered = answers.iter().find(|answer| answer.status == 200).expect("one");
    assert_eq!(header(answered, "x-ratelimit-limit-requests"), "5");

    let other = ask(&mill.client_of(0, KEY_SMALL), "another tenant").await;
    assert_eq!(other.status, 200, "another's limits are another's");
    assert!(other.headers.get("x-ratelimit-limit-requests").is_none());
    none_is_reserved(&mill).await;
}

#[tokio::test]
async fn who_is_limited_hears_how_the_limits_stand_when_the_backend_fails_too() {
    let mill = Mill::up().quota("{ requests_per_minute: 100 }").start().await;
    for (model, path, body) in [
        ("chat", CHAT, chat("chat", &prompt("[[fault:status=503]]"))),
        ("embed", "/v1/embeddings", embed("embed", &prompt("[[fault:status=503]]"))),
    ] {
        let answer = mill.client().post(path, body).await.expect("an answer");
        assert_eq!(answer.status, 502, "{model}: {answer:?}");
        assert_eq!(header(&answer, "x-ratelimit-limit-requests"), "100");
    }
    none_is_reserved(&mill).await;
}

#[tokio::test]
async fn a_request_waits_for_its_turn_where_that_is_soon() {
    let mill = Mill::up().quota("{ requests_per_minute: 600, request_burst: 1 }").limit("max_wait_ms: 20000").start().await;
    let answers = ask_at_once(&mill.client_of(0, KEY), 8).await;
    assert_eq!(count(&answers, 200), 8, "one each 100 ms");
    none_is_reserved(&mill).await;
}

#[tokio::test]
async fn of_twenty_who_race_for_the_last_tokens_one_gets_them() {
    // Each is estimated at some 20 tokens of input and as many of output as it asks for.
    let mill = Mill::up().quota("{ tokens_per_day: 1000 }").limit("max_wait_ms: 0").start().await;
    let client = mill.client_of(0, KEY);
    let body = |n: usize| chat("chat", &prompt(&format!("last {n}"))).replace("\"max_tokens\":16", "\"max_tokens\":700");
    let answers = join_all((0..20).map(|n| client.post(CHAT, body(n)))).await;
    let answers: Vec<Answer> = answers.into_iter().map(|answer| answer.expect("an answer")).collect();
    assert_eq!((count(&answers, 200), count(&answers, 429)), (1, 19));
    let refused = answers.iter().find(|answer| answer.status == 429).expect("one");
    assert_eq!(code(refused), "insufficient_quota");
    assert_eq!(header(refused, "x-should-retry"), "false");
    none_is_reserved(&mill).await;
    let again = ask(&client, "what was not used is there again").await;
    assert_eq!(again.status, 200, "{again:?}");
}

#[tokio::test]
async fn as_many_run_at_once_as_may_and_what_is_cancelled_makes_room() {
    let mill = Mill::up().quota("{ concurrency: 2 }").limit("max_wait_ms: 0").sandbox(&["--first-token-ms", "1000"]).start().await;
    let client = mill.client_of(0, KEY);
    let answers = ask_at_once(&client, 6).await;
    assert_eq!((count(&answers, 200), count(&answers, 429)), (2, 4));
    for _ in 0..3 {
        let left = tokio::time::timeout(Duration::from_millis(100), ask_at_once(&client, 2)).await;
        assert!(left.is_err(), "the callers leave before they are answered");
        none_is_reserved(&mill).await;
    }
}
