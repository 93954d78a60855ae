//! core: the calls that a worker makes for what it has accepted: begun on record, halved when one item may have spoilt them, answered
//! or put on record, and reported.

use crate::audit::{piece, whole};
use crate::faults::Row;
use crate::happening::Happening;
use crate::mutations::Mutation;
use crate::plan::Backend;
use crate::tasks::Process;
use crate::world::World;
use bytes::Bytes;
use futures::future::join_all;
use shared::broker::Broker;
use shared::domain::{ModelKind, NodeId, RequestId};
use shared::error::{Code, Failure};
use shared::jobs::{self, Commit, Outcome};
use shared::wire::{ItemDone, ItemEnd, Reply, ReplyHead, ToIngress, ToScheduler, Usage};
use std::ops::Range;
use std::sync::Arc;
use workers::simulated::{Begun, Groups, Job, Over, Report, Verdict, begin_one};

/// The executions that began together.
pub(crate) struct Call {
    backend: usize,
    jobs: Vec<Job>,
    groups: Groups<Broke>,
    state: State,
    /// Names the state: what was meant for an earlier one comes too late.
    turn: u64,
    /// Parts of a stream that have gone out.
    spoken: u32,
}

/// An answer, or why there is none.
type End = Result<(), Code>;

/// Why a call failed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Broke {
    /// The backend calls something in it wrong.
    Rejected,
    /// No item's fault, as far as the backend says.
    Down,
}

impl Verdict for Broke {
    fn may_be_one_requests(&self) -> bool {
        true
    }

    fn is_rejection(&self) -> bool {
        *self == Self::Rejected
    }
}

enum State {
    /// It is being put on record that they run.
    Beginning,
    Calling(Range<usize>),
    /// Their outcomes are being put on record.
    Committing(Vec<(usize, End)>),
}

impl Call {
    fn calling(&self) -> Option<&[Job]> {
        match &self.state {
            State::Calling(group) => Some(&self.jobs[group.clone()]),
            State::Beginning | State::Committing(_) => None,
        }
    }

    /// What is not called again after a call that broke, or did not.
    fn over(&mut self, broke: Option<Broke>) -> Vec<(usize, End)> {
        let over = match broke {
            Some(broke) => self.groups.failed(broke),
            None => self.groups.settled().into_iter().collect(),
        };
        over.into_iter().flat_map(|Over { ranges, .. }| ranges).flatten().map(|at| (at, Err(Code::BackendStatus))).collect()
    }
}

impl World {
    pub(crate) fn take_on(&mut self, n: usize, backend: usize, jobs: Vec<Job>) {
        let call = self.mint().as_u128() as u64;
        let (broker, begun) = (Arc::clone(&self.broker), jobs.clone());
        let groups = Groups::whole(0);
        self.workers[n].calls.insert(call, Call { backend, jobs, groups, state: State::Beginning, turn: 0, spoken: 0 });
        self.begin(Process::Worker(n), async move {
            let single = |job: &Job| job.envelope.job.as_ref().is_some_and(|of| !of.line);
            let broker = broker.as_ref();
            let over = join_all(begun.iter().map(|job| async move {
                match if single(job) { begin_one(broker, job).await } else { Begun::Yes } {
                    Begun::Yes => return None,
                    Begun::Over => {}
                    Begun::Failed(failure) => jobs::commit(broker, vec![commit(job, Err(failure.code))]).await,
                }
                Some(job.id)
            }));
            Happening::Begun { worker: n, call, over: over.await.into_iter().flatten().collect() }
        });
    }

    pub(crate) fn begun(&mut self, n: usize, number: u64, over: &[RequestId]) {
        let Some(mut call) = self.workers[n].calls.remove(&number) else { return };
        let (ended, jobs): (Vec<Job>, Vec<Job>) = call.jobs.into_iter().partition(|job| over.contains(&job.id));
        self.done(n, ended.iter().map(|job| (job, ItemEnd::Cancelled)));
        (call.groups, call.jobs) = (Groups::whole(jobs.len()), jobs);
        self.workers[n].calls.insert(number, call);
        self.next_group(n, number);
    }

    fn next_group(&mut self, n: usize, number: u64) {
        let Some(call) = self.workers[n].calls.get_mut(&number) else { return };
        let Some(group) = call.groups.take() else {
            self.workers[n].calls.remove(&number);
            return self.end_drain(n);
        };
        call.turn += 1;
        call.state = State::Calling(group);
        let (turn, backend) = (call.turn, self.plan.backends[call.backend]);
        let jobs = self.workers[n].calls[&number].calling().expect("just begun");
        let took = self.duration(&backend, jobs).min(jobs.iter().map(|job| job.deadline).max().expect("a group has jobs").since(self.now));
        let deadly = jobs.iter().any(|job| self.audit.spec(job.id).deadly);
        self.check_backend(n, number);
        if deadly {
            self.post(took / 2, Happening::Crash(n));
        }
        for part in 1..3 {
            self.post(took * part / 3, Happening::Speak { worker: n, call: number, turn });
        }
        self.post(took, Happening::Ends { worker: n, call: number, turn });
        self.abandon(n);
    }

    fn duration(&self, backend: &Backend, jobs: &[Job]) -> std::time::Duration {
        let unit = |job: &Job| if self.plan.kind == ModelKind::Array { job.envelope.items } else { job.envelope.tokens_out };
        backend.fixed + backend.per_unit * jobs.iter().map(unit).sum::<u32>()
    }

    /// A worker makes no more calls than its backend takes, nor do all together where it is shared and nothing goes wrong.
    fn check_backend(&self, n: usize, number: u64) {
        let backend = self.workers[n].calls[&number].backend;
        let Backend { name, concurrency, shared, .. } = self.plan.backends[backend];
        let calls = |n: usize| self.workers[n].calls.values().filter(|call| call.backend == backend && call.calling().is_some()).count();
        assert!(calls(n) <= concurrency as usize, "{} calls at {name} from one worker, of {concurrency}", calls(n));
        let all: usize = (0..self.workers.len()).map(calls).sum();
        let is_calm = self.plan.faults.are_none() && self.plan.deadly == 0;
        assert!(!(shared && is_calm) || all <= concurrency as usize, "{all} calls at {name}, which takes {concurrency}");
    }

    /// The next piece of a stream.
    pub(crate) fn speak(&mut self, n: usize, number: u64, turn: u64) {
        let Some(call) = self.workers[n].calls.get_mut(&number).filter(|call| call.turn == turn) else { return };
        let Some([job]) = call.calling().filter(|jobs| jobs[0].envelope.stream) else { return };
        let job = job.clone();
        let part = call.spoken;
        call.spoken += 1;
        let third = job.body.len() / 3;
        let bytes = piece(job.exec, &job.body[part as usize * third..(part as usize + 1) * third]);
        self.reply(n, &job, Reply { head: head(&self.workers[n].id, part), ..reply(&job, part) }, &bytes);
    }

    pub(crate) fn end_turn(&mut self, n: usize, number: u64, turn: u64) {
        let Some(call) = self.workers[n].calls.get_mut(&number).filter(|call| call.turn == turn) else { return };
        let (State::Calling(group), Some(jobs)) = (&call.state, call.calling()) else { return };
        let is_late = jobs.iter().all(|job| job.deadline <= self.now);
        let broke = match () {
            () if is_late => None,
            () if jobs.iter().any(|job| self.audit.spec(job.id).guilty) => Some(Broke::Rejected),
            () => self.rng.happens(self.plan.failing).then_some(Broke::Down),
        };
        let end = if is_late { Err(Code::DeadlineExceeded) } else { Ok(()) };
        let mut ends: Vec<(usize, End)> = if broke.is_none() { group.clone().map(|at| (at, end)).collect() } else { Vec::new() };
        ends.extend(call.over(broke));
        self.end_some(n, number, &ends);
    }

    /// Each caller gets their own; the call's end is reported first.
    fn end_some(&mut self, n: usize, number: u64, ends: &[(usize, End)]) {
        let call = &self.workers[n].calls[&number];
        let (spoken, of_call) = (call.spoken, call.jobs.clone());
        let interactive = || ends.iter().map(|(at, end)| (&of_call[*at], *end)).filter(|(job, _)| job.envelope.job.is_none());
        self.done(n, interactive().map(|(job, end)| (job, item_end(job, end))));
        for (job, end) in interactive().filter(|(job, _)| !job.cancel.is_cancelled()) {
            match end {
                Ok(()) => self.write_out(n, job, spoken),
                Err(code) => {
                    let failure = Some(Box::new(Failure::new(code, "It broke")));
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
        let deferred: Vec<(usize, End)> = ends.iter().filter(|(at, _)| of_call[*at].envelope.job.is_some()).copied().collect();
        if deferred.is_empty() {
            return self.next_group(n, number);
        }
        self.free(n, deferred.iter().map(|(at, end)| (&of_call[*at], item_end(&of_call[*at], *end))));
        let going = deferred.iter().filter(|(at, _)| !of_call[*at].cancel.is_cancelled());
        let commits: Vec<Commit> = going.map(|(at, end)| commit(&of_call[*at], *end)).collect();
        let call = self.workers[n].calls.get_mut(&number).expect("looked up a moment ago");
        call.state = State::Committing(deferred);
        call.turn += 1;
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
        let State::Committing(ends) = &call.state else { return };
        let ended: Vec<(Job, End)> = ends.iter().map(|(at, end)| (call.jobs[*at].clone(), *end)).collect();
        self.done(n, ended.iter().map(|(job, end)| (job, item_end(job, *end))));
        self.next_group(n, number);
    }

    /// Ends the calls that nobody waits for any more.
    pub(crate) fn abandon(&mut self, n: usize) {
        let is_over = |call: &Call| call.calling().is_some_and(|jobs| jobs.iter().all(|job| job.cancel.is_cancelled()));
        let over: Vec<u64> = self.workers[n].calls.iter().filter(|(_, call)| is_over(call)).map(|(number, _)| *number).collect();
        for number in over {
            let Some(call) = self.workers[n].calls.get_mut(&number).filter(|call| is_over(call)) else { continue };
            let jobs = call.calling().expect("looked at a moment ago").to_vec();
            let ends = call.over(None);
            self.done(n, jobs.iter().map(|job| (job, ItemEnd::Cancelled)));
            self.end_some(n, number, &ends);
        }
    }

    /// Executions have ended: frees their places, and tells each owner.
    fn done<'a>(&mut self, n: usize, ended: impl IntoIterator<Item = (&'a Job, ItemEnd)>) {
        let mut told = Told::default();
        for (job, end) in ended {
            if let Some(entry) = self.workers[n].table.end(job.id, job.exec) {
                told.add(entry.reports, item(job, end));
            }
        }
        let (worker, model) = (self.workers[n].id.clone(), self.model.clone());
        for (Report { scheduler, batch }, items) in told.0 {
            self.report(&scheduler, &ToScheduler::Done { worker: worker.clone(), model: model.clone(), batch, items });
        }
    }

    /// The calls of deferred executions have ended, and their outcomes go on record now: their places are free already.
    fn free<'a>(&mut self, n: usize, ended: impl IntoIterator<Item = (&'a Job, ItemEnd)>) {
        let mut told = Told::default();
        for (job, end) in ended {
            if let Some((_, reports)) = self.workers[n].table.free(job.id, job.exec) {
                told.add(reports, item(job, end));
            }
        }
        let (worker, model) = (self.workers[n].id.clone(), self.model.clone());
        for (Report { scheduler, batch }, items) in told.0 {
            self.report(&scheduler, &ToScheduler::Freed { worker: worker.clone(), model: model.clone(), batch, items });
        }
    }

    fn reply(&mut self, n: usize, job: &Job, reply: Reply, body: &Bytes) {
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

fn item_end(job: &Job, end: End) -> ItemEnd {
    match end {
        _ if job.cancel.is_cancelled() => ItemEnd::Cancelled,
        Ok(()) => ItemEnd::Answered,
        Err(_) => ItemEnd::Failed,
    }
}

fn commit(job: &Job, end: End) -> Commit {
    let of = job.envelope.job.as_deref().expect("a deferred request").clone();
    let failure = end.err().map(|code| Box::new(Failure::new(code, "It broke")));
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

fn item(job: &Job, end: ItemEnd) -> ItemDone {
    ItemDone { id: job.id, end, usage: usage(job, end), fault: None }
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
fn head(worker: &NodeId, part: u32) -> Option<Box<ReplyHead>> {
    (part == 0).then(|| Box::new(ReplyHead { keeper: Some(worker.clone()), ..Default::default() }))
}

const fn reply(job: &Job, part: u32) -> Reply {
    Reply { id: job.id, exec: Some(job.exec), part, last: false, head: None, failure: None, usage: None }
}

fn usage(job: &Job, end: ItemEnd) -> Usage {
    match end {
        ItemEnd::Answered => Usage { input: job.envelope.tokens_in, output: job.envelope.tokens_out },
        ItemEnd::Failed | ItemEnd::Cancelled => Usage::default(),
    }
}
