//! core: deferred requests whose call has ended and whose outcome is going on record. They hold no credit; their worker
//! answers for them until it says `done`, and if it is gone or no longer lists them before, they are run again.

use super::fleet::UNLISTED_AFTER;
use foldhash::HashSet;
use shared::clock::Time;
use shared::domain::{NodeId, RequestId};
use shared::wire::Running;
use std::collections::BTreeMap;

/// In order, so that the same events give the same actions.
#[derive(Debug, Default)]
pub(super) struct Recording(BTreeMap<RequestId, Open>);

#[derive(Debug)]
struct Open {
    worker: NodeId,
    since: Time,
}

impl Recording {
    pub(super) fn begin(&mut self, now: Time, worker: &NodeId, id: RequestId) {
        self.0.insert(id, Open { worker: worker.clone(), since: now });
    }

    pub(super) fn end(&mut self, id: RequestId) {
        self.0.remove(&id);
    }

    pub(super) fn contains(&self, id: RequestId) -> bool {
        self.0.contains_key(&id)
    }

    /// What the worker should still have and does not: it ended, and its `done` was lost.
    pub(super) fn unlisted(&mut self, now: Time, worker: &NodeId, running: &[Running]) -> Vec<RequestId> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let listed: HashSet<RequestId> = running.iter().map(|run| run.id).collect();
        self.take(|id, open| open.worker == *worker && now.since(open.since) >= UNLISTED_AFTER && !listed.contains(&id))
    }

    /// What a worker that is gone had.
    pub(super) fn left(&mut self, worker: &NodeId) -> Vec<RequestId> {
        self.take(|_, open| open.worker == *worker)
    }

    fn take(&mut self, is_lost: impl Fn(RequestId, &Open) -> bool) -> Vec<RequestId> {
        let lost: Vec<RequestId> = self.0.iter().filter(|(id, open)| is_lost(**id, open)).map(|(id, _)| *id).collect();
        lost.iter().for_each(|id| self.end(*id));
        lost
    }
}
