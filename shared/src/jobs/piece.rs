//! edge: the log of a streamed job: its answer's events, as each execution wrote them, in the journal of results. They stay as
//! long as the job, so whoever reads may come late, leave, and come again elsewhere.

use super::outcome::insist;
use crate::broker::{Broker, BrokerError, Journal, Topic};
use crate::domain::{ExecId, Token};
use crate::wire::{decode, encode_one};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Bytes of one piece, so that it fits an entry with its head.
pub const PIECE_BYTES_MAX: usize = 512 * 1024;

/// Some bytes of the events of one execution. They may begin and end within an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    pub exec: ExecId,
    /// From 0, without a gap. The same number again is the same piece.
    pub number: u32,
    /// With it the execution has written all.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub last: bool,
}

/// Where the log of a single job is.
pub fn log_topic(job: &Token) -> Topic {
    Topic::of(&[job, &Token::parse("log").expect("a token")])
}

/// Adds a piece to a log, however long the broker is away or full.
///
/// # Errors
/// Those that waiting does not mend.
pub async fn log(broker: &dyn Broker, topic: &Topic, piece: Piece, bytes: &[u8]) -> Result<(), BrokerError> {
    let (message_id, entry) = (format!("{}.{}", piece.exec.0.simple(), piece.number), encode_one(&piece, bytes));
    insist(|| broker.append(Journal::Results, topic, &message_id, entry.clone())).await.map(drop)
}

/// The piece of an entry; none where it cannot be read.
pub fn read_piece(entry: &Bytes) -> Option<(Piece, Bytes)> {
    let part = decode(entry).ok()?.into_iter().next()?;
    Some((part.decode().ok()?, part.body))
}
