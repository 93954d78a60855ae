//! core: the envelope: one request on the lanes. The head is this struct; the body of its part is the user's JSON.

use crate::domain::{Lane, NodeId, Operation, RequestId, Token};
use serde::{Deserialize, Serialize};

/// One request, as the ingress publishes it and the worker unpacks it. The scheduler reads it and never changes it.
///
/// The body beside it holds, for chat, completions and responses, the caller's JSON as it came; for embeddings, the inputs as a
/// comma-separated list of raw JSON values, so that merging callers into one call is concatenation. A body that is too
/// large for a frame waits in the blob store instead (`claim`) and the part's own body is empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    pub id: RequestId,
    pub tenant: Box<str>,
    /// The id of the key that the caller came with: whose usage it is beside the tenant's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Box<str>>,
    /// The model's public name.
    pub model: Box<str>,
    pub lane: Lane,
    pub op: Operation,
    /// What was left of the deadline when this was published, in milliseconds.
    pub remaining_ms: u32,
    /// Estimated input tokens.
    pub tokens_in: u32,
    /// Expected output tokens; zero for embeddings.
    pub tokens_out: u32,
    /// Inputs in this request: 1 for a sequence.
    pub items: u32,
    /// Estimated tokens of the longest of several inputs; 0 when there is one, or nobody looked.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub longest: u32,
    /// Bytes of the body, also when it is claimed.
    pub bytes: u32,
    /// Only requests with the same value may share one backend call.
    pub compat: u64,
    /// Whose inbox waits for the reply.
    pub ingress: NodeId,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stream: bool,
    #[serde(default, skip_serializing_if = "Encoding::is_float")]
    pub encoding: Encoding,
    /// Where the `model` value stands in the body, quotes included, so that a worker can put its backend's name there
    /// without parsing again. Not for embeddings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_at: Option<(u32, u32)>,
    /// The caller's other embedding fields as JSON members without braces (`"dimensions":256,"x":1`); may be empty.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub params: Box<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<Claim>,
    /// The model that the caller named, where `model` is a fallback of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<Box<str>>,
    /// Deferred lanes: what its outcome is part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<Box<JobRef>>,
}

/// Which job a deferred request is, or which line of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct JobRef {
    pub job: Token,
    /// The segment of a batch; 0 for a single job.
    pub part: u32,
    /// The line within its segment; 0 for a single job.
    pub row: u32,
    /// Whether it is a line of a batch.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub line: bool,
    /// It was in the lane before: ask whether it has an outcome.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
}

impl Envelope {
    /// Estimated tokens of the longest input.
    pub const fn longest_tokens(&self) -> u32 {
        match (self.longest, self.items) {
            (0, 0) => self.tokens_in,
            (0, items) => self.tokens_in.div_ceil(items),
            (longest, _) => longest,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes a reference")]
pub(super) const fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// The form in which the caller wants vectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    #[default]
    Float,
    Base64,
}

impl Encoding {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes a reference")]
    const fn is_float(&self) -> bool {
        matches!(self, Self::Float)
    }
}

/// A claim check: where a large body waits, and the BLAKE3 hash it must have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    pub key: Box<str>,
    /// It is in the store of files, where it stays for as long as its job.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub kept: bool,
    #[serde(with = "serde_bytes")]
    pub hash: Vec<u8>,
}

#[cfg(test)]
pub(crate) fn sample() -> Envelope {
    Envelope {
        id: RequestId(uuid::Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0001)),
        tenant: "search".into(),
        key: None,
        model: "embed-small".into(),
        lane: Lane::Interactive,
        op: Operation::Embeddings,
        remaining_ms: 600_000,
        tokens_in: 4,
        tokens_out: 0,
        items: 1,
        longest: 0,
        bytes: 7,
        compat: 42,
        ingress: NodeId::parse("ingress-1").unwrap(),
        stream: false,
        encoding: Encoding::Base64,
        model_at: None,
        params: "\"dimensions\":256".into(),
        traceparent: None,
        claim: None,
        asked: None,
        job: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Part;
    use bytes::Bytes;
    use proptest::prelude::*;

    #[test]
    fn the_envelope_has_its_golden_bytes() {
        let part = Part::encode(&sample(), Bytes::from_static(b"\"hello\""));
        let hex: String = part.head.iter().map(|b| format!("{b:02x}")).collect();
        let golden = include_str!("envelope.golden").trim();
        assert_eq!(hex, golden, "the wire changed: old messages are in the queue when a new release reads it");
        assert_eq!(part.decode::<Envelope>().unwrap(), sample());
    }

    #[test]
    fn an_unknown_field_from_a_newer_release_is_skipped() {
        #[derive(Serialize)]
        struct Newer {
            #[serde(flatten)]
            old: std::collections::BTreeMap<&'static str, u8>,
        }
        #[derive(Debug, PartialEq, Deserialize)]
        struct Older {
            a: u8,
        }
        let newer = Newer { old: [("a", 1), ("b", 2)].into() };
        assert_eq!(Part::encode(&newer, Bytes::new()).decode::<Older>().unwrap(), Older { a: 1 });
    }

    proptest! {
        /// Bytes that a disk or another release has changed.
        #[test]
        fn a_damaged_envelope_is_refused_or_another_and_never_a_panic(at in any::<prop::sample::Index>(), to in any::<u8>(), cut in any::<prop::sample::Index>()) {
            let whole = Part::encode(&sample(), Bytes::new()).head;
            let mut damaged = whole.to_vec();
            damaged[at.index(whole.len())] = to;
            for head in [damaged.clone(), damaged[..cut.index(whole.len())].to_vec()] {
                if let Ok(read) = (Part { head: head.into(), body: Bytes::new() }).decode::<Envelope>() {
                    let again = Part::encode(&read, Bytes::new());
                    prop_assert_eq!(again.decode::<Envelope>().unwrap(), read);
                }
            }
        }
    }
}
