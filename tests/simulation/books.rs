//! core: what an owner has been told of its workers: the books by which its dispatches are judged.

use scheduler::engine::{Event, HEARTBEAT_STALE, Returned};
use shared::clock::Time;
use shared::domain::{BatchId, NodeId, RequestId};
use shared::wire::{BackendCredit, Running};
use std::collections::BTreeMap;

#[derive(Default)]
pub(crate) struct Books {
    /// When each worker was last heard, and what it takes.
    workers: BTreeMap<NodeId, (Time, Vec<BackendCredit>)>,
    /// Batches of which nothing has been heard.
    sent: BTreeMap<BatchId, (NodeId, Vec<RequestId>)>,
    /// What workers have accepted, and not ended.
    had: Vec<(RequestId, BatchId, NodeId)>,
}

impl Books {
    pub(crate) fn sent(&mut self, batch: BatchId, worker: NodeId, ids: &[RequestId]) {
        self.sent.insert(batch, (worker, ids.to_vec()));
    }

    /// Nobody answers any more for what a worker had that is silent.
    pub(crate) fn drop_silent(&mut self, now: Time) {
        let silent = self.workers.iter().filter(|(_, (seen, _))| now.since(*seen) >= HEARTBEAT_STALE);
        let silent: Vec<NodeId> = silent.map(|(id, _)| id.clone()).collect();
        silent.iter().for_each(|worker| self.drop_worker(worker));
    }

    pub(crate) fn note(&mut self, now: Time, event: &Event) {
        match event {
            Event::Accepted { batch, .. } => self.accepted(*batch),
            Event::Refused { batch, .. } => drop(self.sent.remove(batch)),
            Event::Freed { batch, items, .. } | Event::Done { batch, items, .. } => self.ended(*batch, items.iter().map(|item| item.id)),
            Event::Returned(returned) => self.ended(returned.batch, returned.items.iter().map(|item| item.id)),
            Event::Heartbeat { worker, backends, running } => {
                self.workers.insert(worker.clone(), (now, backends.clone()));
                self.listed(worker, running);
            }
            Event::WorkerLeft(worker) => self.drop_worker(worker),
            _ => {}
        }
    }

    fn accepted(&mut self, batch: BatchId) {
        let Some((worker, ids)) = self.sent.remove(&batch) else { return };
        self.had.extend(ids.into_iter().map(|id| (id, batch, worker.clone())));
    }

    fn ended(&mut self, batch: BatchId, ids: impl Iterator<Item = RequestId>) {
        self.accepted(batch);
        for id in ids {
            self.had.retain(|(had, of, _)| (*had, *of) != (id, batch));
        }
    }

    /// A worker that lists a whole batch has it. What it does not list it has not, or no longer; of what it lists in part nothing is
    /// known.
    fn listed(&mut self, worker: &NodeId, running: &[Running]) {
        let is_listed = |id: &RequestId| running.iter().any(|run| run.id == *id);
        let is_whole = |(to, ids): &(NodeId, Vec<RequestId>)| to == worker && ids.iter().all(is_listed);
        let whole: Vec<BatchId> = self.sent.iter().filter(|(_, sent)| is_whole(sent)).map(|(batch, _)| *batch).collect();
        whole.into_iter().for_each(|batch| self.accepted(batch));
        self.sent.retain(|_, (to, ids)| to != worker || !ids.iter().any(is_listed));
        self.had.retain(|(id, _, by)| by != worker || is_listed(id));
    }

    fn drop_worker(&mut self, worker: &NodeId) {
        self.workers.remove(worker);
        self.sent.retain(|_, (to, _)| to != worker);
        self.had.retain(|(.., by)| by != worker);
    }

    /// # Panics
    /// When the worker has not offered to take that, or a worker is known to have some of it.
    pub(crate) fn check_dispatch(&self, worker: &NodeId, backend: &str, ids: &[RequestId]) {
        let (_, backends) = self.workers.get(worker).unwrap_or_else(|| panic!("dispatched to {worker}, which is silent"));
        let credit = backends.iter().find(|credit| &*credit.name == backend).expect("a backend that was announced");
        assert!(credit.concurrency > 0, "dispatched to {worker}, which takes nothing");
        let known = self.had.iter().find(|(id, ..)| ids.contains(id));
        assert!(known.is_none(), "dispatched to {worker} though a worker is known to have it: {known:?}");
    }

    /// What was given back by one, as if all who have it had given it back.
    pub(crate) fn by_all(&self, events: &[Event]) -> Vec<Event> {
        let returned = events.iter().filter_map(|event| if let Event::Returned(returned) = event { Some(returned) } else { None });
        let items = returned.flat_map(|returned| returned.items.iter().map(move |item| (returned, item)));
        let by = items.flat_map(|(returned, item)| {
            let others = self.had.iter().filter(move |(id, ..)| *id == item.id);
            others.map(move |(_, batch, worker)| (worker.clone(), *batch, item.clone(), returned))
        });
        by.map(|(worker, batch, item, of)| Event::Returned(Box::new(Returned { worker, batch, items: vec![item], ..(**of).clone() })))
            .collect()
    }
}
