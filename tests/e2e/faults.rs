//! Promise: whatever a backend does wrong, the caller gets a clear error of the right status, and its batch-mates their answers.

use crate::harness::{Mill, StreamEnd, chat, chat_stream, embed, prompt, read_stream, tag};
use futures::future::join_all;
use loadtest::client::{Client, Opened};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
const EMBED: &str = "/v1/embeddings";

/// A prompt that makes the sandbox fail in this way.
fn faulty(fault: &str) -> String {
    prompt(&format!("[[fault:{fault}]] for {fault}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn each_fault_of_a_backend_becomes_its_own_error() {
    let mill = Mill::up().backend_timeout_ms(800).start().await;
    let client = mill.client();
    let cases = [
        (CHAT, "status=500", 502, "backend_status"),
        (CHAT, "status=503", 502, "backend_status"),
        (CHAT, "status=429", 429, "backend_rate_limited"),
        (CHAT, "status=400", 400, "backend_rejected"),
        (CHAT, "hang", 504, "backend_timeout"),
        (CHAT, "slow_drip", 504, "backend_timeout"),
        (CHAT, "reset", 502, "backend_unreachable"),
        (CHAT, "malformed_json", 502, "backend_malformed"),
        (EMBED, "status=500", 502, "backend_status"),
        (EMBED, "status=422", 400, "backend_rejected"),
        (EMBED, "hang", 504, "backend_timeout"),
        (EMBED, "reset", 502, "backend_unreachable"),
        (EMBED, "malformed_json", 502, "backend_malformed"),
        (EMBED, "wrong_count", 502, "backend_wrong_count"),
    ];
    let mut wrong = Vec::new();
    for (path, fault, status, code) in cases {
        let body = if path == CHAT { chat("chat", &faulty(fault)) } else { embed("embed", &faulty(fault)) };
        let answer = client.post(path, body).await.expect("an answer");
        let sentence = answer.json()["error"]["message"].as_str().unwrap_or_default().contains(' ');
        if (answer.status, answer.code().as_str()) != (status, code) || !sentence {
            wrong.push(format!("{path} {fault}: expected {status} {code}, got {} {}", answer.status, answer.text()));
        }
        // A backend that only ever failed would be left alone.
        let well = prompt(&format!("well after {fault}"));
        let body = if path == CHAT { chat("chat", &well) } else { embed("embed", &well) };
        assert_eq!(client.post(path, body).await.expect("an answer").status, 200, "after {path} {fault}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_stream_that_the_backend_breaks_ends_in_an_error_event() {
    let mill = Mill::up().backend_timeout_ms(800).start().await;
    for (fault, code) in [("partial_stream", "stream_interrupted"), ("reset", "stream_interrupted")] {
        match mill.client().stream(CHAT, chat_stream("chat", &faulty(fault))).await.expect("an answer") {
            Opened::Events(events) => {
                let streamed = read_stream(events).await;
                assert_eq!(streamed.end, StreamEnd::Error(code.into()), "{fault}: {streamed:?}");
            }
            Opened::Refused(answer) => panic!("{fault} comes after the first byte, but the answer was {}", answer.text()),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_fault_before_the_first_byte_of_a_stream_is_a_plain_error() {
    let mill = Mill::up().backend_timeout_ms(800).start().await;
    for (fault, status, code) in [("status=503", 502, "backend_status"), ("hang", 504, "backend_timeout")] {
        match mill.client().stream(CHAT, chat_stream("chat", &faulty(fault))).await.expect("an answer") {
            Opened::Events(events) => panic!("{fault}: a stream was opened: {:?}", read_stream(events).await),
            Opened::Refused(answer) => assert_eq!((answer.status, answer.code().as_str()), (status, code), "{}", answer.text()),
        }
    }
}

/// Words of a stream that a backend writes in one go: several times what may wait for a caller.
const FLOOD_WORDS: u32 = 8_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_backend_that_writes_faster_than_anybody_reads_is_no_fault_of_the_caller() {
    let mill = Mill::up().start().await;
    let body = json!({ "model": "chat", "stream": true, "max_tokens": FLOOD_WORDS, "messages": [{ "role": "user", "content": "flood" }] });
    let Opened::Events(events) = mill.client().stream(CHAT, body.to_string()).await.expect("an answer") else {
        panic!("no stream was opened");
    };
    let streamed = read_stream(events).await;
    assert_eq!(streamed.end, StreamEnd::Done, "after {} bytes", streamed.text.len());
}

/// One poisoned input among these many.
const MATES: usize = 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_batch_mates_of_a_poisoned_input_get_their_answers() {
    let mill = Mill::up().sandbox(&["--a-ms", "30", "--concurrency", "1"]).start().await;
    for (fault, status, code) in
        [("status=400", 400, "backend_rejected"), ("wrong_count", 502, "backend_wrong_count"), ("malformed_json", 502, "backend_malformed")]
    {
        mill.reset_stats().await;
        let poisoned = faulty(fault);
        let texts: Vec<String> = (0..MATES).map(|i| prompt(&format!("mate {i} of {fault}"))).collect();
        let client = mill.client();
        let (bad, good) = tokio::join!(
            client.post(EMBED, embed("embed", &poisoned)),
            join_all(texts.iter().map(|text| client.post(EMBED, embed("embed", text)))),
        );
        let bad = bad.expect("an answer");
        assert_eq!((bad.status, bad.code().as_str()), (status, code), "{}", bad.text());
        for (text, answer) in texts.iter().zip(good) {
            let answer = answer.expect("an answer");
            assert_eq!(answer.status, 200, "{fault}: {}", answer.text());
            assert_eq!(vector(&answer.json()), own_vector(&mill.backend(), text).await, "{text}");
        }
        let stats = mill.stats().await;
        assert!(stats["max_items"].as_u64() > Some(1), "nothing was batched, so nobody was a mate: {stats}");
    }
}

fn vector(answer: &Value) -> Vec<Value> {
    answer["data"][0]["embedding"].as_array().cloned().unwrap_or_default()
}

async fn own_vector(backend: &Client, text: &str) -> Vec<Value> {
    let vector = vector(&backend.post(EMBED, embed("sandbox-embedding", text)).await.expect("an answer").json());
    assert!(!vector.is_empty());
    vector
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_backend_that_works_again_is_used_again() {
    let mill = Mill::up().backend_timeout_ms(800).start().await;
    let client = mill.client();
    for round in 0..3 {
        let broken = client.post(CHAT, chat("chat", &faulty("status=500"))).await.expect("an answer");
        assert_eq!(broken.status, 502);
        let text = prompt(&format!("well {round}"));
        let answer = client.post(CHAT, chat("chat", &text)).await.expect("an answer");
        assert!(answer.text().contains(&tag(&text)), "{}", answer.text());
    }
}
