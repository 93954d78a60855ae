//! Promise: a stream that has begun ends whole, although parts of it are lost between the worker and the ingress: again and again,
//! nothing that a nats-server says arrives, and then its connections are reset.

use crate::harness::{Mill, Road, SOON, StreamEnd, Weather, prompt, read_stream};
use futures::future::join_all;
use loadtest::client::{Client, Opened};
use serde_json::{Value, json};
use std::time::Duration;

const CHAT: &str = "/v1/chat/completions";
const STREAMS: usize = 8;
/// At 10 ms each: streams of different lengths, so that some end while nothing is heard.
const WORDS: usize = 100;
const WORDS_MORE: usize = 20;
/// Longer than clients take to connect again.
const CALM: Duration = Duration::from_millis(400);
/// How long nothing arrives: each stream says several parts in it.
const DEAF: Duration = Duration::from_millis(50);

fn body(model: &str, index: usize, stream: bool) -> String {
    let messages = json!([{ "role": "user", "content": prompt(&format!("stream {index}")) }]);
    json!({ "model": model, "stream": stream, "max_tokens": WORDS + index * WORDS_MORE, "messages": messages }).to_string()
}

/// What the backend itself says.
async fn whole(backend: &Client, index: usize) -> String {
    let answer: Value = backend.post(CHAT, body("sandbox-chat", index, false)).await.expect("an answer").json();
    answer["choices"][0]["message"]["content"].as_str().expect("a text").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_stream_gets_the_parts_again_that_it_lost() {
    let weather = Weather::default();
    let mill = Mill::cluster(1, 1, 1).weather(&weather).sandbox(&["--token-ms", "10"]).start().await;
    let (client, backend) = (mill.client(), mill.backend());
    let texts = join_all((0..STREAMS).map(|index| whole(&backend, index))).await;
    let opened = join_all((0..STREAMS).map(|index| client.stream(CHAT, body("chat", index, true)))).await;
    let streams = opened.into_iter().map(|opened| match opened.expect("an answer") {
        Opened::Events(events) => read_stream(events),
        Opened::Refused(answer) => panic!("{}", answer.text()),
    });
    let trouble = async {
        for _ in 0..6 {
            tokio::time::sleep(CALM).await;
            weather.set(Road::OneWay);
            tokio::time::sleep(DEAF).await;
            weather.reset();
            tokio::time::sleep(DEAF).await;
            weather.set(Road::Open);
        }
    };
    let (streamed, ()) = tokio::join!(tokio::time::timeout(SOON, join_all(streams)), trouble);
    for (streamed, text) in streamed.expect("streams end").into_iter().zip(texts) {
        assert_eq!((streamed.end, streamed.text), (StreamEnd::Done, text));
    }
    assert!(mill.metric("tidemill_parts_asked_again_total") > 0.0, "nothing was lost, so this shows nothing");
}
