//! core: is a body sound? Typed views of the few fields that are read; everything else passes through as raw JSON.

mod depth;
mod embedding;
mod generation;
mod members;

pub(crate) use embedding::embedding;
pub(crate) use generation::generation;

use shared::error::{Code, Failure};

fn missing(name: &str) -> Failure {
    Failure::new(Code::MissingParameter, format!("`{name}` is required: add it to the body")).param(name)
}

fn invalid(name: &str, expected: &str) -> Failure {
    Failure::new(Code::InvalidValue, format!("`{name}` must be {expected}")).param(name)
}

/// The length of a body, which its limit keeps far below 4 GiB.
pub(crate) fn bytes(body: &[u8]) -> u32 {
    u32::try_from(body.len()).unwrap_or(u32::MAX)
}
