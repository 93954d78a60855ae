//! loop: a generation that is streamed and deferred: nobody waits at an inbox, so its events go into the log of its job, where
//! whoever wants them reads them.
//!
//! Events gather, because an append costs the broker's disk what a token never does; the first goes at once.

use super::sequence::Stop;
use super::{Bench, Job};
use crate::backend::Event;
use bytes::BytesMut;
use shared::broker::Topic;
use shared::clock::{self, Time};
use shared::error::{Code, Failure};
use shared::jobs::{self, PIECE_BYTES_MAX, Piece};
use shared::wire::JobRef;
use std::time::Duration;

/// Between two appends: a reader does not see it, and a hundred tokens a second are twenty entries.
const GATHER: Duration = Duration::from_millis(50);

/// Bytes that do not wait for the moment.
const GATHER_BYTES: usize = 32 * 1024;

/// Bytes of one execution's log: as many as a whole answer may have.
const LOG_BYTES_MAX: usize = 64 * 1024 * 1024;

pub(super) struct Log<'a> {
    bench: &'a Bench,
    job: &'a Job,
    topic: Topic,
    pieces: u32,
    waiting: BytesMut,
    bytes: usize,
    /// Until then events gather.
    due: Time,
}

impl<'a> Log<'a> {
    pub(super) fn begin(bench: &'a Bench, job: &'a Job, of: &JobRef) -> Self {
        Self { bench, job, topic: jobs::log_topic(&of.job), pieces: 0, waiting: BytesMut::new(), bytes: 0, due: Time::ZERO }
    }

    /// Waits until what has gathered is to be appended; for ever where nothing has.
    pub(super) async fn due(&self) {
        if self.waiting.is_empty() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep_until(clock::instant(self.due)).await;
    }

    /// Takes the next event, `last` if none follows.
    ///
    /// # Errors
    /// `backend_malformed` when the log has grown too long; those of [`Log::flush`].
    pub(super) async fn add(&mut self, event: &Event, last: bool) -> Result<(), Stop> {
        self.bytes += event.bytes.len();
        if self.bytes > LOG_BYTES_MAX {
            let message = format!("The answer is larger than {} MiB: ask for a shorter one", LOG_BYTES_MAX >> 20);
            return Err(Stop::Failed(Failure::new(Code::BackendMalformed, message)));
        }
        self.waiting.extend_from_slice(&event.bytes);
        if last || self.waiting.len() >= GATHER_BYTES || clock::now() >= self.due { self.flush(last).await } else { Ok(()) }
    }

    /// Appends what has gathered.
    ///
    /// # Errors
    /// `broker_unavailable`, when waiting does not mend it.
    pub(super) async fn flush(&mut self, last: bool) -> Result<(), Stop> {
        while !self.waiting.is_empty() {
            let bytes = self.waiting.split_to(self.waiting.len().min(PIECE_BYTES_MAX));
            let piece = Piece { exec: self.job.exec, number: self.pieces, last: last && self.waiting.is_empty() };
            jobs::log(self.bench.broker.as_ref(), &self.topic, piece, &bytes).await.map_err(|error| {
                tracing::error!(%error, request = %self.job.id, "the events of a job cannot be kept");
                Stop::Failed(Failure::new(Code::BrokerUnavailable, "The answer's events could not be kept: submit the request again"))
            })?;
            self.pieces += 1;
        }
        self.due = clock::now() + GATHER;
        Ok(())
    }
}
