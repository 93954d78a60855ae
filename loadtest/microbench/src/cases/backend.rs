//! core: what a worker reads from a backend: a generation's events and an array call's vectors; and the record of the calls.

use super::Case;
use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use serde_json::{Value, json};
use shared::domain::{Lane, Operation, RequestId};
use shared::wire::{Call, ItemEnd};
use uuid::Uuid;
use workers::backend::measured::{parse_events, read_embeddings};
use workers::usage::measured::record;

/// Tokens of the streamed answer.
const EVENTS: usize = 64;

/// The data of one TCP segment: a stream that comes in pieces is cut anywhere.
const SEGMENT: usize = 1_448;

const DIMENSIONS: u16 = 384;

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new("backend/sse/64-events-one-by-one", |meter| {
            let mut pieces: Vec<Bytes> = (0..EVENTS).map(event).collect();
            meter.run(&mut pieces, |_| (), |pieces, ()| assert_eq!(parse_events(pieces), EVENTS));
        }),
        Case::new("backend/sse/64-events-in-segments", |meter| {
            let stream = (0..EVENTS).map(event).collect::<Vec<_>>().concat();
            let mut pieces: Vec<Bytes> = stream.chunks(SEGMENT).map(Bytes::copy_from_slice).collect();
            meter.run(&mut pieces, |_| (), |pieces, ()| assert_eq!(parse_events(pieces), EVENTS));
        }),
        answer("backend/embeddings/64-vectors-base64", 64, base64),
        answer("backend/embeddings/1-vector-base64", 1, base64),
        answer("backend/embeddings/1-vector-decimal", 1, |vector| json!(vector)),
        Case::new("usage/64-calls", |meter| {
            meter.run(&mut call(), |_| (), |call, ()| assert_eq!(record(64, call), 1));
        }),
    ]
}

fn event(n: usize) -> Bytes {
    let choice = json!({ "index": 0, "delta": { "content": format!(" tide{n}") }, "logprobs": null, "finish_reason": null });
    let chunk = json!({
        "id": "chatcmpl-8f4d2c", "object": "chat.completion.chunk", "created": 1_767_225_600, "model": "llama-3.1-8b", "choices": [choice],
    });
    format!("data: {chunk}\n\n").into()
}

fn answer(name: &str, count: u16, form: fn(&[f32]) -> Value) -> Case {
    Case::new(name, move |meter| {
        let vector = |n: u16| (0..DIMENSIONS).map(|d| f32::from((n + 1) * 31 + d * 17 % 1_009) / 4_096.0 - 0.25).collect::<Vec<_>>();
        let data: Vec<Value> = (0..count).map(|n| json!({ "object": "embedding", "index": n, "embedding": form(&vector(n)) })).collect();
        let usage = json!({ "prompt_tokens": 900, "total_tokens": 900 });
        let mut body = json!({ "object": "list", "data": data, "model": "embed-small", "usage": usage }).to_string();
        meter.run(&mut body, |_| (), |body, ()| read_embeddings(body.as_bytes(), count.into()).expect("a sound answer"));
    })
}

fn base64(vector: &[f32]) -> Value {
    let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
    json!(BASE64_STANDARD.encode(bytes))
}

fn call() -> Call {
    Call {
        at_ms: 1_795_000_000_000,
        id: RequestId(Uuid::from_u128(1)),
        tenant: "search".into(),
        key: Some("0123456789".into()),
        model: "chat-small".into(),
        op: Operation::Chat,
        lane: Lane::Interactive,
        backend: "openai-0".into(),
        input: 20,
        output: 5,
        nano_usd: 6_000,
        end: ItemEnd::Answered,
        ms: 250,
    }
}
