//! core: the calls that a worker makes for what it has accepted: begun on record, halved when one item may have spoilt them. How they
//! end is in `ends.rs` and `returns.rs`.

use crate::backends::{Backend, Fate};
use crate::ends::{End, Why, commit, head, reply};
use crate::happening::Happening;
use crate::spec::piece;
use crate::tasks::Process;
use crate::world::World;
use futures::future::join_all;
use shared::domain::RequestId;
use shared::jobs;
use shared::wire::{Fault, ItemEnd, Reply};
use std::ops::Range;
use std::sync::Arc;
use workers::simulated::{BackendError, Begun, Groups, Job, Over, begin_one, spoilt};

/// The executions that began together.
pub(crate) struct Call {
    pub(crate) backend: usize,
    pub(crate) jobs: Vec<Job>,
    groups: Groups,
    state: State,
    /// Names the state: what was meant for an earlier one comes too late.
    turn: u64,
    /// Parts of a stream that have gone out.
    pub(crate) spoken: u32,
}

enum State {
    /// It is being put on record that they run.
    Beginning,
    Calling(Range<usize>, Fate),
    /// Their outcomes are being put on record.
    Committing(Vec<(usize, End)>),
}

impl Call {
    fn calling(&self) -> Option<&[Job]> {
        match &self.state {
            State::Calling(group, _) => Some(&self.jobs[group.clone()]),
            State::Beginning | State::Committing(_) => None,
        }
    }

    /// Outcomes go on record.
    pub(crate) fn commits(&mut self, ends: Vec<(usize, End)>) {
        self.state = State::Committing(ends);
        self.turn += 1;
    }

    pub(crate) fn committing(&self) -> Option<&[(usize, End)]> {
        match &self.state {
            State::Committing(ends) => Some(ends),
            State::Beginning | State::Calling(..) => None,
        }
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
                    Begun::Failed(failure) => jobs::commit(broker, vec![commit(job, Err(Why::here(failure.code)))]).await,
                }
                Some(job.id)
            }));
            Happening::Begun { worker: n, call, over: over.await.into_iter().flatten().collect() }
        });
    }

    pub(crate) fn begun(&mut self, n: usize, number: u64, over: &[RequestId]) {
        let Some(mut call) = self.workers[n].calls.remove(&number) else { return };
        let (ended, jobs): (Vec<Job>, Vec<Job>) = call.jobs.into_iter().partition(|job| over.contains(&job.id));
        self.done(n, ended.iter().map(|job| (job, ItemEnd::Cancelled, None)));
        (call.groups, call.jobs) = (Groups::whole(jobs.len()), jobs);
        self.workers[n].calls.insert(number, call);
        self.next_group(n, number);
    }

    pub(crate) fn next_group(&mut self, n: usize, number: u64) {
        let Some(call) = self.workers[n].calls.get_mut(&number) else { return };
        let Some(group) = call.groups.take() else {
            self.workers[n].calls.remove(&number);
            return self.end_drain(n);
        };
        let (backend, jobs) = (call.backend, call.jobs[group.clone()].to_vec());
        let (fate, took) = self.fate(backend, &jobs);
        let call = self.workers[n].calls.get_mut(&number).expect("looked up a moment ago");
        (call.state, call.turn) = (State::Calling(group, fate), call.turn + 1);
        let turn = call.turn;
        let took = took.min(jobs.iter().map(|job| job.deadline).max().expect("a group has jobs").since(self.now));
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

    /// The next piece of a stream. What fails before it has begun says nothing.
    pub(crate) fn speak(&mut self, n: usize, number: u64, turn: u64) {
        let Some(call) = self.workers[n].calls.get_mut(&number).filter(|call| call.turn == turn) else { return };
        let State::Calling(_, None | Some((Fault::Broken, _))) = call.state else { return };
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
        let State::Calling(group, fate) = &call.state else { return };
        let (group, fate) = (group.clone(), *fate);
        let is_late = call.jobs[group.clone()].iter().all(|job| job.deadline <= self.now);
        let (end, over) = match fate {
            Some((fault, retry_after_ms)) if !is_late => {
                let error = spoilt(fault, retry_after_ms);
                self.audit.tries.call_failed(&error.failure);
                (None, call.groups.failed(error))
            }
            _ if is_late => (Some(Err(Why::LATE)), call.groups.settled().into_iter().collect()),
            _ => (Some(Ok(())), call.groups.settled().into_iter().collect()),
        };
        let ends = end.map(|end| group.map(|at| (at, end)).collect()).unwrap_or_default();
        self.settle_turn(n, number, ends, over);
    }

    /// What has its end, and what is not called again here: given back where another try may cure it, and nobody has had a byte.
    fn settle_turn(&mut self, n: usize, number: u64, mut ends: Vec<(usize, End)>, over: Vec<Over<BackendError>>) {
        for Over { ranges, error } in over {
            let call = &self.workers[n].calls[&number];
            let group: Vec<usize> = ranges.into_iter().flatten().collect();
            group.iter().for_each(|at| self.audit.tries.failed(call.jobs[*at].id, error.fault));
            if call.spoken == 0 && error.fault.is_curable() {
                let jobs: Vec<Job> = group.iter().map(|at| call.jobs[*at].clone()).collect();
                self.return_jobs(n, &jobs, &error);
            } else {
                let why = Err(Why::of(&error, call.spoken > 0));
                ends.extend(group.into_iter().map(|at| (at, why)));
            }
        }
        self.end_some(n, number, &ends);
    }

    /// Ends the calls that nobody waits for any more.
    pub(crate) fn abandon(&mut self, n: usize) {
        let is_over = |call: &Call| call.calling().is_some_and(|jobs| jobs.iter().all(|job| job.cancel.is_cancelled()));
        let over: Vec<u64> = self.workers[n].calls.iter().filter(|(_, call)| is_over(call)).map(|(number, _)| *number).collect();
        for number in over {
            let Some(call) = self.workers[n].calls.get_mut(&number).filter(|call| is_over(call)) else { continue };
            let jobs = call.calling().expect("looked at a moment ago").to_vec();
            let over = call.groups.settled().into_iter().collect();
            self.done(n, jobs.iter().map(|job| (job, ItemEnd::Cancelled, None)));
            self.settle_turn(n, number, Vec::new(), over);
        }
    }
}
