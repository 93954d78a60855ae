//! core: the log of a streamed job, as the events it holds. Each has the number of its place in the whole log, whichever execution wrote
//! it: so a number means the same to every reader, and none is used again by an execution that took another's place.

use bytes::{Bytes, BytesMut};
use memchr::memmem;
use shared::domain::ExecId;
use shared::jobs::Piece;
use std::collections::HashMap;

/// What every event ends with, and none holds within.
const END: &[u8] = b"\n\n";

/// An event as it is passed on, its end included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Numbered {
    pub(crate) number: u64,
    pub(crate) frame: Bytes,
}

/// One execution's part of the log: as many as a job has attempts, which are few.
#[derive(Debug, Default)]
struct Attempt {
    pieces: u32,
    /// The beginning of an event whose end is in the next piece.
    begun: BytesMut,
}

#[derive(Debug, Default)]
pub(crate) struct Reel {
    attempts: HashMap<ExecId, Attempt>,
    next: u64,
}

impl Reel {
    /// The number of the next event.
    pub(crate) const fn next(&self) -> u64 {
        self.next
    }

    /// The events that end in this piece. A piece that was here before holds none.
    pub(crate) fn hear(&mut self, piece: Piece, bytes: &Bytes) -> Vec<Numbered> {
        let attempt = self.attempts.entry(piece.exec).or_default();
        if piece.number != attempt.pieces {
            return Vec::new();
        }
        attempt.pieces += 1;
        let (mut events, mut start) = (Vec::new(), 0);
        // An end may begin in one piece and be completed by the next.
        let joined = if attempt.begun.is_empty() { bytes.clone() } else { joined(&mut attempt.begun, bytes) };
        for at in memmem::find_iter(&joined, END) {
            events.push(Numbered { number: self.next, frame: joined.slice(start..at + END.len()) });
            (start, self.next) = (at + END.len(), self.next + 1);
        }
        attempt.begun.extend_from_slice(&joined[start..]);
        events
    }
}

fn joined(begun: &mut BytesMut, bytes: &[u8]) -> Bytes {
    begun.extend_from_slice(bytes);
    begun.split().freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::entropy;

    fn hear(reel: &mut Reel, exec: ExecId, number: u32, text: &'static str) -> Vec<(u64, String)> {
        let events = reel.hear(Piece { exec, number, last: false }, &Bytes::from_static(text.as_bytes()));
        events.into_iter().map(|event| (event.number, String::from_utf8(event.frame.to_vec()).unwrap())).collect()
    }

    #[test]
    fn events_are_whole_however_the_pieces_are_cut() {
        let (mut reel, exec) = (Reel::default(), entropy::exec_id());
        assert_eq!(hear(&mut reel, exec, 0, "data: a\n\ndata: b\n"), [(0, "data: a\n\n".into())]);
        assert_eq!(hear(&mut reel, exec, 1, "\ndata"), [(1, "data: b\n\n".into())]);
        assert!(hear(&mut reel, exec, 2, ": c").is_empty());
        assert_eq!(hear(&mut reel, exec, 3, "\n\n"), [(2, "data: c\n\n".into())]);
    }

    #[test]
    fn numbers_go_on_from_attempt_to_attempt_and_their_bytes_never_mix() {
        let (mut reel, one, two) = (Reel::default(), entropy::exec_id(), entropy::exec_id());
        assert_eq!(hear(&mut reel, one, 0, "data: a\n\ndata: b"), [(0, "data: a\n\n".into())]);
        assert_eq!(hear(&mut reel, two, 0, "data: x\n\n"), [(1, "data: x\n\n".into())]);
        assert_eq!(hear(&mut reel, one, 1, "\n\n"), [(2, "data: b\n\n".into())]);
        assert_eq!(reel.next(), 3);
    }

    #[test]
    fn a_piece_that_was_stored_twice_counts_once() {
        let (mut reel, exec) = (Reel::default(), entropy::exec_id());
        assert_eq!(hear(&mut reel, exec, 0, "data: a\n\n").len(), 1);
        assert!(hear(&mut reel, exec, 0, "data: a\n\n").is_empty());
        assert_eq!(hear(&mut reel, exec, 1, "data: b\n\n"), [(1, "data: b\n\n".into())]);
    }
}
