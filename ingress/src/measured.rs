//! core: what the micro-benchmarks reach of this crate's inside. For them alone.

use crate::check;
use bytes::Bytes;
use shared::config::Limits;
use shared::domain::Operation;
use shared::error::Failure;
use std::hint::black_box;

/// Checks a chat body.
///
/// # Errors
/// What its caller would be told.
pub fn check_chat(body: &Bytes, limits: &Limits) -> Result<(), Failure> {
    check::generation(Operation::Chat, body, limits).map(|view| drop(black_box(view)))
}

/// Checks an embeddings body.
///
/// # Errors
/// What its caller would be told.
pub fn check_embedding(body: &Bytes, limits: &Limits) -> Result<(), Failure> {
    check::embedding(body, limits).map(|view| drop(black_box(view)))
}
