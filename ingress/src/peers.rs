//! core: which workers live, by their heartbeats.

use bytes::Bytes;
use shared::clock::Time;
use shared::domain::NodeId;
use shared::hear::messages;
use shared::wire::Heartbeat;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A worker that has been silent for this long is gone.
const GONE_AFTER: Duration = Duration::from_secs(5);

/// Workers remembered at once; beyond any cluster this is for.
const WORKERS_MAX: usize = 4_096;

#[derive(Debug, Default)]
pub(crate) struct Peers(Mutex<HashMap<NodeId, Time>>);

impl Peers {
    /// Takes in a frame of heartbeats.
    pub(crate) fn hear_frame(&self, frame: &Bytes, now: Time) {
        messages(frame).into_iter().for_each(|(beat, _)| self.hear(beat, now));
    }

    fn hear(&self, beat: Heartbeat, now: Time) {
        let mut workers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match beat {
            Heartbeat::Worker { id, .. } => {
                workers.retain(|_, heard| is_alive(*heard, now));
                if workers.len() < WORKERS_MAX {
                    workers.insert(id, now);
                }
            }
            Heartbeat::Leaving { id } => drop(workers.remove(&id)),
            Heartbeat::Scheduler { .. } | Heartbeat::Ingress { .. } | Heartbeat::Probe { .. } => {}
        }
    }

    pub(crate) fn has_worker(&self, now: Time) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().any(|heard| is_alive(*heard, now))
    }
}

fn is_alive(heard: Time, now: Time) -> bool {
    now.since(heard) < GONE_AFTER
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> NodeId {
        NodeId::parse("worker-1").unwrap()
    }

    #[test]
    fn a_worker_is_there_until_it_falls_silent() {
        let peers = Peers::default();
        assert!(!peers.has_worker(Time::ZERO));
        peers.hear(Heartbeat::Worker { id: id(), models: Vec::new() }, Time::ZERO);
        assert!(peers.has_worker(Time::from_millis(4_999)));
        assert!(!peers.has_worker(Time::from_millis(5_000)));
    }

    #[test]
    fn a_worker_that_says_it_leaves_is_gone_at_once() {
        let peers = Peers::default();
        peers.hear(Heartbeat::Worker { id: id(), models: Vec::new() }, Time::ZERO);
        peers.hear(Heartbeat::Leaving { id: id() }, Time::ZERO);
        assert!(!peers.has_worker(Time::ZERO));
    }
}
