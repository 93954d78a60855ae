//! core: the one table from what went wrong at a backend to what the caller reads, the log says, and who may be at fault.

use super::http::CallError;
use super::{BackendError, Blame};
use shared::error::{Code, Failure};
use shared::wire::Fault;
use std::error::Error;
use std::fmt::{Display, Write};
use std::time::Duration;

/// How much of a backend's own message the caller is shown, in characters: the reason stands at the beginning.
const MESSAGE_CHARS_MAX: usize = 300;

/// How long a backend is left alone that is asked too much and does not say how long.
const RETRY_AFTER_MS: u32 = 1_000;

fn error(code: Code, sentence: impl Into<String>, fault: Fault, detail: impl Into<String>) -> BackendError {
    BackendError { failure: Failure::new(code, sentence), fault, blame: Blame::of(fault), detail: detail.into() }
}

/// No answer at all: connecting failed, or the connection broke before the status line.
pub(crate) fn call(cause: &CallError) -> BackendError {
    let detail = with_causes(cause);
    if cause.is_connect() { unreachable(detail) } else { broken(&detail) }
}

pub(crate) fn unreachable(detail: String) -> BackendError {
    let sentence = "The model's backend cannot be reached; try again in a moment.";
    error(Code::BackendUnreachable, sentence, Fault::Connect, detail)
}

/// The connection broke after the call had been sent. A server that crashes on one input looks just so.
pub(crate) fn broken(detail: &str) -> BackendError {
    let sentence = "The model's backend closed the connection before it had answered; try again.";
    error(Code::BackendUnreachable, sentence, Fault::Broken, format!("broken off: {detail}"))
}

pub(crate) fn timed_out(after: Duration) -> BackendError {
    let sentence = "The model's backend did not answer in time; try again, or ask for a shorter answer.";
    error(Code::BackendTimeout, sentence, Fault::Timeout, format!("silent for {after:?}"))
}

/// A status that is no success. `message` is the backend's own.
pub(crate) fn status(status: u16, retry_after_ms: Option<u32>, message: Option<&str>) -> BackendError {
    let detail = format!("status {status}");
    match status {
        400 | 413 | 422 => rejected(status, message, detail),
        // The model or the path is not there, whatever else was in the call.
        404 => missing(message, detail),
        401 | 403 => {
            let sentence = "The model's backend does not accept this gateway's key for it; tell the operator.";
            error(Code::BackendStatus, sentence, Fault::Denied, detail)
        }
        429 => {
            let sentence = "The model's backend has reached its rate limit; try again after a wait.";
            let mut limited = error(Code::BackendRateLimited, sentence, Fault::RateLimited, detail);
            limited.failure.retry_after_ms = retry_after_ms.or(Some(RETRY_AFTER_MS));
            limited
        }
        500 => failed(status, retry_after_ms, Fault::ServerError, detail),
        _ => failed(status, retry_after_ms, Fault::Unavailable, detail),
    }
}

/// What a model in this process says of a request that it will never take.
#[cfg(feature = "local")]
pub(crate) fn refused(sentence: impl Into<String>, blame: Blame) -> BackendError {
    BackendError { blame, ..error(Code::BackendRejected, sentence, Fault::Rejected, "refused by the local model") }
}

/// A model in this process that failed in the middle of its work.
#[cfg(feature = "local")]
pub(crate) fn broken_down(detail: impl Into<String>) -> BackendError {
    let sentence = "The model failed; try again, and tell the operator if it stays so.";
    error(Code::BackendStatus, sentence, Fault::ServerError, detail)
}

fn rejected(status: u16, message: Option<&str>, detail: String) -> BackendError {
    let sentence = match message.map(presentable) {
        Some(message) if !message.is_empty() => format!("The model's backend rejected the request: {message}"),
        _ => format!("The model's backend rejected the request with status {status}; check its parameters."),
    };
    error(Code::BackendRejected, sentence, Fault::Rejected, detail)
}

fn missing(message: Option<&str>, detail: String) -> BackendError {
    let why = message.map(presentable).filter(|message| !message.is_empty());
    let why = why.map_or_else(|| "status 404".to_owned(), |message| format!("status 404: {message}"));
    let sentence = format!("The model's backend does not know the model or the path ({why}); tell the operator.");
    error(Code::BackendStatus, sentence, Fault::Missing, detail)
}

fn failed(status: u16, retry_after_ms: Option<u32>, fault: Fault, detail: String) -> BackendError {
    let sentence = format!("The model's backend failed with status {status}; try again.");
    let mut failed = error(Code::BackendStatus, sentence, fault, detail);
    failed.failure.retry_after_ms = retry_after_ms;
    failed
}

/// An answer that cannot be read. `why` never quotes it.
pub(crate) fn malformed(why: &dyn Display) -> BackendError {
    let sentence = "The model's backend gave an answer that cannot be read; try again, and tell the operator if it stays so.";
    error(Code::BackendMalformed, sentence, Fault::Malformed, format!("malformed: {why}"))
}

pub(crate) fn wrong_count(got: usize, wanted: u32) -> BackendError {
    let sentence = "The model's backend answered another number of inputs than it was sent; try again.";
    error(Code::BackendWrongCount, sentence, Fault::Malformed, format!("{got} vectors for {wanted} inputs"))
}

/// A stream that had begun and did not come to its end.
pub(crate) fn interrupted(detail: &str) -> BackendError {
    let sentence = "The model's backend broke off in the middle of the stream: the answer is not complete; try again.";
    error(Code::StreamInterrupted, sentence, Fault::Broken, detail)
}

/// A backend's message as one line of bounded length.
fn presentable(message: &str) -> String {
    let line: String = message.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(MESSAGE_CHARS_MAX + 1).collect();
    match line.char_indices().nth(MESSAGE_CHARS_MAX) {
        Some((cut, _)) => format!("{}…", &line[..cut]),
        None => line,
    }
}

/// An error and its causes in one line: hyper's own words stop before the system's reason.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Writing to a string does not fail.
        let _ = write!(line, ": {error}");
        cause = error.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use Blame::{Backend, MaybeItem};

    #[test]
    fn each_status_has_its_code_its_fault_and_its_blame() {
        let table = [
            (400, Code::BackendRejected, Fault::Rejected, MaybeItem),
            (413, Code::BackendRejected, Fault::Rejected, MaybeItem),
            (422, Code::BackendRejected, Fault::Rejected, MaybeItem),
            (404, Code::BackendStatus, Fault::Missing, Backend),
            (401, Code::BackendStatus, Fault::Denied, Backend),
            (403, Code::BackendStatus, Fault::Denied, Backend),
            (429, Code::BackendRateLimited, Fault::RateLimited, Backend),
            (500, Code::BackendStatus, Fault::ServerError, MaybeItem),
            (502, Code::BackendStatus, Fault::Unavailable, Backend),
            (503, Code::BackendStatus, Fault::Unavailable, Backend),
            (302, Code::BackendStatus, Fault::Unavailable, Backend),
        ];
        for (number, code, fault, blame) in table {
            let error = status(number, None, None);
            assert_eq!((error.failure.code, error.fault, error.blame), (code, fault, blame), "{number}");
        }
    }

    #[test]
    fn a_wait_the_backend_asks_for_is_passed_on() {
        assert_eq!(status(429, Some(7_000), None).failure.retry_after_ms, Some(7_000));
        assert_eq!(status(503, Some(1_000), None).failure.retry_after_ms, Some(1_000));
        assert_eq!(status(429, None, None).failure.retry_after_ms, Some(1_000), "one that does not say how long rests a moment");
    }

    #[test]
    fn a_rejection_carries_the_backends_reason_in_one_bounded_line() {
        let long = format!("too\nlong \u{1b}[31m{}", "ü".repeat(500));
        let message = status(400, None, Some(&long)).failure.message;
        assert!(message.contains("rejected the request: too long  [31mü"), "{message}");
        assert!(!message.contains(char::is_control));
        assert!(message.chars().count() < MESSAGE_CHARS_MAX + 60 && message.ends_with('…'), "{message}");
    }

    #[test]
    fn our_key_being_refused_shows_nothing_of_what_the_backend_said() {
        let error = status(401, None, Some("Incorrect API key provided: sk-canary"));
        assert!(!format!("{error} {:?}", error.failure).contains("canary"));
    }
}
