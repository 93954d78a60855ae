//! core: what streams have said lately, to be said again: core NATS may lose a part, and once a caller has a byte of a stream no
//! other execution can take over.
//!
//! One queue of all parts in the order they were sent. The oldest goes first, whosesoever it is, so that under any load every
//! stream can repeat the same last seconds. Part 0 need not be kept: it says who keeps the rest, and an ingress that has missed it
//! leaves the request to another execution.

use bytes::Bytes;
use foldhash::HashMap;
use shared::clock::Time;
use shared::domain::{ExecId, NodeId};
use shared::wire::Reply;
use std::collections::VecDeque;
use std::time::Duration;

/// Bytes of all streams: some seconds of ten thousand tokens a second.
const BYTES_MAX: usize = 32 * 1024 * 1024;

/// Bytes of one stream: half of what an ingress lets wait for a caller, so that all of it fits when it comes again at once.
const STREAM_BYTES_MAX: usize = 128 * 1024;

/// What a part is counted for beside its bytes: about what remembering it costs.
const PART_BYTES: usize = 256;

/// A missing part is noticed with the next one, or 1.25 s after its stream has ended: this is time enough for a model that pauses.
const KEPT_FOR: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub struct Spoken {
    streams: HashMap<ExecId, Stream>,
    /// Every part, oldest first. Some have gone before their turn, with [`STREAM_BYTES_MAX`].
    order: VecDeque<(Time, ExecId, u32)>,
    /// Of all bodies.
    bytes: usize,
}

#[derive(Debug)]
struct Stream {
    ingress: NodeId,
    /// Their numbers follow each other.
    parts: VecDeque<(Reply, Bytes)>,
    bytes: usize,
}

impl Spoken {
    /// A part of a stream is about to be sent.
    pub fn keep(&mut self, ingress: &NodeId, reply: &Reply, body: &Bytes, now: Time) {
        let Some(exec) = reply.exec else { return };
        let anew = || Stream { ingress: ingress.clone(), parts: VecDeque::new(), bytes: 0 };
        let stream = self.streams.entry(exec).or_insert_with(anew);
        let before = stream.bytes;
        stream.push(reply.clone(), body.clone());
        self.bytes = self.bytes + stream.bytes - before;
        self.order.push_back((now, exec, reply.part));
        self.forget(now);
    }

    /// The parts of a stream from this one on, each with where it went. Nothing if that one has gone: without it the rest would
    /// not be heard.
    pub fn since(&self, exec: ExecId, from: u32) -> Vec<(NodeId, Reply, Bytes)> {
        let Some(stream) = self.streams.get(&exec) else { return Vec::new() };
        let first = stream.parts.front().map(|(reply, _)| reply.part);
        let Some(before) = first.and_then(|first| from.checked_sub(first)) else { return Vec::new() };
        let parts = stream.parts.iter().skip(before as usize);
        parts.map(|(reply, body)| (stream.ingress.clone(), reply.clone(), body.clone())).collect()
    }

    /// Drops what is too old, and what is too much.
    pub fn forget(&mut self, now: Time) {
        while let Some((at, exec, part)) = self.order.front().copied() {
            if now.since(at) < KEPT_FOR && self.bytes + self.order.len() * PART_BYTES <= BYTES_MAX {
                return;
            }
            self.order.pop_front();
            self.drop_part(exec, part);
        }
    }

    fn drop_part(&mut self, exec: ExecId, part: u32) {
        let Some(stream) = self.streams.get_mut(&exec) else { return };
        if stream.parts.front().is_some_and(|(reply, _)| reply.part == part) {
            self.bytes -= stream.pop();
        }
        if stream.parts.is_empty() {
            self.streams.remove(&exec);
        }
    }
}

impl Stream {
    fn push(&mut self, reply: Reply, body: Bytes) {
        self.bytes += body.len();
        self.parts.push_back((reply, body));
        while self.bytes > STREAM_BYTES_MAX {
            self.pop();
        }
    }

    /// Drops the oldest part. Returns its bytes.
    fn pop(&mut self) -> usize {
        let bytes = self.parts.pop_front().map_or(0, |(_, body)| body.len());
        self.bytes -= bytes;
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::entropy::{exec_id, request_id};

    fn keep(spoken: &mut Spoken, exec: ExecId, part: u32, bytes: usize, now: Time) {
        let reply = Reply { id: request_id(), exec: Some(exec), part, last: false, head: None, failure: None, usage: None };
        spoken.keep(&NodeId::parse("i").unwrap(), &reply, &Bytes::from(vec![b'x'; bytes]), now);
    }

    fn since(spoken: &Spoken, exec: ExecId, from: u32) -> Vec<u32> {
        spoken.since(exec, from).into_iter().map(|(_, reply, _)| reply.part).collect()
    }

    fn assert_empty(spoken: &Spoken) {
        assert!(spoken.streams.is_empty() && spoken.order.is_empty() && spoken.bytes == 0, "{spoken:?}");
    }

    #[test]
    fn a_stream_is_repeated_from_any_part_that_is_here() {
        let (mut spoken, exec, other) = (Spoken::default(), exec_id(), exec_id());
        for part in 1..=4 {
            keep(&mut spoken, exec, part, 10, Time::ZERO);
            keep(&mut spoken, other, part, 10, Time::ZERO);
        }
        assert_eq!(since(&spoken, exec, 3), [3, 4]);
        assert_eq!(since(&spoken, exec, 1), [1, 2, 3, 4]);
        assert!(since(&spoken, exec, 0).is_empty(), "part 0 is not kept");
        assert!(since(&spoken, exec, 5).is_empty(), "it has not been said");
        assert!(since(&spoken, exec_id(), 1).is_empty());
    }

    #[test]
    fn parts_go_when_their_time_is_up() {
        let (mut spoken, exec) = (Spoken::default(), exec_id());
        keep(&mut spoken, exec, 1, 10, Time::ZERO);
        keep(&mut spoken, exec, 2, 10, Time::from_millis(1));
        spoken.forget(Time::ZERO + KEPT_FOR);
        assert!(since(&spoken, exec, 1).is_empty(), "its beginning is missing");
        assert_eq!(since(&spoken, exec, 2), [2]);
        spoken.forget(Time::from_millis(1) + KEPT_FOR);
        assert_empty(&spoken);
    }

    #[test]
    fn a_long_stream_keeps_its_latest_parts() {
        let (mut spoken, exec) = (Spoken::default(), exec_id());
        for part in 1..=5 {
            keep(&mut spoken, exec, part, STREAM_BYTES_MAX / 4, Time::ZERO);
        }
        assert_eq!(since(&spoken, exec, 2), [2, 3, 4, 5]);
        assert!(since(&spoken, exec, 1).is_empty());
        keep(&mut spoken, exec, 6, STREAM_BYTES_MAX + 1, Time::ZERO);
        assert!(since(&spoken, exec, 6).is_empty(), "a part too large is not kept");
        spoken.forget(Time::ZERO + KEPT_FOR);
        assert_empty(&spoken);
    }

    #[test]
    fn the_oldest_parts_of_all_streams_go_first() {
        let mut spoken = Spoken::default();
        let execs: Vec<ExecId> = (0..=BYTES_MAX / STREAM_BYTES_MAX).map(|_| exec_id()).collect();
        for part in 1..=4 {
            execs.iter().for_each(|exec| keep(&mut spoken, *exec, part, STREAM_BYTES_MAX / 4, Time::ZERO));
        }
        assert!(spoken.bytes + spoken.order.len() * PART_BYTES <= BYTES_MAX);
        assert!(since(&spoken, execs[0], 1).is_empty());
        assert_eq!(since(&spoken, execs[0], 2), [2, 3, 4], "its later parts are as new as anybody's");
        assert_eq!(since(&spoken, execs[execs.len() - 1], 1), [1, 2, 3, 4]);
    }

    #[test]
    fn parts_without_bytes_are_bounded_too() {
        let (mut spoken, exec) = (Spoken::default(), exec_id());
        (1..300_000).for_each(|part| keep(&mut spoken, exec, part, 0, Time::ZERO));
        assert_eq!(spoken.order.len(), BYTES_MAX / PART_BYTES);
        assert_eq!(spoken.streams[&exec].parts.len(), BYTES_MAX / PART_BYTES);
    }
}
