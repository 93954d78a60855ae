//! core: one segment of a batch under way: which of its lines have their outcome, and what becomes of them in the files.

use crate::refusal::ErrorBody;
use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use shared::clock::Time;
use shared::domain::{RequestId, Token};
use shared::error::{Code, Failure};
use shared::jobs::{Cursor, Outcome, Place};
use std::borrow::Cow;
use uuid::Uuid;

/// A line, as the files name it.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) custom_id: Option<Box<str>>,
    /// In the input file, from 1.
    pub(crate) line: u64,
}

#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) number: u32,
    pub(crate) start: Cursor,
    pub(crate) end: Cursor,
    pub(crate) frames: Vec<Place>,
    /// When something of it was last heard.
    pub(crate) heard_at: Time,
    rows: Vec<Row>,
    /// Rows whose bodies are in the blob store.
    pub(crate) large: Vec<u32>,
    outcomes: Vec<Option<(Outcome, Bytes)>>,
    missing: usize,
    /// Bytes of the answers that are held.
    pub(crate) bytes: usize,
}

/// What the rows of a settled segment add to the batch's files and counts.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    pub(crate) output: Vec<u8>,
    pub(crate) errors: Vec<u8>,
    pub(crate) completed: u64,
    pub(crate) failed: u64,
    pub(crate) input_tokens: u64,
    pub(crate) output_tokens: u64,
}

impl Segment {
    pub(crate) fn new(number: u32, (start, end): (Cursor, Cursor), rows: Vec<Row>, large: Vec<u32>, now: Time) -> Self {
        let outcomes = rows.iter().map(|_| None).collect();
        Self { number, start, end, frames: Vec::new(), heard_at: now, missing: rows.len(), rows, large, outcomes, bytes: 0 }
    }

    /// Takes in a row's outcome, if it is its first.
    pub(crate) fn hear(&mut self, outcome: Outcome, body: Bytes, now: Time) {
        self.heard_at = now;
        let Some(place @ None) = self.outcomes.get_mut(outcome.row as usize) else { return };
        self.bytes += body.len();
        self.missing -= 1;
        *place = Some((outcome, body));
    }

    pub(crate) const fn is_settled(&self) -> bool {
        self.missing == 0
    }

    pub(crate) fn missing(&self) -> impl Iterator<Item = u32> {
        self.outcomes.iter().zip(0..).filter(|(outcome, _)| outcome.is_none()).map(|(_, row)| row)
    }

    /// The rows with their outcomes and answers, in the order of the input. Each has an outcome. The answer of one whose outcome names
    /// a blob is there.
    pub(crate) fn settled(&self) -> impl Iterator<Item = (&Row, &Outcome, &Bytes)> {
        self.rows.iter().zip(&self.outcomes).map(|(row, place)| {
            let (outcome, body) = place.as_ref().expect("a settled segment lacks no outcome");
            (row, outcome, body)
        })
    }
}

impl Settled {
    /// Adds a row's line to one of the files.
    pub(crate) fn add(&mut self, row: &Row, outcome: &Outcome, body: &Bytes) {
        self.input_tokens += u64::from(outcome.usage.input);
        self.output_tokens += u64::from(outcome.usage.output);
        match answer(outcome, body) {
            Ok(answer) => {
                self.completed += 1;
                line(&mut self.output, row, outcome, Some((200, answer)), None);
            }
            Err(failure) => {
                self.failed += 1;
                failed(&mut self.errors, row, outcome, &failure);
            }
        }
    }
}

/// The id of a row's request: the same whenever the row is published.
pub fn row_id(batch: &Token, segment: u32, row: u32) -> RequestId {
    let mut hasher = blake3::Hasher::new();
    hasher.update(batch.as_str().as_bytes()).update(&segment.to_le_bytes()).update(&row.to_le_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    RequestId(Uuid::new_v8(bytes))
}

#[derive(Serialize)]
struct OutputLine<'a, B: Serialize> {
    id: String,
    custom_id: Option<&'a str>,
    response: Option<Response<B>>,
    error: Option<LineError<'a>>,
}

#[derive(Serialize)]
struct Response<B: Serialize> {
    status_code: u16,
    request_id: String,
    body: B,
}

#[derive(Serialize)]
struct LineError<'a> {
    code: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    param: Option<&'a str>,
    line: u64,
}

fn answer<'a>(outcome: &'a Outcome, body: &'a Bytes) -> Result<&'a RawValue, Cow<'a, Failure>> {
    if let Some(failure) = &outcome.failure {
        return Err(Cow::Borrowed(failure));
    }
    let malformed = || Failure::new(Code::BackendMalformed, "The backend's answer was not JSON: submit the line again");
    serde_json::from_slice(body).map_err(|_| Cow::Owned(malformed()))
}

/// A line that never ran has an `error`; one whose request failed has the `response` that its caller would have had.
fn failed(into: &mut Vec<u8>, row: &Row, outcome: &Outcome, failure: &Failure) {
    let Failure { code, message, param, .. } = failure;
    if outcome.exec.is_none() {
        let error = LineError { code: code.as_str(), message, param: param.as_deref(), line: row.line };
        return line::<()>(into, row, outcome, None, Some(error));
    }
    line(into, row, outcome, Some((code.status(), ErrorBody::of(failure))), None);
}

fn line<B: Serialize>(into: &mut Vec<u8>, row: &Row, outcome: &Outcome, response: Option<(u16, B)>, error: Option<LineError<'_>>) {
    let request_id = outcome.id.to_string();
    let id = format!("batch_{request_id}");
    let response = response.map(|(status_code, body)| Response { status_code, request_id, body });
    let line = OutputLine { id, custom_id: row.custom_id.as_deref(), response, error };
    serde_json::to_writer(&mut *into, &line).expect("memory takes every write");
    into.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use shared::entropy;
    use shared::wire::Usage;

    fn outcome(row: u32, failure: Option<Failure>, ran: bool) -> Outcome {
        let id = row_id(&Token::parse("batch_1").unwrap(), 3, row);
        let usage = Usage { input: 2, output: 1 };
        Outcome { row, id, exec: ran.then(entropy::exec_id), failure: failure.map(Box::new), usage, blob: None }
    }

    fn segment(rows: u64) -> Segment {
        let row = |n| Row { custom_id: (n != 1).then(|| format!("row \"{n}\"").into()), line: n + 10 };
        Segment::new(3, Default::default(), (0..rows).map(row).collect(), Vec::new(), Time::ZERO)
    }

    fn settle(segment: &Segment) -> Settled {
        let mut settled = Settled::default();
        segment.settled().for_each(|(row, outcome, body)| settled.add(row, outcome, body));
        settled
    }

    fn lines(bytes: &[u8]) -> Vec<Value> {
        bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty()).map(|line| serde_json::from_slice(line).unwrap()).collect()
    }

    #[test]
    fn every_line_is_in_one_of_the_files_once() {
        let mut segment = segment(3);
        let body = Bytes::from_static(br#"{"object":"list","data":[1.5]}"#);
        segment.hear(outcome(2, None, true), body, Time::ZERO);
        segment.hear(outcome(1, Some(Failure::new(Code::InvalidJson, "no")), false), Bytes::new(), Time::ZERO);
        assert!(!segment.is_settled() && segment.missing().collect::<Vec<_>>() == [0]);
        segment.hear(outcome(0, Some(Failure::new(Code::BackendStatus, "it broke")), true), Bytes::new(), Time::ZERO);
        assert!(segment.is_settled());
        let settled = settle(&segment);
        assert_eq!((settled.completed, settled.failed, settled.input_tokens), (1, 2, 6));
        let (output, errors) = (lines(&settled.output), lines(&settled.errors));
        assert_eq!(output.len(), 1);
        assert_eq!((&output[0]["custom_id"], &output[0]["response"]["body"]["data"]), (&json!("row \"2\""), &json!([1.5])));
        assert_eq!((&errors[0]["response"]["status_code"], &errors[0]["error"]), (&json!(502), &Value::Null));
        assert_eq!((&errors[1]["custom_id"], &errors[1]["error"]["line"]), (&Value::Null, &json!(11)));
    }

    #[test]
    fn the_first_outcome_of_a_row_counts() {
        let mut segment = segment(1);
        segment.hear(outcome(0, None, true), Bytes::from_static(b"1"), Time::ZERO);
        segment.hear(outcome(0, Some(Failure::new(Code::Internal, "late")), true), Bytes::new(), Time::ZERO);
        segment.hear(outcome(9, None, true), Bytes::new(), Time::ZERO);
        assert_eq!(settle(&segment).completed, 1);
    }

    #[test]
    fn a_rows_request_has_one_id_for_good_and_another_than_its_neighbours() {
        let batch = Token::parse("batch_1").unwrap();
        assert_eq!(row_id(&batch, 1, 2), row_id(&batch, 1, 2));
        assert_ne!(row_id(&batch, 1, 2), row_id(&batch, 2, 1));
    }
}
