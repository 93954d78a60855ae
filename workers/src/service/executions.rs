//! edge: what an execution says to the outside: parts of the answer to the ingress, the end to the scheduler and into the
//! record.

use super::Shop;
use crate::run::{Ended, Job};
use crate::table::Report;
use bytes::Bytes;
use shared::broker::Address;
use shared::clock::{self, Time, millis};
use shared::config::Price;
use shared::domain::Token;
use shared::error::Failure;
use shared::wire::{Call, ItemDone, Reply, ReplyHead, ToIngress, ToScheduler, Usage};
use std::sync::Arc;

/// A part of an answer is at most this large, so that it fits a frame with its head.
const PART_BYTES_MAX: usize = 512 * 1024;

#[derive(Clone)]
pub(crate) struct Executions {
    shop: Arc<Shop>,
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

    /// Ends a stream.
    pub(crate) fn last_part(&self, job: &Job, part: u32, usage: Option<Usage>) {
        self.send(job, Reply { last: true, usage, ..reply(job, part) }, Bytes::new());
    }

    /// Ends an answer badly; `part` is the number of parts that went before.
    pub(crate) fn fail(&self, job: &Job, part: u32, mut failure: Failure) {
        failure.standing.clone_from(&job.standing);
        self.send(job, Reply { last: true, failure: Some(Box::new(failure)), ..reply(job, part) }, Bytes::new());
    }

    fn send(&self, job: &Job, reply: Reply, bytes: Bytes) {
        self.shop.outbox.post(Address::Ingress(job.envelope.ingress.clone()), &ToIngress::Reply(reply), bytes);
    }

    /// The execution has ended, and its answer has been handed over.
    pub(crate) fn ended(&self, job: &Job, ended: Ended) {
        self.report([(job, ended)]);
    }

    /// Executions have ended: frees their places and tells each owner, in one message for each of its batches; each goes on record.
    pub(crate) fn report<'a>(&self, jobs: impl IntoIterator<Item = (&'a Job, Ended)>) {
        let mut reports: Vec<(Report, Token, Vec<ItemDone>)> = Vec::with_capacity(1);
        for (job, ended) in jobs {
            let Some(entry) = self.shop.table().end(job.id, job.exec) else { continue };
            self.shop.recorder.note(self.record(job, ended, entry.since));
            let item = ItemDone { id: job.id, end: ended.end, usage: ended.usage };
            for report in entry.reports {
                match reports.iter_mut().find(|(known, ..)| *known == report) {
                    Some((.., items)) => items.push(item),
                    None => reports.push((report, entry.model.clone(), vec![item])),
                }
            }
        }
        for (Report { scheduler, batch }, model, items) in reports {
            let done = ToScheduler::Done { worker: self.shop.id.clone(), model, batch, items };
            self.shop.outbox.post(Address::Scheduler(scheduler), &done, Bytes::new());
        }
    }

    fn record(&self, job: &Job, Ended { end, usage }: Ended, since: Time) -> Call {
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

const fn reply(job: &Job, part: u32) -> Reply {
    Reply { id: job.id, exec: Some(job.exec), part, last: false, head: None, failure: None, usage: None }
}
