//! core: the requests the tests send, and how answers are read.

use loadtest::client::{Event, Events};
use serde_json::{Value, json};

/// Stands in every prompt: found in a log, it fails the test.
pub(crate) const CANARY: &str = "xylocanary";

/// A prompt that must not show up in any log.
pub(crate) fn prompt(text: &str) -> String {
    format!("{CANARY} {text}")
}

/// The sandbox's tag for this prompt.
pub(crate) fn tag(prompt: &str) -> String {
    loadtest::tag::of("tidemill", prompt)
}

pub(crate) fn chat(model: &str, prompt: &str) -> String {
    json!({ "model": model, "max_tokens": 16, "messages": [{ "role": "user", "content": prompt }] }).to_string()
}

pub(crate) fn chat_stream(model: &str, prompt: &str) -> String {
    json!({ "model": model, "max_tokens": 16, "stream": true, "messages": [{ "role": "user", "content": prompt }] }).to_string()
}

pub(crate) fn embed(model: &str, input: &str) -> String {
    json!({ "model": model, "input": input }).to_string()
}

/// What a stream brought.
#[derive(Debug)]
pub(crate) struct Streamed {
    pub(crate) text: String,
    pub(crate) end: StreamEnd,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum StreamEnd {
    Done,
    /// An error event, with its code.
    Error(String),
    /// The connection ended without a word: never allowed.
    Cut,
}

/// Reads a stream to its end, whichever it is.
pub(crate) async fn read_stream(mut events: Events) -> Streamed {
    let mut text = String::new();
    loop {
        let event = match events.next().await {
            Ok(Event::Data(data)) => serde_json::from_str::<Value>(&data).unwrap_or_default(),
            Ok(Event::Done) => return Streamed { text, end: StreamEnd::Done },
            Ok(Event::End) | Err(_) => return Streamed { text, end: StreamEnd::Cut },
        };
        if let Some(code) = event["error"]["code"].as_str() {
            return Streamed { text, end: StreamEnd::Error(code.to_owned()) };
        }
        text.push_str(event["choices"][0]["delta"]["content"].as_str().unwrap_or_default());
    }
}
