//! core: the record of a file. Its content lies in the blob store, in parts.

use super::store::Kept;
use crate::broker::Bucket;
use crate::domain::Token;
use serde::{Deserialize, Serialize};

/// The bytes of each part of an uploaded file but its last: a few messages of the store.
pub const PART_BYTES: usize = 1024 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Lines of requests.
    Batch,
    BatchOutput,
    /// Anything else a caller keeps here.
    UserData,
}

impl Purpose {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::BatchOutput => "batch_output",
            Self::UserData => "user_data",
        }
    }
}

/// Times are milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    pub id: Token,
    pub tenant: Box<str>,
    pub name: Box<str>,
    pub purpose: Purpose,
    pub bytes: u64,
    /// Lines that are not blank.
    pub lines: u64,
    pub parts: u32,
    pub created_ms: u64,
    #[serde(default)]
    pub expires_ms: Option<u64>,
    /// Under which id its parts are, where that is not its own: one that has a name may come several times at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Token>,
    /// What two uploads under one `Idempotency-Key` must have in common: a hash of the form.
    #[serde(default, with = "serde_bytes")]
    pub fingerprint: Vec<u8>,
}

impl File {
    /// The id under which its parts are.
    pub fn content(&self) -> &Token {
        self.content.as_ref().unwrap_or(&self.id)
    }

    /// The key of one of the parts of a content in the blob store.
    pub fn part_key(id: &Token, part: u32) -> String {
        format!("{id}.{part}")
    }
}

impl Kept for File {
    const BUCKET: Bucket = Bucket::Files;

    fn tenant(&self) -> &str {
        &self.tenant
    }

    fn id(&self) -> &Token {
        &self.id
    }
}
