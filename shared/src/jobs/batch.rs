//! core: the record of a batch: OpenAI's fields, and how far its driver has come.

use super::job::Place;
use super::store::Kept;
use crate::broker::Bucket;
use crate::domain::{Operation, Token};
use crate::error::Failure;
use crate::identity::Scope;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchState {
    Validating,
    Failed,
    InProgress,
    Finalizing,
    Completed,
    Expired,
    Cancelling,
    Cancelled,
}

impl BatchState {
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Failed | Self::Completed | Self::Expired | Self::Cancelled)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub total: u64,
    pub completed: u64,
    pub failed: u64,
}

/// A place in a file: between two of its lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cursor {
    /// The part of the file, and the byte in it.
    pub part: u32,
    pub offset: u32,
    /// Lines before it.
    pub line: u64,
}

/// A segment whose frames are in the bulk lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenSegment {
    pub number: u32,
    pub frames: Vec<Place>,
}

/// A file of requests. Times are milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    pub id: Token,
    pub tenant: Box<str>,
    /// Whose rights its lines have: those of the caller who created it.
    pub role: Box<str>,
    #[serde(default)]
    pub key: Option<Box<str>>,
    #[serde(default)]
    pub scope: Option<Scope>,
    pub op: Operation,
    pub input: Token,
    /// As the caller wrote it.
    pub window: Box<str>,
    #[serde(default)]
    pub metadata: BTreeMap<Box<str>, Box<str>>,
    /// What two submissions under one `Idempotency-Key` must have in common: a hash of the body.
    #[serde(default, with = "serde_bytes")]
    pub fingerprint: Vec<u8>,
    pub state: BatchState,
    pub created_ms: u64,
    pub expires_ms: u64,
    #[serde(default)]
    pub in_progress_ms: Option<u64>,
    #[serde(default)]
    pub finalizing_ms: Option<u64>,
    #[serde(default)]
    pub cancelling_ms: Option<u64>,
    /// When it reached its terminal state.
    #[serde(default)]
    pub ended_ms: Option<u64>,
    /// Why the whole batch failed.
    #[serde(default)]
    pub failure: Option<Box<Failure>>,
    pub counts: Counts,
    /// The lease under which it is driven, by its revision: under an earlier one nothing may be written any more.
    #[serde(default)]
    pub driver: u64,
    /// Segments whose lines all have their outcome, written to the files: they are the first ones, in order.
    pub settled: u32,
    /// Where the first of the others begins.
    pub cursor: Cursor,
    /// Those of the others that are in the lane.
    #[serde(default)]
    pub open: Vec<OpenSegment>,
    #[serde(default)]
    pub output: Option<Written>,
    #[serde(default)]
    pub errors: Option<Written>,
    /// Its tenant has been told of its end, where they want to be.
    #[serde(default)]
    pub notified: bool,
    /// Tokens used by its lines.
    #[serde(default)]
    pub input_tokens: u64,
    #[serde(default)]
    pub output_tokens: u64,
}

/// A file that grows part by part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    pub file: Token,
    pub parts: u32,
    pub bytes: u64,
    pub lines: u64,
}

impl Kept for Batch {
    const BUCKET: Bucket = Bucket::Batches;

    fn tenant(&self) -> &str {
        &self.tenant
    }

    fn id(&self) -> &Token {
        &self.id
    }
}
