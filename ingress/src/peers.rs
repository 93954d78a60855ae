//! core: which workers and schedulers live, by their heartbeats.

use shared::clock::Time;
use shared::domain::NodeId;
use shared::wire::Heartbeat;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Who has been silent for this long is gone.
const GONE_AFTER: Duration = Duration::from_secs(5);

/// Workers, and schedulers, remembered at once; beyond any cluster this is for.
const NODES_MAX: usize = 4_096;

#[derive(Debug, Default)]
pub(crate) struct Peers(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    workers: Nodes,
    schedulers: Nodes,
}

/// When each was heard last.
type Nodes = HashMap<NodeId, Time>;

impl Peers {
    pub(crate) fn hear(&self, beat: Heartbeat, now: Time) {
        let mut known = self.known();
        match beat {
            Heartbeat::Worker { id, .. } => note(&mut known.workers, id, now),
            Heartbeat::Scheduler { id, .. } => note(&mut known.schedulers, id, now),
            Heartbeat::Leaving { id } => {
                known.workers.remove(&id);
                known.schedulers.remove(&id);
            }
            Heartbeat::Ingress { .. } | Heartbeat::Probe { .. } => {}
        }
    }

    pub(crate) fn has_worker(&self, now: Time) -> bool {
        self.known().workers.values().any(|heard| is_alive(*heard, now))
    }

    /// Those that live, in the order of their names.
    pub(crate) fn schedulers(&self, now: Time) -> Vec<NodeId> {
        let known = self.known();
        let live = known.schedulers.iter().filter(|(_, heard)| is_alive(**heard, now));
        let mut live: Vec<NodeId> = live.map(|(id, _)| id.clone()).collect();
        live.sort_unstable();
        live
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn note(nodes: &mut Nodes, id: NodeId, now: Time) {
    nodes.retain(|_, heard| is_alive(*heard, now));
    if nodes.len() < NODES_MAX {
        nodes.insert(id, now);
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
    fn schedulers_are_known_by_their_own_heartbeats() {
        let peers = Peers::default();
        peers.hear(Heartbeat::Worker { id: id(), models: Vec::new() }, Time::ZERO);
        for name in ["b", "a"] {
            peers.hear(Heartbeat::Scheduler { id: NodeId::parse(name).unwrap(), owns: Vec::new(), waits: Vec::new() }, Time::ZERO);
        }
        assert_eq!(peers.schedulers(Time::ZERO), ["a", "b"].map(|name| NodeId::parse(name).unwrap()));
        peers.hear(Heartbeat::Leaving { id: NodeId::parse("a").unwrap() }, Time::ZERO);
        assert_eq!(peers.schedulers(Time::ZERO).len(), 1);
        assert!(peers.schedulers(Time::from_millis(5_000)).is_empty());
    }

    #[test]
    fn a_worker_that_says_it_leaves_is_gone_at_once() {
        let peers = Peers::default();
        peers.hear(Heartbeat::Worker { id: id(), models: Vec::new() }, Time::ZERO);
        peers.hear(Heartbeat::Leaving { id: id() }, Time::ZERO);
        assert!(!peers.has_worker(Time::ZERO));
    }
}
