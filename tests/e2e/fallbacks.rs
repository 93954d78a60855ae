//! Promise: when every backend of a model fails, callers who wait are served by its fallbacks, and told by which; jobs wait for
//! the model they asked for.

use crate::harness::{Mill, SOON, StreamEnd, chat, chat_stream, prompt, read_stream, tag, until};
use loadtest::client::{Answer, Opened};

const CHAT: &str = "/v1/chat/completions";

/// `primary` has a backend that nobody listens at; `short` has too little context for anybody.
const MODELS: &str = "  - name: primary
    kind: sequence
    fallbacks: [short, chat]
    backends: [ { kind: openai, url: \"http://127.0.0.1:9/v1\", model: x, timeout_ms: 1000 } ]
  - name: short
    kind: sequence
    context_tokens: 1
    backends: [ { kind: openai, url: \"http://127.0.0.1:9/v1\", model: x } ]
";

fn served_by(answer: &Answer) -> Option<&str> {
    answer.headers.get("x-tidemill-model")?.to_str().ok()
}

async fn another_model_serves(mill: Mill) {
    let client = mill.client();
    for n in 0..20 {
        let asked = prompt(&format!("call {n}"));
        let answer = client.post(CHAT, chat("primary", &asked)).await.expect("an answer");
        assert_eq!((answer.status, served_by(&answer)), (200, Some("chat")), "{answer:?}");
        assert!(answer.json().to_string().contains(&tag(&asked)), "{answer:?}");
    }
    let asked = prompt("a stream");
    match client.stream(CHAT, chat_stream("primary", &asked)).await.expect("an answer") {
        Opened::Events(events) => {
            let streamed = read_stream(events).await;
            assert!(streamed.end == StreamEnd::Done && streamed.text.contains(&tag(&asked)), "{streamed:?}");
        }
        Opened::Refused(answer) => panic!("{answer:?}"),
    }
    let own = client.post(CHAT, chat("chat", &prompt("its own"))).await.expect("an answer");
    assert_eq!((own.status, served_by(&own)), (200, Some("chat")));

    let before = mill.metric("tidemill_returned_requests_total");
    let accepted = client.post_with(CHAT, &[("prefer", "respond-async")], chat("primary", &prompt("a job"))).await.expect("an answer");
    let job = format!("/v1/jobs/{}", accepted.json()["id"].as_str().expect("a job"));
    let status = async || client.get(&job).await.expect("an answer").json()["status"].clone();
    until("the job has been tried", SOON, async || mill.metric("tidemill_returned_requests_total") > before).await;
    assert!(["queued", "running"].contains(&status().await.as_str().expect("a status")), "{:?}", status().await);
    assert_eq!(client.delete(&job).await.expect("an answer").status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn another_model_serves_in_process() {
    another_model_serves(Mill::up().model(MODELS).start().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn another_model_serves_over_jetstream() {
    another_model_serves(Mill::up().nats().model(MODELS).start().await).await;
}
