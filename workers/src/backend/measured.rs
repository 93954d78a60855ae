//! core: what the micro-benchmarks reach of this module's inside. For them alone.

use super::sse::{Item, Parser};
use super::{BackendError, Embedded, embeddings};
use bytes::Bytes;
use std::hint::black_box;

/// How many events a stream that comes in these pieces has; each is made and dropped.
///
/// # Panics
/// On an event that is too large.
pub fn parse_events(pieces: &[Bytes]) -> usize {
    let (mut parser, mut events) = (Parser::default(), 0);
    for piece in pieces {
        parser.push(piece);
        while let Some(item) = parser.next().expect("events of a benchmark are small") {
            events += usize::from(matches!(black_box(item), Item::Event(_)));
        }
    }
    events
}

/// Reads an embeddings answer.
///
/// # Errors
/// As `Backend::embed` judges an answer.
pub fn read_embeddings(json: &[u8], count: u32) -> Result<Embedded, BackendError> {
    embeddings::read(json, count)
}
