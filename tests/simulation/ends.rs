//! core: how the executions of a worker end: answered, or put on record, and reported.

use crate::faults::Row;
use crate::happening::Happening;
use crate::mutations::Mutation;
use crate::spec::{piece, whole};
use crate::tasks::Process;
use crate::world::World;
use bytes::Bytes;
use shared::broker::Broker;
use shared::domain::NodeId;
use shared::error::{Code, Failure};
use shared::jobs::{self, Commit, Outcome};
use shared::wire::{Fault, ItemDone, ItemEnd, Reply, ReplyHead, ToIngress, ToScheduler, Usage};
use std::sync::Arc;
use workers::simulated::{BackendError, Job, Report};

/// An answer, or why there is none.
pub(crate) type End = Result<(), Why>;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Why {
    code: Code,
    /// What went wrong at the backend, if that is why.
    fault: Option<Fault>,
}

impl Why {
    pub(crate) const LATE: Self = Self::here(Code::DeadlineExceeded);

    pub(crate) const fn here(code: Code) -> Self {
        Self { code, fault: None }
    }

    pub(crate) fn of(error: &BackendError, has_begun: bool) -> Self {
        let code = if has_begun { Code::StreamInterrupted } else { error.failure.code };
        Self { code, fault: Some(error.fault) }
    }
}

impl World {
    /// Each caller gets their own; the call's end is reported first.
    pub(crate) fn end_some(&mut self, n: usize, number: u64, ends: &[(usize, End)]) {
        let call = &self.workers[n].calls[&number];
        let (spoken, of_call) = (call.spoken, call.jobs.clone());
        let interactive = || ends.iter().map(|(at, end)| (&of_call[*at], *end)).filter(|(job, _)| !job.is_deferred());
        self.done(n, interactive().map(ended));
        for (job, end) in interactive().filter(|(job, _)| !job.is_cancelled()) {
            match end {
                Ok(()) => self.write_out(n, job, spoken),
                Err(why) => {
                    let failure = Some(Box::new(Failure::new(why.code, "It broke")));
                    self.reply(n, job, Reply { last: true, failure, ..reply(job, spoken) }, &Bytes::new());
                }
            }
        }
        self.conclude(n, number, ends);
    }

    /// The answer, or what is left of its stream, in two parts.
    fn write_out(&mut self, n: usize, job: &Job, spoken: u32) {
        let rest = &job.body[spoken as usize * (job.body.len() / 3)..];
        let (first, second) = rest.split_at(rest.len() / 2);
        let begun = Reply { head: head(&self.workers[n].id, spoken).filter(|_| job.envelope.stream), ..reply(job, spoken) };
        self.reply(n, job, begun, &piece(job.exec, first));
        let usage = Some(usage(job, ItemEnd::Answered));
        self.reply(n, job, Reply { last: true, usage, ..reply(job, spoken + 1) }, &piece(job.exec, second));
    }

    /// Puts the outcomes of deferred requests on record, before anybody hears that they have ended.
    fn conclude(&mut self, n: usize, number: u64, ends: &[(usize, End)]) {
        let of_call = self.workers[n].calls[&number].jobs.clone();
        let deferred: Vec<(usize, End)> = ends.iter().filter(|(at, _)| of_call[*at].is_deferred()).copied().collect();
        if deferred.is_empty() {
            return self.next_group(n, number);
        }
        self.free(n, deferred.iter().map(|(at, end)| ended((&of_call[*at], *end))));
        let going = deferred.iter().filter(|(at, _)| !of_call[*at].is_cancelled());
        let commits: Vec<Commit> = going.map(|(at, end)| commit(&of_call[*at], *end)).collect();
        self.workers[n].calls.get_mut(&number).expect("looked up a moment ago").commits(deferred);
        if self.has(Mutation::DoneBeforeRecorded) {
            self.committed(n, number);
        }
        let (broker, overwrites) = (Arc::clone(&self.broker), self.has(Mutation::LastOutcomeCounts));
        self.begin(Process::Worker(n), async move {
            if overwrites {
                overwrite(broker.as_ref(), &commits).await;
            }
            jobs::commit(broker.as_ref(), commits).await;
            Happening::Committed { worker: n, call: number }
        });
    }

    pub(crate) fn committed(&mut self, n: usize, number: u64) {
        let Some(call) = self.workers[n].calls.get(&number) else { return };
        let Some(ends) = call.committing() else { return };
        let of_call: Vec<(Job, End)> = ends.iter().map(|(at, end)| (call.jobs[*at].clone(), *end)).collect();
        self.done(n, of_call.iter().map(|(job, end)| ended((job, *end))));
        self.next_group(n, number);
    }

    /// Executions have ended: frees their places, and tells each owner.
    pub(crate) fn done<'a>(&mut self, n: usize, ended: impl IntoIterator<Item = Ended<'a>>) {
        let mut told = Told::default();
        for (job, end, fault) in ended {
            if let Some(entry) = self.workers[n].table.end(job.id, job.exec) {
                told.add(entry.reports, item(job, end, fault));
            }
        }
        let (worker, model) = (self.workers[n].id.clone(), self.model.clone());
        for (Report { scheduler, batch }, items) in told.0 {
            self.report(&scheduler, &ToScheduler::Done { worker: worker.clone(), model: model.clone(), batch, items });
        }
    }

    /// The calls of deferred executions have ended, and their outcomes go on record now: their places are free already.
    fn free<'a>(&mut self, n: usize, ended: impl IntoIterator<Item = Ended<'a>>) {
        let mut told = Told::default();
        for (job, end, fault) in ended {
            if let Some((_, reports)) = self.workers[n].table.free(job.id, job.exec) {
                told.add(reports, item(job, end, fault));
            }
        }
        let (worker, model) = (self.workers[n].id.clone(), self.model.clone());
        for (Report { scheduler, batch }, items) in told.0 {
            self.report(&scheduler, &ToScheduler::Freed { worker: worker.clone(), model: model.clone(), batch, items });
        }
    }

    pub(crate) fn reply(&mut self, n: usize, job: &Job, reply: Reply, body: &Bytes) {
        if job.envelope.stream && reply.part > 0 {
            self.workers[n].spoken.keep(&job.envelope.ingress, &reply, body, self.now);
        }
        self.post_reply(&job.envelope.ingress, reply, body);
    }

    pub(crate) fn post_reply(&mut self, ingress: &NodeId, reply: Reply, body: &Bytes) {
        let message = ToIngress::Reply(reply);
        self.send(Row::Reply, || Happening::ToIngress { ingress: ingress.clone(), message: message.clone(), body: body.clone() });
    }
}

/// How an execution ended, as its owner is told.
type Ended<'a> = (&'a Job, ItemEnd, Option<Fault>);

fn ended((job, end): (&Job, End)) -> Ended<'_> {
    (job, item_end(job, end), end.err().and_then(|why| why.fault))
}

fn item_end(job: &Job, end: End) -> ItemEnd {
    match end {
        _ if job.is_cancelled() => ItemEnd::Cancelled,
        Ok(()) => ItemEnd::Answered,
        Err(_) => ItemEnd::Failed,
    }
}

pub(crate) fn commit(job: &Job, end: End) -> Commit {
    let of = job.envelope.job.as_deref().expect("a deferred request").clone();
    let failure = end.err().map(|why| Box::new(Failure::new(why.code, "It broke")));
    let body = if failure.is_none() { whole(job.exec, &job.body) } else { Bytes::new() };
    let outcome = Outcome { row: of.row, id: job.id, exec: Some(job.exec), failure, usage: usage(job, item_end(job, end)), blob: None };
    Commit { tenant: job.envelope.tenant.clone(), of, outcome, body }
}

/// What each owner is told of each of its batches.
#[derive(Default)]
struct Told(Vec<(Report, Vec<ItemDone>)>);

impl Told {
    fn add(&mut self, reports: Vec<Report>, item: ItemDone) {
        for report in reports {
            match self.0.iter_mut().find(|(known, _)| *known == report) {
                Some((_, items)) => items.push(item),
                None => self.0.push((report, vec![item])),
            }
        }
    }
}

fn item(job: &Job, end: ItemEnd, fault: Option<Fault>) -> ItemDone {
    ItemDone { id: job.id, end, usage: usage(job, end), fault }
}

/// Whatever a job has come to, it runs again.
async fn overwrite(broker: &dyn Broker, commits: &[Commit]) {
    for Commit { tenant, of, .. } in commits.iter().filter(|commit| !commit.of.line) {
        let anew = |job: &mut shared::jobs::Job| {
            job.state = shared::jobs::State::Running;
            true
        };
        let _ = jobs::change(broker, tenant, &of.job, anew).await; // There is one, or there is none.
    }
}

/// With part 0: this worker keeps what comes behind it.
pub(crate) fn head(worker: &NodeId, part: u32) -> Option<Box<ReplyHead>> {
    (part == 0).then(|| Box::new(ReplyHead { keeper: Some(worker.clone()), ..Default::default() }))
}

pub(crate) const fn reply(job: &Job, part: u32) -> Reply {
    Reply { id: job.id, exec: Some(job.exec), part, last: false, head: None, failure: None, usage: None }
}

fn usage(job: &Job, end: ItemEnd) -> Usage {
    match end {
        ItemEnd::Answered => Usage { input: job.envelope.tokens_in, output: job.envelope.tokens_out },
        ItemEnd::Failed | ItemEnd::Cancelled => Usage::default(),
    }
}
