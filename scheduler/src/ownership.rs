//! core: which models a scheduler should hold, given who else is there.
//!
//! Every scheduler takes its even share of the models and leaves the rest to the others; the leases decide races. A
//! scheduler that finds itself with more than its share lets one go at a time.

use shared::clock::Time;
use shared::domain::{NodeId, Token};
use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// A peer silent this long does not count. Less than a lease's life, so that its models are sought the moment they are free.
const PEER_SILENT: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(crate) struct Peers {
    me: NodeId,
    heard: HashMap<NodeId, (Time, HashSet<Token>)>,
}

/// What to do about the models this round.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Try for these leases, in this order.
    pub(crate) seek: Vec<Token>,
    /// Let this one go.
    pub(crate) release: Option<Token>,
}

impl Peers {
    pub(crate) fn new(me: NodeId) -> Self {
        Self { me, heard: HashMap::new() }
    }

    /// A scheduler's heartbeat; one's own comes back too, and is no peer's.
    pub(crate) fn heard(&mut self, now: Time, peer: NodeId, owns: Vec<Token>) {
        if peer != self.me {
            self.heard.insert(peer, (now, owns.into_iter().collect()));
        }
    }

    pub(crate) fn left(&mut self, peer: &NodeId) {
        self.heard.remove(peer);
    }

    pub(crate) fn plan(&mut self, now: Time, all: &[Token], owned: &HashSet<Token>) -> Plan {
        self.heard.retain(|_, (at, _)| now.since(*at) < PEER_SILENT);
        let share = all.len().div_ceil(self.heard.len() + 1);
        let is_theirs = |model: &Token| self.heard.values().any(|(_, owns)| owns.contains(model));
        let free = all.iter().filter(|model| !owned.contains(*model) && !is_theirs(model));
        let seek = free.take(share.saturating_sub(owned.len())).cloned().collect();
        let release = (owned.len() > share).then(|| all.iter().rev().find(|model| owned.contains(*model)).cloned()).flatten();
        Plan { seek, release }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn models(n: usize) -> Vec<Token> {
        (0..n).map(|i| Token::parse(&format!("m{i}")).unwrap()).collect()
    }

    fn peers() -> Peers {
        Peers::new(node("a"))
    }

    fn node(name: &str) -> NodeId {
        NodeId::parse(name).unwrap()
    }

    #[test]
    fn alone_it_takes_everything() {
        let all = models(5);
        let mut peers = peers();
        peers.heard(Time::ZERO, node("a"), all[..2].to_vec());
        let plan = peers.plan(Time::ZERO, &all, &HashSet::new());
        assert_eq!(plan, Plan { seek: all, release: None });
    }

    #[test]
    fn beside_a_peer_it_takes_its_half_and_not_the_peers() {
        let all = models(4);
        let mut peers = peers();
        peers.heard(Time::ZERO, node("b"), all[..2].to_vec());
        let plan = peers.plan(Time::ZERO, &all, &HashSet::new());
        assert_eq!(plan.seek, all[2..]);
    }

    #[test]
    fn with_more_than_its_share_it_lets_one_go_at_a_time() {
        let all = models(4);
        let mut peers = peers();
        peers.heard(Time::ZERO, node("b"), Vec::new());
        let owned = all.iter().cloned().collect();
        let plan = peers.plan(Time::ZERO, &all, &owned);
        assert_eq!(plan, Plan { seek: Vec::new(), release: Some(all[3].clone()) });
    }

    #[test]
    fn a_silent_peers_models_are_sought() {
        let all = models(4);
        let mut peers = peers();
        peers.heard(Time::ZERO, node("b"), all[..2].to_vec());
        let owned = all[2..].iter().cloned().collect();
        let plan = peers.plan(Time::ZERO + PEER_SILENT, &all, &owned);
        assert_eq!(plan.seek, all[..2]);
    }
}
