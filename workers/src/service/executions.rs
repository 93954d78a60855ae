//! edge: what an execution says to the outside: parts of the answer to the ingress, the end to the scheduler and into the
//! record.

use super::Shop;
use crate::run::{Ended, Job};
use crate::table::Report;
use bytes::Bytes;
use shared::broker::Address;
use shared::clock::{self, Time, millis};
use shared::config::Price;
use shared::domain::{BatchId, NodeId, Token};
use shared::error::Failure;
use shared::wire::{Call, ItemDone, PART_BYTES_MAX, Reply, ReplyHead, ToIngress, ToScheduler, Usage};
use std::sync::Arc;

#[derive(Clone)]
pub(crate) struct Executions {
    pub(super) shop: Arc<Shop>,
    /// Where they run, and at what price: for the record.
    backend: Box<str>,
    price: Price,
}

impl Executions {
    pub(super) const fn new(shop: Arc<Shop>, backend: Box<str>, price: Price) -> Self {
        Self { shop, backend, price }
    }

    /// Sends a whole answer, in as many parts as it needs.
    pub(crate) fn answer(&self, job: &Job, head: ReplyHead, body: &Bytes, usage: Usage) {
        let mut body = body.clone();
        let last = body.split_off(body.len() - body.len() % PART_BYTES_MAX);
        let (sent, head) = if body.is_empty() { (0, Some(head)) } else { (self.parts(job, 0, Some(head), body), None) };
        let reply = Reply { last: true, usage: Some(usage), head: head.map(Box::new), ..reply(job, sent) };
        self.send(job, reply, last);
    }

    /// Sends one piece of a stream, beginning with part `first`. Returns the number of parts it took: 1, unless it is huge.
    pub(crate) fn parts(&self, job: &Job, first: u32, head: Option<ReplyHead>, mut bytes: Bytes) -> u32 {
        let mut head = head.map(Box::new);
        let mut part = first;
        loop {
            let piece = bytes.split_to(bytes.len().min(PART_BYTES_MAX));
            self.send(job, Reply { head: head.take(), ..reply(job, part) }, piece);
            part += 1;
            if bytes.is_empty() {
                return part - first;
            }
        }
    }

    /// A stream has begun: the owner hears of it with the next heartbeat, long before its end.
    pub(crate) fn begun(&self, job: &Job) {
        self.shop.table().begun(job.id, job.exec);
    }

    /// Ends a stream.
    pub(crate) fn last_part(&self, job: &Job, part: u32, usage: Option<Usage>) {
        self.send(job, Reply { last: true, usage, ..reply(job, part) }, Bytes::new());
    }

    /// Ends an answer badly; `part` is the number of parts that went before.
    pub(crate) fn fail(&self, job: &Job, part: u32, mut failure: Failure) {
        failure.standing.clone_from(&job.standing);
        self.send(job, Reply { last: true, failure: Some(Box::new(failure)), ..reply(job, part) }, Bytes::new());
    }

    /// Who can be asked for the parts of a stream again. In process nothing is lost, and nothing need be kept.
    pub(crate) fn keeper(&self) -> Option<NodeId> {
        (!self.shop.broker.is_local()).then(|| self.shop.id.clone())
    }

    fn send(&self, job: &Job, reply: Reply, bytes: Bytes) {
        if job.envelope.stream && reply.part > 0 && !self.shop.broker.is_local() {
            // First: what is asked for from here on includes it.
            self.shop.spoken().keep(&job.envelope.ingress, &reply, &bytes, clock::now());
        }
        self.shop.outbox.post(Address::Ingress(job.envelope.ingress.clone()), &ToIngress::Reply(reply), bytes);
    }

    /// The execution has ended, and its answer has been handed over.
    pub(crate) fn ended(&self, job: &Job, ended: Ended) {
        self.report([(job, ended)]);
    }

    /// Executions have ended: frees their places and tells each owner, in one message for each of its batches; each goes on record.
    pub(crate) fn report<'a>(&self, jobs: impl IntoIterator<Item = (&'a Job, Ended)>) {
        let mut told = Told::default();
        for (job, ended) in jobs {
            let Some(entry) = self.shop.table().end(job.id, job.exec) else { continue };
            self.shop.recorder.note(self.record(job, ended, entry.since));
            told.add(entry.reports, &entry.model, ended.of(job));
        }
        let worker = &self.shop.id;
        told.send(&self.shop, |model, batch, items| ToScheduler::Done { worker: worker.clone(), model, batch, items });
    }

    /// The calls of deferred executions have ended, and their outcomes go on record now: their places are free already.
    pub(crate) fn free<'a>(&self, jobs: impl IntoIterator<Item = (&'a Job, Ended)>) {
        let mut told = Told::default();
        for (job, ended) in jobs {
            let Some((model, reports)) = self.shop.table().free(job.id, job.exec) else { continue };
            told.add(reports, &model, ended.of(job));
        }
        let worker = &self.shop.id;
        told.send(&self.shop, |model, batch, items| ToScheduler::Freed { worker: worker.clone(), model, batch, items });
    }

    fn record(&self, job: &Job, Ended { end, usage, .. }: Ended, since: Time) -> Call {
        let envelope = &job.envelope;
        Call {
            at_ms: u64::try_from(clock::unix().as_millis()).unwrap_or(u64::MAX),
            id: job.id,
            tenant: envelope.tenant.clone(),
            key: envelope.key.clone(),
            model: envelope.model.clone(),
            op: envelope.op,
            lane: envelope.lane,
            backend: self.backend.clone(),
            input: usage.input,
            output: usage.output,
            nano_usd: self.price.cost(usage),
            end,
            ms: millis(clock::now().since(since)),
        }
    }
}

/// What each owner is told of each of its batches.
#[derive(Default)]
struct Told(Vec<(Report, Token, Vec<ItemDone>)>);

impl Told {
    fn add(&mut self, reports: Vec<Report>, model: &Token, item: ItemDone) {
        for report in reports {
            match self.0.iter_mut().find(|(known, ..)| *known == report) {
                Some((.., items)) => items.push(item),
                None => self.0.push((report, model.clone(), vec![item])),
            }
        }
    }

    fn send(self, shop: &Shop, message: impl Fn(Token, BatchId, Vec<ItemDone>) -> ToScheduler) {
        for (Report { scheduler, batch }, model, items) in self.0 {
            shop.outbox.post(Address::Scheduler(scheduler), &message(model, batch, items), Bytes::new());
        }
    }
}

const fn reply(job: &Job, part: u32) -> Reply {
    Reply { id: job.id, exec: Some(job.exec), part, last: false, head: None, failure: None, usage: None }
}
