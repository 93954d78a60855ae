//! core: everything this ingress waits for. It owns each request's envelope and body until its end, so that what the
//! publisher queues is an id, and publishing again needs nobody else.

use crate::pending::{Fate, Heard, Pending, Position};
use crate::refusals::Account;
use crate::strangers::Strangers;
use crate::ticket::{AnswerPart, Meter, Piece, Setback};
use bytes::Bytes;
use foldhash::HashMap;
use shared::broker::Stored;
use shared::clock::{Time, millis};
use shared::domain::{ExecId, NodeId, RequestId, Token};
use shared::error::{Code, Failure};
use shared::quota::Refusal;
use shared::wire::{Cancel, Envelope, Held, Moved, PART_BYTES_MAX, Part, Passed, Reply, Resend};
use std::collections::hash_map::Entry as Slot;
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedSender;

/// Bytes of a stream that may wait for its caller, beside its largest event. One that reads slower than the model writes is cut
/// off, so that it costs memory to nobody else.
const STREAM_WAITING_MAX: usize = 256 * 1024;

/// Bytes of an answer that is not streamed: 2,048 embeddings of 1,536 dimensions as text, with room to spare.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// One request on the road.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) pending: Pending,
    pub(crate) envelope: Envelope,
    pub(crate) model: Token,
    /// Empty when the envelope holds a claim.
    pub(crate) body: Bytes,
    pub(crate) deadline: Time,
    /// Unbounded, because the reader of the inbox never waits; `meter` is its bound.
    pub(crate) pieces: UnboundedSender<Piece>,
    pub(crate) meter: Meter,
    pub(crate) events: EventSizes,
    /// Whose limits it is counted against; nothing where there are none.
    pub(crate) account: Option<Arc<Account>>,
    /// It waits here for a limit: it is nowhere else, and so not lost.
    pub(crate) waits: bool,
    /// The model in whose lane it lies, where that is another: a fallback's.
    pub(crate) lies_in: Option<Token>,
}

/// What the owner of the table is to do now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Cancel(Cancel),
    /// Queue the request for its model's publisher, again.
    Publish(RequestId, Token),
    /// Ask a worker for parts of a stream again.
    Ask(NodeId, Resend),
}

#[derive(Debug, Default)]
pub(crate) struct Table {
    entries: HashMap<RequestId, Entry>,
    /// How far each model's lane has been handed out, by its latest owner's word.
    passed: HashMap<Token, Position>,
    strangers: Strangers,
}

impl Table {
    pub(crate) fn insert(&mut self, entry: Entry) {
        self.entries.insert(entry.envelope.id, entry);
    }

    /// Forgets a request whose caller has left, and cancels it unless it had ended before.
    pub(crate) fn abandon(&mut self, id: RequestId, now: Time) -> Option<Action> {
        self.entries.remove(&id)?;
        self.stranger(id, None, false, now)
    }

    /// The wire form of those of `ids` that are still waited for, each with what now remains of its deadline.
    pub(crate) fn parts(&mut self, ids: &[RequestId], now: Time) -> Vec<(RequestId, Part)> {
        ids.iter().filter_map(|id| Some((*id, self.entries.get_mut(id)?.part(now)?))).collect()
    }

    pub(crate) fn published(&mut self, ids: &[RequestId], stored: Stored, now: Time) {
        for id in ids {
            // The word on what was refused or sent on meanwhile says nothing any more.
            if let Some(entry) = self.entries.get_mut(id).filter(|entry| !entry.waits && entry.lies_in.is_none()) {
                entry.pending.published(stored, now);
            }
        }
    }

    /// A request was sent on to a fallback: from now on that one's lane says whether it is lost.
    pub(crate) fn moved(&mut self, moved: Moved, now: Time) {
        let Moved { id, model, epoch, sequence } = moved;
        if let Some(entry) = self.entries.get_mut(&id).filter(|entry| !entry.waits) {
            entry.lies_in = Some(model);
            entry.pending.published(Stored { sequence, epoch, duplicate: false }, now);
        }
    }

    /// Ends requests that could not be published, unless one is being answered all the same.
    pub(crate) fn refused(&mut self, ids: &[RequestId], failure: &Failure) {
        for id in ids {
            if self.entries.get(id).is_some_and(|entry| !entry.pending.is_bound()) {
                self.end(*id, failure.clone());
            }
        }
    }

    /// A limit has refused a request, which is this ingress's again. Returns who was refused, and how many tokens.
    pub(crate) fn give_back(&mut self, id: RequestId, refusal: Refusal) -> Option<(Arc<Account>, u32)> {
        let entry = self.entries.get_mut(&id).filter(|entry| !entry.pending.is_bound())?;
        entry.pending = Pending::new(entry.envelope.stream);
        (entry.waits, entry.lies_in) = (true, None);
        entry.send(Err(Setback::Refused(refusal)));
        Some((entry.account.clone()?, entry.tokens()))
    }

    /// A request that waits for a limit.
    pub(crate) fn get(&self, id: RequestId) -> Option<&Entry> {
        self.entries.get(&id)
    }

    /// It waits no longer: it is about to be sent. Its model.
    pub(crate) fn set_out(&mut self, id: RequestId) -> Option<Token> {
        let entry = self.entries.get_mut(&id)?;
        entry.waits = false;
        Some(entry.model.clone())
    }

    /// Takes in a part of an answer.
    pub(crate) fn hear(&mut self, reply: Reply, body: Bytes, now: Time) -> Option<Action> {
        let (id, last) = (reply.id, reply.last);
        let Slot::Occupied(mut slot) = self.entries.entry(id) else {
            return self.stranger(id, None, last, now);
        };
        let entry = slot.get_mut();
        match entry.pending.hear(reply.exec, reply.part, now) {
            Heard::Pass => self.pass(reply, body, now),
            Heard::Nothing => None,
            Heard::Ahead => entry.ask(now),
            Heard::Stranger(exec) => self.stranger(id, Some(exec), last, now),
            Heard::Gap => {
                self.end(id, incomplete());
                self.stranger(id, None, last, now)
            }
        }
    }

    fn pass(&mut self, mut reply: Reply, body: Bytes, now: Time) -> Option<Action> {
        let (id, last) = (reply.id, reply.last);
        let entry = self.entries.get_mut(&id)?;
        if let Some(worker) = reply.head.as_mut().and_then(|head| head.keeper.take()) {
            entry.pending.kept_by(worker);
        }
        if let Err(failure) = entry.deliver(reply, body) {
            self.end(id, failure);
            return self.stranger(id, None, last, now);
        }
        if last {
            self.entries.remove(&id);
        }
        None
    }

    /// A cancel for what nobody waits for, unless it has ended by itself or was cancelled a moment ago.
    fn stranger(&mut self, id: RequestId, exec: Option<ExecId>, ended: bool, now: Time) -> Option<Action> {
        let due = !ended && self.strangers.is_due(id, exec, now);
        due.then(|| Action::Cancel(Cancel { ids: vec![id], exec }))
    }

    /// Notes what a scheduler or a worker says it holds, and how far it has read.
    pub(crate) fn held(&mut self, held: &Held, now: Time) {
        for id in &held.ids {
            if let Some(entry) = self.entries.get_mut(id) {
                entry.pending.named(now);
            }
        }
        for Passed { model, epoch, sequence } in &held.passed {
            let heard = Position { epoch: *epoch, sequence: *sequence };
            let known = self.passed.entry(model.clone()).or_insert(heard);
            if known.epoch != heard.epoch || known.sequence < heard.sequence {
                *known = heard;
            }
        }
    }

    /// Looks for lost requests.
    pub(crate) fn sweep(&mut self, now: Time) -> Vec<Action> {
        self.strangers.forget(now);
        let mut actions = Vec::new();
        let mut ended = Vec::new();
        for (id, entry) in self.entries.iter_mut().filter(|(_, entry)| !entry.waits) {
            let lane = entry.lies_in.as_ref().unwrap_or(&entry.model);
            match entry.pending.check(self.passed.get(lane).copied(), now) {
                Fate::Waiting => {}
                Fate::Again => {
                    entry.lies_in = None;
                    actions.push(Action::Publish(*id, entry.model.clone()));
                }
                Fate::Missing => actions.extend(entry.ask(now)),
                Fate::Gap => ended.push((*id, incomplete())),
                Fate::Cut => ended.push((*id, interrupted("The worker that wrote this answer is gone"))),
                Fate::Lost => ended.push((*id, lost())),
            }
        }
        for (id, failure) in ended {
            self.end(id, failure);
            actions.push(Action::Cancel(Cancel { ids: vec![id], exec: None }));
        }
        actions
    }

    fn end(&mut self, id: RequestId, failure: Failure) {
        if let Some(entry) = self.entries.remove(&id) {
            entry.send(Err(Setback::Failed(failure)));
        }
    }
}

/// How large the events of a stream are: one that comes in several parts came at once, however fast it is read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct EventSizes {
    largest: usize,
    /// Of the one whose last part has not come.
    open: usize,
}

impl EventSizes {
    fn largest_with(&mut self, part: usize) -> usize {
        self.open += part;
        self.largest = self.largest.max(self.open);
        if part < PART_BYTES_MAX {
            self.open = 0;
        }
        self.largest
    }
}

impl Entry {
    /// Estimated input and expected output.
    pub(crate) const fn tokens(&self) -> u32 {
        self.envelope.tokens_in.saturating_add(self.envelope.tokens_out)
    }

    fn ask(&mut self, now: Time) -> Option<Action> {
        self.pending.ask(now).map(|(worker, resend)| Action::Ask(worker, resend))
    }

    /// `None` once the deadline has passed: its caller is about to hear so.
    fn part(&mut self, now: Time) -> Option<Part> {
        self.envelope.remaining_ms = millis(self.deadline.since(now));
        (self.envelope.remaining_ms > 0).then(|| Part::encode(&self.envelope, self.body.clone()))
    }

    fn deliver(&mut self, reply: Reply, body: Bytes) -> Result<(), Failure> {
        if let Some(failure) = reply.failure {
            return Err(*failure);
        }
        if reply.part == 0 {
            self.meter.reset();
            self.events = EventSizes::default();
        }
        let before = self.meter.add(body.len());
        let streams = self.envelope.stream;
        if streams && before + body.len() > STREAM_WAITING_MAX + self.events.largest_with(body.len()) {
            return Err(slow_reader());
        }
        if !streams && before + body.len() > ANSWER_BYTES_MAX {
            return Err(too_long());
        }
        self.send(Ok(AnswerPart { number: reply.part, head: reply.head, body, last: reply.last }));
        Ok(())
    }

    /// A caller that has just left hears nothing, and its ticket tidies up.
    fn send(&self, piece: Piece) {
        let _ = self.pieces.send(piece);
    }
}

fn interrupted(what: &str) -> Failure {
    Failure::new(Code::StreamInterrupted, format!("{what}: what you have is incomplete, ask again"))
}

fn incomplete() -> Failure {
    interrupted("A part of the answer was lost on the way")
}

fn lost() -> Failure {
    Failure::new(Code::Lost, "The request was lost several times and given up: try again").retry_after_ms(1_000)
}

fn slow_reader() -> Failure {
    let kib = STREAM_WAITING_MAX / 1024;
    Failure::new(Code::SlowReader, format!("{kib} KiB of the answer waited to be read: read faster, or do not stream"))
}

fn too_long() -> Failure {
    let mib = ANSWER_BYTES_MAX / (1024 * 1024);
    Failure::new(Code::BackendMalformed, format!("The answer is longer than {mib} MiB: ask for less in one call"))
}

#[cfg(test)]
mod tests;
