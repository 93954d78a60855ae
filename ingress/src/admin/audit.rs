//! core: an entry of the audit journal: who did what to which object, from where, and what it was before and after.
//!
//! A change has two entries of the same `change`: its intent, written before anything is changed, and its outcome. An
//! intent without an outcome may or may not have been made: the process or the broker failed in between, and the object's
//! present state tells.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::error::Failure;
use shared::identity::Caller;
use std::net::SocketAddr;

/// Who asks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Author {
    tenant: String,
    /// The id of their key; absent for a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// The address that connected.
    from: SocketAddr,
}

impl Author {
    pub(super) fn new(caller: &Caller, from: SocketAddr) -> Self {
        let key = caller.key.as_ref().map(|key| key.id.to_string());
        Self { tenant: caller.tenant.name.to_string(), key, from }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Action {
    Create,
    Update,
    Delete,
    Rotate,
    Block,
    Unblock,
    Redrive,
    Redeliver,
}

/// How far a change has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Stage {
    Intent,
    Made,
    /// Somebody else was first, or it cannot be.
    Refused,
    /// The broker did not answer.
    Unknown,
}

impl Stage {
    /// How it ended. What was refused was not done; after any other failure nobody knows.
    pub(super) fn of(failure: Option<&Failure>) -> Self {
        match failure {
            None => Self::Made,
            Some(failure) if failure.code.status() < 500 => Self::Refused,
            Some(_) => Self::Unknown,
        }
    }
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Entry<'a> {
    /// Names the change: the same in its intent and its outcome.
    pub(super) change: &'a str,
    pub(super) stage: Stage,
    /// Unix milliseconds, by the ingress's clock.
    pub(super) at_ms: u64,
    pub(super) who: &'a Author,
    pub(super) action: Action,
    pub(super) kind: &'static str,
    pub(super) name: &'a str,
    /// With the intent. Never a secret or a digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) before: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) after: Option<&'a Value>,
}

/// The topic of an object's kind.
pub(super) fn topic(kind: &str) -> shared::domain::Token {
    shared::domain::Token::parse(kind).expect("a kind is a token")
}
