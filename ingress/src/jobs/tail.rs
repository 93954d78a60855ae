//! loop: one reader of one job: its states as its record says them and, if its answer is streamed, the events of its log.
//!
//! A reader is bound to one execution: the one that the record names as begun last, and in the end the one whose outcome counts. When that
//! becomes another, what was told is void, and the reader hears so before anything else. The last events of an answer
//! are held back until the record says that they are the answer.

use super::reel::{Numbered, Reel};
use super::watch::{Listener, look};
use crate::gate::Gate;
use crate::native;
use futures::future::pending;
use shared::broker::{BrokerError, Entry, Feed, Follower, Journal, Since};
use shared::clock::{self, Time};
use shared::domain::ExecId;
use shared::error::{Code, Failure};
use shared::jobs::{self, Job, State, Stored};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{sleep, sleep_until};

/// A reader who has heard nothing for this long is told so, that proxies keep the connection.
const IDLE: Duration = Duration::from_secs(10);

/// How long the log is asked at once. Longer than [`IDLE`]: the asking is not cut short.
const ASK: Duration = Duration::from_secs(15);

/// The log of an answer that counts holds its end, written before the record said so: one that is not read by then is lost.
const END_WITHIN: Duration = Duration::from_secs(5);

/// Of an attempt that failed, what is read within this is what there is.
const REST_WITHIN: Duration = Duration::from_millis(100);

/// Before the log is asked again that did not answer.
const PAUSE: Duration = Duration::from_secs(1);

/// What a reader is told.
#[derive(Debug)]
pub(crate) enum Told {
    /// The record has changed; the last, when the job has ended.
    State,
    Event(Numbered),
    /// The events told before are void: another execution has taken their place, whose events follow.
    Restarted,
    /// Nothing has happened for a while.
    Idle,
}

/// From where on a reader wants to hear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct After {
    /// The revision of the record they have seen.
    pub(crate) revision: u64,
    /// The last event.
    pub(crate) event: Option<u64>,
}

pub(crate) struct Tail {
    gate: Arc<Gate>,
    pub(crate) job: Stored<Job>,
    listener: Listener,
    after: After,
    log: Option<Log>,
    to_tell: VecDeque<Told>,
    /// When they are told that nothing has happened.
    idle_at: Time,
    ended: bool,
    _seat: OwnedSemaphorePermit,
}

/// The log, as far as it has been read.
struct Log {
    exec: ExecId,
    follower: Box<dyn Follower>,
    reel: Reel,
    /// The last events, until they count.
    held: Vec<Numbered>,
    /// They are there.
    is_through: bool,
    has_told: bool,
}

impl Tail {
    /// # Errors
    /// `overloaded`, when too many read here.
    pub(crate) fn new(gate: Arc<Gate>, job: Stored<Job>, after: After) -> Result<Self, Failure> {
        let seat = gate.watch.seat()?;
        let listener = gate.watch.listen(job.value.id.as_str());
        let (to_tell, idle_at) = (VecDeque::new(), clock::now() + IDLE);
        let mut tail = Self { gate, job, listener, after, log: None, to_tell, idle_at, ended: false, _seat: seat };
        tail.tell_state();
        Ok(tail)
    }

    /// Why the answer has come to a bad end with this; nothing where it goes on, or has ended well.
    pub(crate) fn setback(&self, told: &Told) -> Option<Failure> {
        let Job { state, failure, .. } = &self.job.value;
        match (told, state) {
            (Told::Restarted, _) => Some(void("another attempt has taken its place")),
            (Told::State, State::Failed | State::Expired) => failure.as_deref().cloned(),
            (Told::State, State::Cancelled) => Some(Failure::new(Code::Cancelled, "It was cancelled")),
            (Told::State, State::Succeeded) if self.log.as_ref().is_some_and(|log| !log.is_through) => Some(void("its end is lost")),
            _ => None,
        }
    }

    /// The number that an event would have which follows those in the log.
    pub(crate) fn next_number(&self) -> u64 {
        self.log.as_ref().map_or(0, |log| log.reel.next())
    }

    /// What there is to tell next. `None`: the job has ended and all is told.
    ///
    /// # Errors
    /// `not_found` when it is deleted meanwhile; `broker_unavailable`.
    pub(crate) async fn next(&mut self) -> Result<Option<Told>, Failure> {
        loop {
            if let Some(told) = self.to_tell.pop_front() {
                self.idle_at = clock::now() + IDLE;
                return Ok(Some(told));
            }
            if self.ended {
                return Ok(None);
            }
            self.bind().await?;
            if self.job.value.state.is_terminal() {
                self.finish().await?;
                continue;
            }
            tokio::select! {
                entry = ask(&mut self.log, ASK) => self.hear(entry?).await?,
                () = self.listener.rung() => self.look().await?,
                () = sleep_until(clock::instant(self.idle_at)) => self.to_tell.push_back(Told::Idle),
            }
        }
    }

    async fn look(&mut self) -> Result<(), Failure> {
        let job = look(self.gate.broker(), &self.job.value).await.map_err(|error| native::of_store(&error))?;
        if job.revision > self.job.revision {
            self.job = job;
            self.tell_state();
        }
        Ok(())
    }

    /// Its end is not told before all else is.
    fn tell_state(&mut self) {
        if self.job.revision > self.after.revision && !self.job.value.state.is_terminal() {
            self.after.revision = self.job.revision;
            self.to_tell.push_back(Told::State);
        }
    }

    /// Reads the log for the execution that counts now.
    async fn bind(&mut self) -> Result<(), Failure> {
        let Job { stream, winner, exec, .. } = self.job.value;
        let Some(exec) = winner.or(exec).filter(|_| stream) else { return Ok(()) };
        match self.log.as_ref().map(|log| (log.exec == exec, log.has_told)) {
            Some((true, _)) => Ok(()),
            Some((false, true)) => self.restart(exec).await,
            Some((false, false)) | None => self.open(exec).await,
        }
    }

    async fn restart(&mut self, exec: ExecId) -> Result<(), Failure> {
        self.after.event = None;
        self.to_tell.push_back(Told::Restarted);
        self.open(exec).await
    }

    async fn open(&mut self, exec: ExecId) -> Result<(), Failure> {
        let feed = Feed::Journal(Journal::Results, Some(jobs::log_topic(&self.job.value.id)));
        let follower = self.gate.broker().follow(&feed, Since::Start).await.map_err(|error| native::of_broker(&error))?;
        self.log = Some(Log { exec, follower, reel: Reel::default(), held: Vec::new(), is_through: false, has_told: false });
        Ok(())
    }

    /// Takes an entry of the log in.
    async fn hear(&mut self, entry: Option<Entry>) -> Result<(), Failure> {
        let (Some(log), Some(entry)) = (&mut self.log, entry) else { return Ok(()) };
        let Some((piece, bytes)) = entry.value.as_ref().and_then(jobs::read_piece) else { return Ok(()) };
        let mut events = log.reel.hear(piece, &bytes);
        if piece.exec != log.exec {
            let exec = log.exec;
            return match self.after.event {
                // The reader comes from an attempt that is void.
                Some(after) if events.iter().any(|event| event.number == after) => self.restart(exec).await,
                // The record may have said so already.
                _ if piece.number == 0 => self.look().await,
                _ => Ok(()),
            };
        }
        events.retain(|event| self.after.event.is_none_or(|after| event.number > after));
        if piece.last {
            (log.held, log.is_through) = (events, true);
        } else {
            log.has_told |= !events.is_empty();
            self.to_tell.extend(events.into_iter().map(Told::Event));
        }
        Ok(())
    }

    /// The job has ended: tells what is left of its log, and the end.
    async fn finish(&mut self) -> Result<(), Failure> {
        let within = if self.job.value.state == State::Succeeded { END_WITHIN } else { REST_WITHIN };
        let unread = self.log.as_ref().is_some_and(|log| !log.is_through);
        if unread && let Some(entry) = ask(&mut self.log, within).await? {
            return self.hear(Some(entry)).await;
        }
        if let Some(log) = &mut self.log {
            self.to_tell.extend(log.held.drain(..).map(Told::Event));
        }
        if self.job.revision > self.after.revision {
            self.to_tell.push_back(Told::State);
        }
        self.ended = true;
        Ok(())
    }
}

fn void(why: &str) -> Failure {
    Failure::new(Code::StreamInterrupted, format!("This stream is void, because {why}: read it again from its beginning"))
}

/// The next entry of a log. Cancel-safe. Waits for ever where there is no log yet.
async fn ask(log: &mut Option<Log>, wait: Duration) -> Result<Option<Entry>, Failure> {
    let Some(log) = log else { return pending().await };
    loop {
        match log.follower.next(wait).await {
            Err(BrokerError::Unavailable(_)) => sleep(PAUSE).await,
            entry => return entry.map_err(|error| native::of_broker(&error)),
        }
    }
}
