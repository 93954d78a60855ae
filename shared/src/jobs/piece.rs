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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::memory::MemoryBroker;
    use crate::broker::{Feed, Since};
    use crate::{entropy, jobs};
    use std::time::Duration;

    #[tokio::test]
    async fn a_piece_is_kept_once_apart_from_the_outcomes_and_goes_with_its_job() {
        let (broker, job, exec) = (MemoryBroker::new(), Token::parse("job_1").unwrap(), entropy::exec_id());
        let topic = log_topic(&job);
        for number in [0, 1, 1] {
            log(broker.as_ref(), &topic, Piece { exec, number, last: number == 1 }, b"data: a\n\n").await.unwrap();
        }
        let feed = Feed::Journal(Journal::Results, Some(topic));
        let mut follower = broker.follow(&feed, Since::Start).await.unwrap();
        let mut pieces = Vec::new();
        while let Some(entry) = follower.next(Duration::ZERO).await.unwrap() {
            pieces.push(read_piece(&entry.value.unwrap()).unwrap());
        }
        let piece = |number, last| (Piece { exec, number, last }, Bytes::from_static(b"data: a\n\n"));
        assert_eq!(pieces, [piece(0, false), piece(1, true)]);
        assert!(jobs::outcomes(broker.as_ref(), &jobs::topic(&job, 0)).await.unwrap().is_empty());
        broker.erase(Journal::Results, &Topic::from(job), None).await.unwrap();
        let mut follower = broker.follow(&feed, Since::Start).await.unwrap();
        assert_eq!(follower.next(Duration::ZERO).await, Ok(None));
    }
}
