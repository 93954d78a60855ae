//! edge: the answer on its way back to the caller: whole, or as a stream of events passed through as they come.

use crate::exchange::Exchange;
use crate::rate_limit;
use crate::refusal;
use crate::ticket::{AnswerPart, Ticket};
use axum::body::Body;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures::stream;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use shared::domain::Lane;
use shared::error::Failure;
use shared::wire::ReplyHead;
use std::convert::Infallible;

const MODEL: HeaderName = HeaderName::from_static("x-tidemill-model");
const BACKEND: HeaderName = HeaderName::from_static("x-tidemill-backend");
const LANE: HeaderName = HeaderName::from_static("x-tidemill-lane");
const QUEUE_MS: HeaderName = HeaderName::from_static("x-tidemill-queue-ms");
const BATCH_SIZE: HeaderName = HeaderName::from_static("x-tidemill-batch-size");

/// An answer that has at least begun.
pub(crate) enum Reply {
    Whole {
        head: Option<Box<ReplyHead>>,
        body: Bytes,
    },
    Stream {
        first: AnswerPart,
        rest: Ticket,
    },
    /// It is run later: what its caller gets meanwhile.
    Later(Response),
}

/// Waits for the whole answer or, of a stream, for its first part: until then a failure still has a status of its own.
///
/// # Errors
/// How the request ended, when it ended badly.
pub(crate) async fn wait(mut ticket: Ticket, stream: bool) -> Result<Reply, Failure> {
    let first = ticket.next().await?;
    if stream { Ok(Reply::Stream { first, rest: ticket }) } else { whole(first, ticket).await }
}

async fn whole(first: AnswerPart, mut rest: Ticket) -> Result<Reply, Failure> {
    if first.last {
        return Ok(Reply::Whole { head: first.head, body: first.body });
    }
    let (mut head, mut body, mut last) = (first.head, BytesMut::from(first.body), false);
    while !last {
        let part = rest.next().await?;
        if part.number == 0 {
            // Another execution took over: what the first one wrote is void.
            head = part.head;
            body.clear();
        }
        body.extend_from_slice(&part.body);
        last = part.last;
    }
    Ok(Reply::Whole { head, body: body.freeze() })
}

/// Begins the response. The exchange ends with it, or with the last event of its stream.
pub(crate) fn write(reply: Reply, mut exchange: Exchange) -> Response {
    match reply {
        Reply::Whole { head, body } => {
            exchange.first_byte(head);
            exchange.answered();
            respond("application/json", Body::from(body), &exchange)
        }
        Reply::Later(response) => {
            exchange.answered();
            response
        }
        Reply::Stream { mut first, rest } => {
            exchange.first_byte(first.head.take());
            let mut response = respond("text/event-stream", Body::empty(), &exchange);
            response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
            *response.body_mut() = events(first, rest, exchange);
            response
        }
    }
}

fn respond(content_type: &'static str, body: Body, exchange: &Exchange) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(LANE, HeaderValue::from_static(Lane::Interactive.as_str()));
    let served = exchange.head().and_then(|head| head.model.as_deref()).or(exchange.model());
    insert_text(headers, MODEL, served.unwrap_or_default());
    if let Some(head) = exchange.head() {
        insert_text(headers, BACKEND, &head.backend);
        headers.insert(QUEUE_MS, HeaderValue::from(head.queue_ms));
        headers.insert(BATCH_SIZE, HeaderValue::from(head.batch_size));
        if let Some(standing) = &head.standing {
            rate_limit::insert(headers, standing);
        }
    }
    response
}

/// The configuration keeps these names visible ASCII; one that is not is left out.
fn insert_text(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}

fn events(first: AnswerPart, rest: Ticket, exchange: Exchange) -> Body {
    let events = Events { first: Some(first), rest, exchange, at_boundary: true, ended: false };
    Body::from_stream(stream::unfold(events, |mut events| async move {
        let bytes = events.next().await?;
        Some((Ok::<_, Infallible>(bytes), events))
    }))
}

/// A stream under way. Dropped before its end, its ticket cancels the request.
struct Events {
    first: Option<AnswerPart>,
    rest: Ticket,
    exchange: Exchange,
    /// Whether what was sent ends in a whole event.
    at_boundary: bool,
    ended: bool,
}

impl Events {
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let part = match self.first.take() {
            Some(first) => Ok(first),
            None => self.rest.next().await,
        };
        match part {
            Ok(part) => self.pass(part),
            Err(failure) => Some(self.break_off(&failure)),
        }
    }

    fn pass(&mut self, part: AnswerPart) -> Option<Bytes> {
        if part.last {
            self.ended = true;
            self.exchange.answered();
        }
        if part.body.is_empty() && part.last {
            return None;
        }
        self.at_boundary = part.body.ends_with(b"\n\n") || part.body.ends_with(b"\r\n\r\n");
        Some(part.body)
    }

    /// The event that says how the stream broke. It must not melt into half an event before it.
    fn break_off(&mut self, failure: &Failure) -> Bytes {
        self.ended = true;
        self.exchange.failed(failure.code);
        let event = refusal::event(self.exchange.op(), failure);
        if self.at_boundary { event } else { [&b"\n\n"[..], &event].concat().into() }
    }
}
