//! loop: one request and its answer, as its caller saw it.

use crate::clock::Stopwatch;
use crate::connection::{Connection, ConnectionError};
use crate::sse;
use crate::work::{Check, Mode, Work};
use serde_json::Value;
use std::time::Duration;

/// One good answer, in times from the run's beginning.
pub struct Seen {
    pub first_byte: Duration,
    pub ended: Duration,
}

/// Why an answer does not count.
pub enum Bad {
    Connection(ConnectionError),
    Status(u16, String),
    WrongAnswer,
    BrokenStream,
    /// The server was too far behind.
    NeverSent,
    NeverAnswered,
}

/// What a whole stream ends with, blank lines aside.
const END: &[u8] = b"data: [DONE]";

/// Sends the index-th request of the work and looks at the answer: at its content only if it is to be `checked`, since
/// the generator must stay cheaper than what it measures.
pub async fn ask(connection: &mut Connection, work: &Work, index: u64, checked: bool, began: Stopwatch) -> Result<Seen, Bad> {
    let mut first_byte = Duration::ZERO;
    let status = connection.post(work.path(), index, &work.body(index), || first_byte = began.elapsed()).await?;
    let ended = began.elapsed();
    let body = connection.body();
    if status != 200 {
        return Err(Bad::Status(status, code(body)));
    }
    match work.mode {
        Mode::Stream => judge_stream(work, index, checked, body)?,
        Mode::Chat | Mode::Embed => judge_whole(work, index, checked, body)?,
    }
    Ok(Seen { first_byte, ended })
}

fn judge_whole(work: &Work, index: u64, checked: bool, body: &[u8]) -> Result<(), Bad> {
    let is_right = !checked || matches!(work.check, Check::Status) || work.is_right(index, &String::from_utf8_lossy(body));
    if is_right { Ok(()) } else { Err(Bad::WrongAnswer) }
}

fn judge_stream(work: &Work, index: u64, checked: bool, body: &[u8]) -> Result<(), Bad> {
    if !body.trim_ascii_end().ends_with(END) {
        return Err(Bad::BrokenStream);
    }
    if checked && !work.is_right(index, &words(&work.check, body)?) {
        return Err(Bad::WrongAnswer);
    }
    Ok(())
}

/// The words of a stream, joined. An error event makes it a broken one.
fn words(check: &Check, body: &[u8]) -> Result<String, Bad> {
    let mut parser = sse::Parser::default();
    parser.push(body).map_err(|_| Bad::BrokenStream)?;
    let mut words = String::new();
    for data in std::iter::from_fn(|| parser.next_event()).filter(|data| data != "[DONE]") {
        if data.starts_with("{\"error\"") {
            return Err(Bad::BrokenStream);
        }
        if !matches!(check, Check::Status) {
            let event: Value = serde_json::from_str(&data).map_err(|_| Bad::BrokenStream)?;
            words.push_str(event["choices"][0]["delta"]["content"].as_str().unwrap_or_default());
        }
    }
    Ok(words)
}

/// The `code` of an error body; empty when there is none.
fn code(body: &[u8]) -> String {
    let error: Value = serde_json::from_slice(body).unwrap_or_default();
    error["error"]["code"].as_str().unwrap_or_default().to_owned()
}

impl From<ConnectionError> for Bad {
    fn from(error: ConnectionError) -> Self {
        Self::Connection(error)
    }
}

impl Bad {
    pub fn name(&self) -> String {
        match self {
            Self::Connection(error) => error.to_string(),
            Self::Status(status, code) => format!("{status} {code}").trim_end().to_owned(),
            Self::WrongAnswer => "an answer that belongs to another request".into(),
            Self::BrokenStream => "a stream that broke off".into(),
            Self::NeverSent => "not sent: the server was too far behind".into(),
            Self::NeverAnswered => "no answer in time".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tag;

    fn work() -> Work {
        Work { mode: Mode::Stream, model: "m".into(), inputs: 1, texts: vec!["a".to_owned()].into(), check: Check::Tag("k".into()) }
    }

    fn stream(words: &str) -> Vec<u8> {
        let (first, rest) = words.split_at(words.len() / 2);
        let event = |words: &str| format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{words}\"}}}}]}}\n\n");
        format!("{}{}data: [DONE]\n\n", event(first), event(rest)).into_bytes()
    }

    #[test]
    fn a_stream_is_judged_by_its_joined_words() {
        let right = stream(&tag::of("k", "3 a"));
        assert!(judge_stream(&work(), 3, true, &right).is_ok());
        assert!(matches!(judge_stream(&work(), 4, true, &right), Err(Bad::WrongAnswer)));
        assert!(judge_stream(&work(), 4, false, &right).is_ok(), "not looked at");
    }

    #[test]
    fn a_cut_stream_is_broken_even_if_it_is_not_looked_at() {
        let mut cut = stream("x");
        cut.truncate(cut.len() - 4);
        assert!(matches!(judge_stream(&work(), 0, false, &cut), Err(Bad::BrokenStream)));
    }

    #[test]
    fn an_error_event_breaks_a_stream() {
        let body = b"data: {\"error\":{}}\n\ndata: [DONE]\n\n";
        assert!(matches!(judge_stream(&work(), 0, true, body), Err(Bad::BrokenStream)));
    }
}
