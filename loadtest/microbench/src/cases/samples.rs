//! core: the bodies and envelopes that the cases share. The same at every run.

use bytes::Bytes;
use serde_json::json;
use shared::domain::{Lane, NodeId, Operation, RequestId, estimate_tokens};
use shared::wire::{Encoding, Envelope};
use uuid::Uuid;

/// The n-th request id: a UUIDv7 as the gateway mints them, with its random bits drawn by SplitMix64.
pub(super) fn id(n: u64) -> RequestId {
    const MILLIS_2026: u128 = 1_767_225_600_000;
    const VERSION_AND_VARIANT: u128 = (7 << 76) | (2 << 62);
    const RANDOM_LOW: u128 = (1 << 62) - 1;
    let millis = MILLIS_2026 + u128::from(n / 16);
    RequestId(Uuid::from_u128((millis << 80) | VERSION_AND_VARIANT | (u128::from(draw(n)) & RANDOM_LOW)))
}

/// The n-th draw of SplitMix64 (Steele, Lea and Flood, OOPSLA'14).
pub(super) fn draw(n: u64) -> u64 {
    let mut bits = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// A chat body of exactly 1 KiB.
pub(super) fn chat_body() -> Bytes {
    const BYTES: usize = 1_024;
    let of = |prompt: &str| {
        let messages = json!([{ "role": "system", "content": "Answer \"briefly\"." }, { "role": "user", "content": prompt }]);
        json!({ "model": "llama-3.1-8b", "messages": messages, "max_tokens": 128, "temperature": 0.2, "stream": true }).to_string()
    };
    let prompt = "Which tide mills of the Rance still turn? ".repeat(BYTES / 42 + 1);
    of(&prompt[..BYTES - of("").len()]).into()
}

/// A body with `count` texts of a sentence each to embed; a single one is a string, as SDKs send it.
pub(super) fn embedding_body(count: usize) -> Bytes {
    let texts: Vec<String> = (0..count).map(|n| format!("Tide {n} fills the pond through the gate, and the wheel turns.")).collect();
    let input = if count == 1 { json!(texts[0]) } else { json!(texts) };
    json!({ "model": "embed-small", "input": input, "encoding_format": "base64", "dimensions": 384 }).to_string().into()
}

pub(super) fn chat_envelope(n: u64, body: &Bytes) -> Envelope {
    Envelope {
        model: "llama-3.1-8b".into(),
        op: Operation::Chat,
        tokens_out: 128,
        stream: true,
        model_at: Some((170, 184)),
        ..envelope(n, body)
    }
}

pub(super) fn embedding_envelope(n: u64, body: &Bytes) -> Envelope {
    Envelope { encoding: Encoding::Base64, params: "\"dimensions\":384".into(), ..envelope(n, body) }
}

fn envelope(n: u64, body: &Bytes) -> Envelope {
    Envelope {
        id: id(n),
        key: None,
        tenant: "search".into(),
        model: "embed-small".into(),
        lane: Lane::Interactive,
        op: Operation::Embeddings,
        remaining_ms: 600_000,
        tokens_in: estimate_tokens(body.len()),
        tokens_out: 0,
        items: 1,
        longest: 0,
        bytes: u32::try_from(body.len()).expect("samples are small"),
        compat: 42,
        ingress: NodeId::parse("ingress-3f9c0a1b").expect("a token"),
        stream: false,
        encoding: Encoding::Float,
        model_at: None,
        params: "".into(),
        traceparent: None,
        claim: None,
        asked: None,
        job: None,
    }
}
