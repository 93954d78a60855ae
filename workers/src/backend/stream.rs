//! edge: a streamed answer, event by event, until the one that says it is complete and not a byte less: `[DONE]`, or of a
//! response the event that carries it. A stream that ends before it is an error.

use super::response::Body;
use super::response_event::Read;
use super::sse::{Item, Parser, Sse};
use super::{BackendError, answer, classify, response_event};
use bytes::Bytes;
use shared::clock;
use shared::domain::Operation;
use shared::wire::Usage;
use std::borrow::Cow;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};

/// How long the end of the body may lag behind the last event: read to its end, a connection can be used again; a server that
/// holds it open longer loses the connection instead of holding up the caller.
const END_LAG_MAX: Duration = Duration::from_millis(20);

/// One event, framed as `data: …\n\n`, behind `event: …\n` if it has a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub bytes: Bytes,
    /// Of the event that carries it, or, where the caller did not ask for that one, of the last.
    pub usage: Option<Usage>,
    /// The whole response, with the last event of a response's stream.
    pub response: Option<Bytes>,
}

/// The events of one generation. Dropping it ends the generation at the backend.
pub struct EventStream {
    /// `None` once there is nothing more to read; dropping it closes what was not read to its end.
    body: Option<Box<Body>>,
    parser: Parser,
    op: Operation,
    /// The caller has not asked for usage: the event that says nothing else is kept back.
    hides_usage: bool,
    /// What was kept back.
    usage: Option<Usage>,
    is_done: bool,
    silence_max: Duration,
    /// When the silence that is under way has lasted too long.
    silent_until: Option<Instant>,
}

impl EventStream {
    pub(crate) fn new(op: Operation, body: Body, hides_usage: bool, silence_max: Duration) -> Self {
        let parser = if op == Operation::Responses { Parser::of_named() } else { Parser::default() };
        Self { body: Some(Box::new(body)), parser, op, hides_usage, usage: None, is_done: false, silence_max, silent_until: None }
    }

    /// The next event, the last included; `None` after that or after an error. May be dropped and asked again without loss.
    ///
    /// # Errors
    /// An error event, an event that is not a JSON object, silence for longer than the backend's timeout, a broken
    /// connection, and an end before the last event.
    pub async fn next(&mut self) -> Option<Result<Event, BackendError>> {
        let body = self.body.as_mut()?;
        if self.is_done {
            // However this ends, the answer was complete.
            let _ = timeout(END_LAG_MAX, body.chunk()).await;
            self.body = None;
            return None;
        }
        let event = self.read().await;
        if event.is_err() {
            self.body = None;
        }
        Some(event)
    }

    /// Whether the last event has been handed out.
    pub const fn is_complete(&self) -> bool {
        self.is_done
    }

    /// The next event if it has come already with an earlier one. An error ends the stream, as one of [`Self::next`] does.
    pub fn ready(&mut self) -> Option<Result<Event, BackendError>> {
        if self.is_done || self.body.is_none() {
            return None;
        }
        let event = self.parsed().transpose()?;
        if event.is_err() {
            self.body = None;
        }
        Some(event)
    }

    async fn read(&mut self) -> Result<Event, BackendError> {
        loop {
            if let Some(event) = self.parsed()? {
                return Ok(event);
            }
            self.fill().await?;
        }
    }

    /// The next event of what has been read.
    fn parsed(&mut self) -> Result<Option<Event>, BackendError> {
        while let Some(item) = self.parser.next().map_err(|e| classify::malformed(&e))? {
            self.silent_until = None;
            if let Item::Event(event) = item
                && let Some(event) = self.judge(event)?
            {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// Reads one more piece. Only whole events and comments break the silence: a backend that drips bytes is silent.
    async fn fill(&mut self) -> Result<(), BackendError> {
        let silence_max = self.silence_max;
        let until = *self.silent_until.get_or_insert_with(|| clock::instant(clock::now() + silence_max));
        let Some(body) = self.body.as_mut() else { return Err(classify::interrupted("read after its end")) };
        match timeout_at(until, body.chunk()).await {
            Ok(Some(Ok(piece))) => self.parser.push(&piece),
            Ok(Some(Err(broken))) => return Err(classify::interrupted(&broken.0)),
            Ok(None) => return Err(classify::interrupted("ended before its last event")),
            Err(_) => return Err(classify::timed_out(silence_max)),
        }
        Ok(())
    }

    fn judge(&mut self, event: Sse) -> Result<Option<Event>, BackendError> {
        let data = event.data();
        if event.is_error {
            return Err(answer::failed(&data));
        }
        let read = match self.op {
            Operation::Responses => response_event::read(&data)?,
            _ if data.as_ref() == b"[DONE]" => Read { usage: self.usage, is_last: true, ..Read::default() },
            _ => {
                let chunk = answer::chunk(&data)?;
                if self.hides_usage && chunk.is_only_usage {
                    self.usage = chunk.usage;
                    return Ok(None);
                }
                Read { usage: chunk.usage, ..Read::default() }
            }
        };
        self.is_done = read.is_last;
        let response = read.response.map(|response| match &data {
            Cow::Borrowed(_) => event.frame.slice_ref(response.get().as_bytes()),
            Cow::Owned(_) => Bytes::copy_from_slice(response.get().as_bytes()),
        });
        Ok(Some(Event { usage: read.usage, response, bytes: event.frame }))
    }
}
