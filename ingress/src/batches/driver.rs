//! loop: drives one batch, under a lease: reads its file on, publishes its lines segment by segment, hears their outcomes,
//! writes them to its files.
//!
//! All it knows is in the batch's record, the input file and the journal of results, so another ingress goes on where this
//! one ends. A segment is settled when each of its lines has an outcome; what it adds to the files is a function of those
//! outcomes alone, so writing it twice is writing it once. Whoever drives it has put their lease into the record: a driver that
//! was stopped for so long that another took its place finds that one's there, and writes no more.

#[cfg(test)]
mod tests;

use super::input::{Input, Piece};
use super::output;
use super::publish::{self, Batched};
use super::request_line::RequestLine;
use super::segment::{Row, Segment, row_id};
use super::tenure::{erase_results, fail};
use super::yard::Yard;
use bytes::Bytes;
use shared::broker::{Broker, BrokerError, Feed, Follower, Journal, Since, Topic};
use shared::clock::Time;
use shared::domain::RequestId;
use shared::entropy;
use shared::error::{Code, Failure};
use shared::jobs::{self, Batch, BatchState, Commit, File, OpenSegment, Outcome, StoreError, Stored};
use shared::wire::{JobRef, Usage};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Segments under way at once: enough lines that no backend waits for the next ones, and no more of one batch in the lane.
pub(super) const OPEN_MAX: usize = 16;

/// Bytes of answers that wait for their segment's last: fewer segments are under way where answers are large.
const HELD_BYTES_MAX: usize = 8 * 1024 * 1024;

/// How often the record is looked at: how late a cancellation may be noticed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A segment of which nothing is heard for this long may have been forgotten by the queue, which is then asked.
const SILENT: Duration = Duration::from_secs(5);

/// Why the rest of a batch is not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Halt {
    Cancelled,
    Expired,
}

/// Why a driver goes no further.
#[derive(Debug)]
enum Stop {
    /// It can be resumed.
    Store(StoreError),
    /// A part of the input is not there any more.
    InputGone,
}

pub struct Driver {
    yard: Arc<dyn Yard>,
    batch: Batch,
    revision: u64,
    file: File,
    input: Input,
    exhausted: bool,
    next: u32,
    open: VecDeque<Segment>,
    follower: Box<dyn Follower>,
    /// Bytes of the answers of a segment, of those that were settled: a moving average.
    segment_bytes: usize,
    looked_at: Time,
}

impl Driver {
    /// Takes a batch up where its record says it is.
    ///
    /// # Errors
    /// Those of the broker.
    pub async fn resume(yard: Arc<dyn Yard>, stored: Stored<Batch>, file: File) -> Result<Self, StoreError> {
        let Stored { value: batch, revision } = stored;
        let input = Input::open(yard.as_ref(), &file, batch.cursor);
        let feed = Feed::Journal(Journal::Results, Some(Topic::from(batch.id.clone())));
        let follower = yard.broker().follow(&feed, Since::Start).await?;
        let (next, looked_at) = (batch.settled, yard.now());
        let open = VecDeque::new();
        Ok(Self { yard, batch, revision, file, input, exhausted: false, next, open, follower, segment_bytes: 0, looked_at })
    }

    /// Runs the batch to its end, and returns it as it is then.
    ///
    /// # Errors
    /// Those of the broker: it can be resumed.
    pub async fn run(mut self) -> Result<Batch, StoreError> {
        match self.advance().await {
            Ok(()) => self.finish().await,
            Err(Stop::InputGone) => fail(self.yard.as_ref(), &self.batch, self.batch.driver).await,
            Err(Stop::Store(error)) => Err(error),
        }
    }

    /// Goes on until each line is in a file.
    async fn advance(&mut self) -> Result<(), Stop> {
        loop {
            self.look().await?;
            self.fill().await?;
            if self.exhausted && self.open.is_empty() {
                return Ok(());
            }
            self.hear().await?;
            self.settle().await?;
        }
    }

    fn broker(&self) -> &dyn Broker {
        self.yard.broker().as_ref()
    }

    fn halt(&self) -> Option<Halt> {
        if self.batch.state == BatchState::Cancelling {
            return Some(Halt::Cancelled);
        }
        (self.yard.unix_ms() >= self.batch.expires_ms).then_some(Halt::Expired)
    }

    /// Reads the record again from time to time, ends what was cancelled or is too late, and asks after what is silent.
    async fn look(&mut self) -> Result<(), Stop> {
        let now = self.yard.now();
        if now.since(self.looked_at) < LOOK_EVERY {
            return Ok(());
        }
        self.looked_at = now;
        self.read_record().await?;
        if let Some(halt) = self.halt() {
            return Ok(self.call_off(halt).await?);
        }
        for n in 0..self.open.len() {
            if now.since(self.open[n].heard_at) >= SILENT {
                self.ask_after(n, now).await?;
            }
        }
        Ok(())
    }

    /// Gives the lines that still run an outcome. One that ends meanwhile has its own if that is on record first.
    async fn call_off(&mut self, halt: Halt) -> Result<(), StoreError> {
        let mut ids: Vec<RequestId> = Vec::new();
        for segment in &self.open {
            let commits: Vec<Commit> = segment.missing().map(|row| self.commit(segment.number, row, halt.failure())).collect();
            ids.extend(commits.iter().map(|commit| commit.outcome.id));
            jobs::commit(self.broker(), commits).await;
        }
        if !ids.is_empty() {
            self.yard.call_off(ids);
        }
        Ok(())
    }

    /// A segment that is silent is published again where the queue has forgotten it. Lines that are refused by now have their outcome.
    async fn ask_after(&mut self, n: usize, now: Time) -> Result<(), Stop> {
        self.open[n].heard_at = now;
        let broker = Arc::clone(self.yard.broker());
        for place in self.open[n].frames.clone() {
            if broker.holds(place.lane, place.epoch, place.sequence).await? {
                return Ok(());
            }
        }
        let topic = jobs::topic(&self.batch.id, self.open[n].number);
        for (outcome, body) in jobs::outcomes(broker.as_ref(), &topic).await? {
            self.open[n].hear(outcome, body, now);
        }
        if self.open[n].is_settled() {
            return Ok(());
        }
        tracing::warn!(batch = %self.batch.id, segment = self.open[n].number, "lines that the queue has forgotten are published again");
        let piece = Input::open(self.yard.as_ref(), &self.file, self.open[n].start).segment().await.map_err(Stop::of_input)?;
        let (number, missing): (u32, Vec<u32>) = (self.open[n].number, self.open[n].missing().collect());
        let (lines, mut batched) = self.compose(number, &piece.ok_or(Stop::InputGone)?);
        let mut refusals = self.refusals(number, lines);
        refusals.retain(|refusal| missing.contains(&refusal.outcome.row));
        jobs::commit(broker.as_ref(), refusals).await;
        batched.retain(|one| missing.contains(&one.row()));
        batched.iter_mut().for_each(Batched::mark_again);
        let turn = entropy::message_id();
        self.open[n].frames = publish::send(broker.as_ref(), &self.batch, number, &turn, batched).await?;
        Ok(self.record().await?)
    }

    fn window(&self) -> usize {
        HELD_BYTES_MAX.checked_div(self.segment_bytes).unwrap_or(OPEN_MAX).clamp(2, OPEN_MAX)
    }

    async fn fill(&mut self) -> Result<(), Stop> {
        let mut published = false;
        while !self.exhausted && self.open.len() < self.window() {
            let Some(piece) = self.input.segment().await.map_err(Stop::of_input)? else {
                self.exhausted = true;
                break;
            };
            let segment = self.begin(&piece).await?;
            published |= !segment.frames.is_empty();
            self.open.push_back(segment);
            self.next += 1;
        }
        if published {
            self.record().await?;
        }
        Ok(())
    }

    /// Puts the lines of a segment on their way; those that cannot be read have their outcome at once.
    async fn begin(&mut self, piece: &Piece) -> Result<Segment, StoreError> {
        let (number, now) = (self.next, self.yard.now());
        let (lines, batched) = self.compose(number, piece);
        let rows = lines.iter().map(|(row, _)| row.clone()).collect();
        let large = batched.iter().filter(|one| one.is_large()).map(Batched::row).collect();
        let mut segment = Segment::new(number, (piece.start, piece.end), rows, large, now);
        if let Some(known) = self.batch.open.iter().find(|open| open.number == number) {
            segment.frames.clone_from(&known.frames);
            return Ok(segment);
        }
        if let Some(halt) = self.halt() {
            for row in 0..lines.len() {
                segment.hear(self.outcome(number, index(row), halt.failure()), Bytes::new(), now);
            }
            return Ok(segment);
        }
        let refusals = self.refusals(number, lines);
        jobs::commit(self.broker(), refusals).await;
        segment.frames = publish::send(self.broker(), &self.batch, number, "", batched).await?;
        Ok(segment)
    }

    /// The rows of a segment with why they cannot be run, and those that can.
    fn compose(&self, number: u32, piece: &Piece) -> (Vec<(Row, Option<Failure>)>, Vec<Batched>) {
        let compose = self.yard.composer(&self.batch);
        let (mut rows, mut batched) = (Vec::with_capacity(piece.lines.len()), Vec::with_capacity(piece.lines.len()));
        for (row, line) in piece.lines.iter().enumerate() {
            let RequestLine { custom_id, body } = RequestLine::read(self.batch.op, line.text.as_ref());
            let of = JobRef { job: self.batch.id.clone(), part: number, row: index(row), line: true, again: false };
            let id = row_id(&self.batch.id, number, index(row));
            let composed = body.and_then(|body| compose(of, id, body));
            let refused = composed.map(|one| batched.push(one)).err();
            rows.push((Row { custom_id, line: line.number }, refused));
        }
        (rows, batched)
    }

    /// The outcomes of the rows that cannot be run.
    fn refusals(&self, number: u32, lines: Vec<(Row, Option<Failure>)>) -> Vec<Commit> {
        let refused = lines.into_iter().enumerate().filter_map(|(row, (_, refused))| Some((index(row), refused?)));
        refused.map(|(row, failure)| self.commit(number, row, failure)).collect()
    }

    fn outcome(&self, number: u32, row: u32, failure: Failure) -> Outcome {
        let id = row_id(&self.batch.id, number, row);
        Outcome { row, id, exec: None, failure: Some(Box::new(failure)), usage: Usage::default(), blob: None }
    }

    fn commit(&self, number: u32, row: u32, failure: Failure) -> Commit {
        let of = JobRef { job: self.batch.id.clone(), part: number, row, line: true, again: false };
        Commit { tenant: self.batch.tenant.clone(), of, outcome: self.outcome(number, row, failure), body: Bytes::new() }
    }

    /// Takes in what has come of the lines, waiting for it unless a segment is settled.
    async fn hear(&mut self) -> Result<(), StoreError> {
        let mut wait = if self.open.front().is_some_and(Segment::is_settled) { Duration::ZERO } else { LOOK_EVERY / 2 };
        while let Some(entry) = self.follower.next(wait).await? {
            let number = entry.key.rsplit('.').next().and_then(|part| part.parse::<u32>().ok());
            let now = self.yard.now();
            let segment = self.open.iter_mut().find(|segment| Some(segment.number) == number);
            if let (Some(segment), Some(value)) = (segment, entry.value) {
                jobs::read(&value).into_iter().for_each(|(outcome, body)| segment.hear(outcome, body, now));
            }
            if !entry.more || self.open.front().is_some_and(Segment::is_settled) {
                break;
            }
            wait = Duration::ZERO;
        }
        Ok(())
    }

    /// Writes the first segments that have all their outcomes, and steps the record past them.
    ///
    /// When another has stepped past one, its outcomes are erased, and a row whose worker does not know that may run again and end otherwise.
    /// So the record is read when all are there: who still drives the batch then has the outcomes that count.
    async fn settle(&mut self) -> Result<(), StoreError> {
        while let Some(segment) = self.open.pop_front_if(|segment| segment.is_settled()) {
            self.read_record().await?;
            let broker = Arc::clone(self.yard.broker());
            self.segment_bytes = (self.segment_bytes * 3 + segment.bytes).div_ceil(4);
            output::write(broker.as_ref(), &mut self.batch, &segment).await?;
            self.batch.settled = segment.number + 1;
            self.batch.cursor = segment.end;
            self.record().await?;
            output::show(broker.as_ref(), &self.batch).await?;
            output::tidy(broker.as_ref(), &self.batch, &segment).await;
        }
        Ok(())
    }

    /// Writes the batch's record. One that was cancelled meanwhile stays so.
    async fn record(&mut self) -> Result<(), StoreError> {
        let open = self.open.iter().map(|segment| OpenSegment { number: segment.number, frames: segment.frames.clone() });
        self.batch.open = open.collect();
        match jobs::replace(self.broker(), &self.batch, self.revision).await {
            Err(StoreError::Broker(BrokerError::Conflict)) => {
                self.read_record().await?;
                self.revision = jobs::replace(self.broker(), &self.batch, self.revision).await?;
            }
            written => self.revision = written?,
        }
        Ok(())
    }

    /// What others may have written: a cancellation, which an end that is about to be recorded comes before, or that they drive it.
    async fn read_record(&mut self) -> Result<(), StoreError> {
        let stored: Option<Stored<Batch>> = jobs::get(self.broker(), &self.batch.tenant, &self.batch.id).await?;
        let Stored { value, revision } = stored.ok_or(StoreError::NotFound)?;
        if value.driver != self.batch.driver {
            return Err(BrokerError::Conflict.into());
        }
        self.revision = revision;
        if !self.batch.state.is_terminal() {
            (self.batch.state, self.batch.cancelling_ms) = (value.state, value.cancelling_ms);
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<Batch, StoreError> {
        output::show(self.broker(), &self.batch).await?; // First: who reads that it has ended reads its files next.
        let now_ms = self.yard.unix_ms();
        let state = match self.halt() {
            Some(Halt::Cancelled) => BatchState::Cancelled,
            Some(Halt::Expired) if self.batch.counts.failed > 0 => BatchState::Expired,
            _ => BatchState::Completed,
        };
        self.batch.finalizing_ms = Some(now_ms);
        self.batch.counts.total = self.batch.counts.completed + self.batch.counts.failed;
        (self.batch.state, self.batch.ended_ms) = (state, Some(now_ms));
        self.record().await?;
        erase_results(self.broker(), &self.batch.id).await;
        tracing::info!(batch = %self.batch.id, tenant = %self.batch.tenant, ?state, completed = self.batch.counts.completed, failed = self.batch.counts.failed, "a batch has ended");
        Ok(self.batch)
    }
}

impl Stop {
    /// What reading the input has come to: a part that is gone does not come back.
    fn of_input(error: BrokerError) -> Self {
        if error == BrokerError::Gone { Self::InputGone } else { error.into() }
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<BrokerError> for Stop {
    fn from(error: BrokerError) -> Self {
        Self::Store(error.into())
    }
}

impl Halt {
    fn failure(self) -> Failure {
        match self {
            Self::Cancelled => Failure::new(Code::BatchCancelled, "The batch was cancelled before this line had run"),
            Self::Expired => Failure::new(Code::BatchExpired, "The batch's completion window ended before this line had run"),
        }
    }
}

pub(super) fn index(row: usize) -> u32 {
    u32::try_from(row).expect("a segment has few lines")
}
