//! core: the words of the field that two roles share: ids, lanes, models, operations.

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::sync::Arc;
use uuid::Uuid;

/// Names one request from its acceptance to its one outcome. Also the caller's `x-request-id` unless they sent one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RequestId(pub Uuid);

/// Names one execution of a request by one worker. An ingress binds a request to the first it hears.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ExecId(pub Uuid);

/// The scheduler's name for one dispatched batch; unique within one ownership of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BatchId(pub u64);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "req_{}", self.0.simple())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for ExecId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exec_{}", self.0.simple())
    }
}

/// Who waits: a caller on the line, a job's poller, or a data team overnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Lane {
    #[serde(rename = "i")]
    Interactive,
    #[serde(rename = "a")]
    Async,
    #[serde(rename = "b")]
    Bulk,
}

impl Lane {
    /// All lanes, most urgent first.
    pub const ALL: [Self; 3] = [Self::Interactive, Self::Async, Self::Bulk];

    pub const fn index(self) -> usize {
        self as usize
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Async => "async",
            Self::Bulk => "bulk",
        }
    }

    /// A deferred lane's work is durable: its ack token travels with the item to the worker.
    pub const fn is_deferred(self) -> bool {
        !matches!(self, Self::Interactive)
    }
}

/// How a model's backends take work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelKind {
    /// One call carries many inputs (embeddings): requests become batches.
    Array,
    /// The backend batches by itself (chat, completions, responses): requests are admitted one by one.
    Sequence,
}

/// What the caller asked the model to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Operation {
    #[serde(rename = "chat")]
    Chat,
    #[serde(rename = "completions")]
    Completions,
    #[serde(rename = "responses")]
    Responses,
    #[serde(rename = "embeddings")]
    Embeddings,
}

impl Operation {
    pub const ALL: [Self; 4] = [Self::Chat, Self::Completions, Self::Responses, Self::Embeddings];

    /// Its name in the configuration and in scopes.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Completions => "completions",
            Self::Responses => "responses",
            Self::Embeddings => "embeddings",
        }
    }

    /// The path below `/v1` of this operation, here and at an OpenAI-compatible backend.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Chat => "chat/completions",
            Self::Completions => "completions",
            Self::Responses => "responses",
            Self::Embeddings => "embeddings",
        }
    }

    pub const fn kind(self) -> ModelKind {
        match self {
            Self::Embeddings => ModelKind::Array,
            Self::Chat | Self::Completions | Self::Responses => ModelKind::Sequence,
        }
    }
}

/// A name that is safe inside a NATS subject: `[A-Za-z0-9_-]{1,64}`. User text never becomes one.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(Arc<str>);

/// The id of an ingress, scheduler or worker process.
pub type NodeId = Token;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a token: use 1 to 64 of the characters A-Z a-z 0-9 _ -")]
pub struct NotAToken(String);

impl Token {
    const LEN_MAX: usize = 64;

    pub fn parse(text: &str) -> Result<Self, NotAToken> {
        let fits = (1..=Self::LEN_MAX).contains(&text.len());
        if fits && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') {
            Ok(Self(text.into()))
        } else {
            Err(NotAToken(text.chars().take(80).collect()))
        }
    }

    /// The token of a model's name: its slug and six characters of the name's hash, so that two names never share one.
    pub fn of_model(name: &str) -> Self {
        Self::slug(name, 6)
    }

    /// The token of a tenant's or a role's name. More of the hash than a model's has, because there may be a hundred
    /// thousand of them, alike in their first 48 characters.
    pub fn of_name(name: &str) -> Self {
        Self::slug(name, 12)
    }

    fn slug(name: &str, hash_len: usize) -> Self {
        let slug: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).take(48).collect();
        let hash = blake3::hash(name.as_bytes()).to_hex();
        Self(format!("{slug}-{}", &hash[..hash_len]).into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

// By hand, because the derived way by `String` allocates twice for each of the several tokens of every message.
impl Serialize for Token {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TokenVisitor)
    }
}

struct TokenVisitor;

impl Visitor<'_> for TokenVisitor {
    type Value = Token;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("1 to 64 of the characters A-Z a-z 0-9 _ -")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Token, E> {
        Token::parse(text).map_err(E::custom)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The tokens a body of `bytes` bytes is taken to hold before any tokenizer has seen it: ⌈bytes / 3.5⌉.
pub fn estimate_tokens(bytes: usize) -> u32 {
    u32::try_from((bytes * 2).div_ceil(7)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_refuses_what_a_subject_would_misread() {
        for bad in ["", "a.b", "a*", ">", "a b", "ä", &"x".repeat(65)] {
            assert!(Token::parse(bad).is_err(), "{bad}");
        }
        assert!(Token::parse("worker-3_A").is_ok());
    }

    #[test]
    fn model_tokens_are_valid_and_distinct_where_slugs_are_not() {
        let names = ["gpt-4o", "gpt 4o", "GPT-4o", "org/модель.v1", &"long".repeat(60), ""];
        let tokens: std::collections::HashSet<_> = names.iter().map(|n| Token::of_model(n)).collect();
        assert_eq!(tokens.len(), names.len());
        assert!(tokens.iter().all(|t| Token::parse(t.as_str()).is_ok()));
    }

    #[test]
    fn a_hundred_thousand_names_that_begin_alike_have_tokens_of_their_own() {
        let tokens: std::collections::HashSet<_> = (0..100_000).map(|n| Token::of_name(&format!("{}{n}", "x".repeat(60)))).collect();
        assert_eq!(tokens.len(), 100_000);
        assert!(tokens.iter().all(|t| Token::parse(t.as_str()).is_ok()));
    }

    #[test]
    fn tokens_are_estimated_upwards() {
        assert_eq!(estimate_tokens(0), 0);
        assert_eq!(estimate_tokens(1), 1);
        assert_eq!(estimate_tokens(7), 2);
        assert_eq!(estimate_tokens(8), 3);
    }
}
