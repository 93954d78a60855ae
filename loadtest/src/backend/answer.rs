//! core: the bodies of the mock's answers.

use super::request::{Chat, Embeddings};
use super::vector;
use crate::tag;
use std::fmt::Write;

/// Key of the hash that every generation carries.
pub const HASH_KEY: &str = "mock";

/// Length of a chat answer in bytes: what the peers were measured with.
const CHAT_BYTES: usize = 981;

const CHAT_HEAD: &str = r#"{"id":"chatcmpl-mock","object":"chat.completion","created":1767225600,"model":"chat","choices":[{"index":0,"message":{"role":"assistant","content":""#;
const CHAT_TAIL: &str =
    r#""},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":100,"completion_tokens":128,"total_tokens":228}}"#;

/// What follows the tag, and is cut to length.
const WORDS: &str = " the tide turns slowly and the wheel agrees with the water";

/// The pieces of a stream after the one with the tag.
const PIECES: usize = 4;

const CHUNK_HEAD: &str =
    r#"data: {"id":"chatcmpl-mock","object":"chat.completion.chunk","created":1767225600,"model":"chat","choices":[{"index":0,"delta":"#;
const STREAM_TAIL: &str = "data: [DONE]\n\n";

/// The list of models.
pub fn models() -> String {
    let models = [super::CHAT, super::SLOW_CHAT, super::ACCELERATOR, super::PADDED]
        .map(|id| format!(r#"{{"id":"{id}","object":"model","created":1767225600,"owned_by":"mock"}}"#));
    format!(r#"{{"object":"list","data":[{}]}}"#, models.join(","))
}

/// A whole chat answer of 981 bytes.
pub fn chat(request: &Chat<'_>) -> String {
    let mut body = String::with_capacity(CHAT_BYTES);
    body.push_str(CHAT_HEAD);
    body.push_str(&tag::of(HASH_KEY, request.prompt()));
    while body.len() + CHAT_TAIL.len() < CHAT_BYTES {
        let room = CHAT_BYTES - CHAT_TAIL.len() - body.len();
        body.push_str(&WORDS[..WORDS.len().min(room)]);
    }
    body.push_str(CHAT_TAIL);
    body
}

/// The events of a stream; its end comes with the last.
pub fn stream(request: &Chat<'_>) -> Vec<String> {
    let mut events = vec![chunk(r#"{"role":"assistant","content":""}"#, "null")];
    events.push(chunk(&format!(r#"{{"content":"{}"}}"#, tag::of(HASH_KEY, request.prompt())), "null"));
    events.extend((0..PIECES).map(|_| chunk(&format!(r#"{{"content":"{WORDS}"}}"#), "null")));
    events.push(chunk("{}", r#""stop""#) + STREAM_TAIL);
    events
}

fn chunk(delta: &str, finish_reason: &str) -> String {
    [CHUNK_HEAD, delta, r#","logprobs":null,"finish_reason":"#, finish_reason, "}]}\n\n"].concat()
}

/// A vector for each input, in the form asked for.
pub fn embeddings(request: &Embeddings<'_>) -> String {
    let inputs = request.inputs();
    let mut body = String::from(r#"{"object":"list","data":["#);
    for (index, input) in inputs.iter().enumerate() {
        let comma = if index > 0 { "," } else { "" };
        let vector = if request.wants_base64() { format!("\"{}\"", vector::base64(input)) } else { format!("{:?}", vector::floats(input)) };
        let _ = write!(body, r#"{comma}{{"object":"embedding","index":{index},"embedding":{vector}}}"#);
    }
    let tokens = inputs.len() * 12;
    let _ = write!(body, r#"],"model":"{}","usage":{{"prompt_tokens":{tokens},"total_tokens":{tokens}}}}}"#, request.model);
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn a_chat_answer_has_the_length_of_the_targets() {
        let request = serde_json::from_str(r#"{"messages":[{"content":"p"}]}"#).unwrap();
        let body = chat(&request);
        assert_eq!(body.len(), CHAT_BYTES);
        let body: Value = serde_json::from_str(&body).unwrap();
        assert!(body["choices"][0]["message"]["content"].as_str().unwrap().starts_with(&tag::of(HASH_KEY, "p")));
    }

    #[test]
    fn each_event_of_a_stream_is_json() {
        let body = stream(&serde_json::from_str(r#"{"messages":[{"content":"p"}],"stream":true}"#).unwrap()).concat();
        let events: Vec<&str> = body.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap()).collect();
        let (done, chunks) = events.split_last().unwrap();
        assert_eq!((*done, chunks.len()), ("[DONE]", PIECES + 3));
        assert!(chunks.iter().all(|chunk| serde_json::from_str::<Value>(chunk).is_ok()));
    }

    #[test]
    fn vectors_come_in_the_form_asked_for() {
        for (format, is_text) in [("base64", true), ("float", false)] {
            let body = format!(r#"{{"model":"m","input":["a","b"],"encoding_format":"{format}"}}"#);
            let answer: Value = serde_json::from_str(&embeddings(&serde_json::from_str(&body).unwrap())).unwrap();
            assert_eq!(answer["data"].as_array().unwrap().len(), 2);
            assert_eq!((answer["data"][1]["index"].as_u64(), answer["data"][1]["embedding"].is_string()), (Some(1), is_text));
        }
    }
}
