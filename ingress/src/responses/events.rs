//! edge: the events of a background response, numbered so that they can be read on from any of them, at any ingress.
//!
//! Two events are made here, so that a caller knows its id as soon as it is accepted; the rest are the backend's, numbered anew behind
//! them, less those in which it says the same. One that says what the response has become says it under the caller's id.

use super::object;
use crate::jobs::tail::{After, Tail, Told};
use crate::jobs::{STILL_THERE, event_stream};
use crate::refusal;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::stream;
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};
use shared::domain::Operation;
use shared::error::Failure;
use shared::jobs::{Job, State};
use std::collections::BTreeMap;
use std::convert::Infallible;

/// What is told before anything of the backend's, numbered from 0.
const OPENING: [&str; 2] = ["response.created", "response.queued"];

/// The number of the first event of the log.
const FIRST: u64 = OPENING.len() as u64;

/// The place in the log of a reader who has seen the events up to a number.
pub(super) fn place(starting_after: Option<u64>) -> After {
    After { revision: 0, event: starting_after.and_then(|number| number.checked_sub(FIRST)) }
}

pub(super) fn respond(tail: Tail, starting_after: Option<u64>) -> Response {
    let reader = Reader { tail, next: starting_after.map_or(0, |number| number.saturating_add(1)), is_over: false };
    event_stream(Body::from_stream(stream::unfold(reader, |mut reader| async move {
        let event = reader.next().await?;
        Some((Ok::<_, Infallible>(event), reader))
    })))
}

struct Reader {
    tail: Tail,
    /// The number of the first event that its reader has not seen, as long as that is one that is made here.
    next: u64,
    is_over: bool,
}

impl Reader {
    async fn next(&mut self) -> Option<Bytes> {
        let opening = usize::try_from(self.next).ok().and_then(|number| OPENING.get(number));
        if let Some(name) = opening {
            self.next += 1;
            return Some(opened(&self.tail.job.value, name, self.next - 1));
        }
        while !self.is_over {
            match self.tail.next().await {
                Ok(Some(told)) => {
                    if let Some(event) = self.tell(&told) {
                        return Some(event);
                    }
                }
                Ok(None) => self.is_over = true,
                Err(failure) => return Some(self.break_off(&failure)),
            }
        }
        None
    }

    /// Nothing, where it is not for this reader.
    fn tell(&mut self, told: &Told) -> Option<Bytes> {
        let job = &self.tail.job.value;
        match (told, job.state) {
            (Told::Event(event), _) => renumbered(job, &event.frame, event.number + FIRST),
            (Told::Idle, _) => Some(STILL_THERE),
            (Told::State, State::Failed | State::Expired) => {
                let number = self.tail.next_number() + FIRST;
                (number >= self.next).then(|| failed(job, number))
            }
            (Told::State | Told::Restarted, _) => self.tail.setback(told).map(|failure| self.break_off(&failure)),
        }
    }

    fn break_off(&mut self, failure: &Failure) -> Bytes {
        self.is_over = true;
        refusal::event(Some(Operation::Responses), failure)
    }
}

fn opened(job: &Job, name: &str, number: u64) -> Bytes {
    let response = object::unanswered(&Job { state: State::Queued, failure: None, ..job.clone() });
    framed(name, &json!({ "type": name, "sequence_number": number, "response": response }).to_string())
}

fn failed(job: &Job, number: u64) -> Bytes {
    let name = "response.failed";
    framed(name, &json!({ "type": name, "sequence_number": number, "response": object::unanswered(job) }).to_string())
}

/// A backend's event under its number here; nothing of one that says what the opening said.
fn renumbered(job: &Job, frame: &[u8], number: u64) -> Option<Bytes> {
    let text = std::str::from_utf8(frame).ok()?;
    let data: String = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    let mut members: BTreeMap<String, &RawValue> = serde_json::from_str(&data).ok()?;
    let name: String = serde_json::from_str(members.get("type")?.get()).ok()?;
    if OPENING.contains(&name.as_str()) {
        return None;
    }
    let number = to_raw_value(&number).expect("a number is JSON");
    let response = members.get("response").and_then(|response| object::answered(job, response.get().as_bytes()).ok());
    let response: Option<Box<RawValue>> = response.and_then(|json| serde_json::from_slice(&json).ok());
    members.insert("sequence_number".to_owned(), &number);
    if let Some(response) = &response {
        members.insert("response".to_owned(), response);
    }
    Some(framed(&name, &serde_json::to_string(&members).ok()?))
}

fn framed(name: &str, data: &str) -> Bytes {
    format!("event: {name}\ndata: {data}\n\n").into()
}

#[cfg(test)]
mod tests {
    use super::super::object::tests::job;
    use super::*;
    use serde_json::Value;

    fn data(event: &Bytes) -> Value {
        let text = std::str::from_utf8(event).unwrap();
        serde_json::from_str(text.split_once("data: ").unwrap().1).unwrap()
    }

    #[test]
    fn a_backends_event_gets_the_callers_id_and_its_number_here() {
        let frame = b"event: response.completed\ndata: {\"type\":\"response.completed\",\"sequence_number\":9,\"response\":{\"id\":\"x\",\"output\":[1]}}\n\n";
        let event = renumbered(&job(State::Running), frame, 4).unwrap();
        assert!(event.starts_with(b"event: response.completed\ndata: {") && event.ends_with(b"}\n\n"));
        let data = data(&event);
        assert_eq!(
            (&data["sequence_number"], &data["response"]["id"], &data["response"]["output"]),
            (&json!(4), &json!("resp_1"), &json!([1]))
        );
    }

    #[test]
    fn what_the_opening_has_said_is_not_said_again() {
        assert!(renumbered(&job(State::Running), b"data: {\"type\":\"response.created\",\"response\":{}}\n\n", 2).is_none());
        let delta = renumbered(&job(State::Running), b"data: {\"type\":\"response.output_text.delta\",\"delta\":\"a\"}\n\n", 5).unwrap();
        assert_eq!(data(&delta), json!({ "type": "response.output_text.delta", "delta": "a", "sequence_number": 5 }));
    }

    #[test]
    fn a_place_counts_from_behind_the_opening() {
        assert_eq!([None, Some(0), Some(1), Some(2), Some(9)].map(|after| place(after).event), [None, None, None, Some(0), Some(7)]);
    }

    #[test]
    fn the_opening_says_queued_whatever_has_become_of_it() {
        let opened = data(&opened(&job(State::Failed), OPENING[0], 0));
        assert_eq!((&opened["response"]["status"], &opened["response"]["id"]), (&json!("queued"), &json!("resp_1")));
    }
}
