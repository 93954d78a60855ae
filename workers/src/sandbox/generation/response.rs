//! core: a generation as a response: the object, and the events in which it grows, each with its number.

use super::{CREATED, Generation};
use crate::sandbox::reply::Piece;
use bytes::Bytes;
use std::time::Duration;

/// Where a stream of a response stands: the response, in it its one message, in that its one part, the text.
#[derive(Clone, Copy)]
enum Step {
    Created,
    ItemAdded,
    PartAdded,
    Delta(u32),
    TextDone,
    PartDone,
    ItemDone,
    Completed,
}

impl Generation {
    /// The whole answer.
    pub(super) fn response(&self) -> String {
        self.object("completed", &self.item("completed", &part(&self.text())), &self.response_usage())
    }

    /// The stream's events, each when it is due.
    pub(super) fn response_events(self) -> impl Iterator<Item = Piece> + Send + 'static {
        let tokens = self.call.tokens;
        let steps = std::iter::successors(Some(Step::Created), move |step| step.next(tokens));
        steps.zip(0_u32..).map(move |(step, number)| Piece::new(self.response_due(step), self.response_event(step, number)))
    }

    fn response_due(&self, step: Step) -> Duration {
        match step {
            Step::Created | Step::ItemAdded | Step::PartAdded => self.first,
            Step::Delta(index) => self.first + self.each * index,
            Step::TextDone | Step::PartDone | Step::ItemDone | Step::Completed => self.duration(),
        }
    }

    fn response_event(&self, step: Step, number: u32) -> Bytes {
        let message = format!(r#""item_id":"msg_{:016x}","output_index":0,"content_index":0"#, self.tag);
        let (kind, members) = match step {
            Step::Created => ("created", format!(r#""response":{}"#, self.object("in_progress", "", "null"))),
            Step::ItemAdded => ("output_item.added", format!(r#""output_index":0,"item":{}"#, self.item("in_progress", ""))),
            Step::PartAdded => ("content_part.added", format!(r#"{message},"part":{}"#, part(""))),
            Step::Delta(index) => ("output_text.delta", format!(r#"{message},"delta":"{}","logprobs":[]"#, self.token(index))),
            Step::TextDone => ("output_text.done", format!(r#"{message},"text":"{}","logprobs":[]"#, self.text())),
            Step::PartDone => ("content_part.done", format!(r#"{message},"part":{}"#, part(&self.text()))),
            Step::ItemDone => ("output_item.done", format!(r#""output_index":0,"item":{}"#, self.item("completed", &part(&self.text())))),
            Step::Completed => ("completed", format!(r#""response":{}"#, self.response())),
        };
        let data = format!(r#"{{"type":"response.{kind}","sequence_number":{number},{members}}}"#);
        format!("event: response.{kind}\ndata: {data}\n\n").into()
    }

    fn object(&self, status: &str, item: &str, usage: &str) -> String {
        let (tag, model) = (self.tag, &self.model);
        format!(
            r#"{{"id":"resp_{tag:016x}","object":"response","created_at":{CREATED},"status":"{status}","error":null,"incomplete_details":null,"instructions":null,"metadata":{{}},"model":{model},"output":[{item}],"parallel_tool_calls":true,"temperature":1.0,"tool_choice":"auto","tools":[],"top_p":1.0,"usage":{usage}}}"#
        )
    }

    fn item(&self, status: &str, part: &str) -> String {
        let tag = self.tag;
        format!(r#"{{"id":"msg_{tag:016x}","type":"message","status":"{status}","role":"assistant","content":[{part}]}}"#)
    }

    fn response_usage(&self) -> String {
        let (input, output) = (self.call.prompt_tokens, self.call.tokens as usize);
        let total = input + output;
        format!(
            r#"{{"input_tokens":{input},"input_tokens_details":{{"cached_tokens":0}},"output_tokens":{output},"output_tokens_details":{{"reasoning_tokens":0}},"total_tokens":{total}}}"#
        )
    }
}

fn part(text: &str) -> String {
    format!(r#"{{"type":"output_text","text":"{text}","annotations":[],"logprobs":[]}}"#)
}

impl Step {
    const fn next(self, tokens: u32) -> Option<Self> {
        match self {
            Self::Created => Some(Self::ItemAdded),
            Self::ItemAdded => Some(Self::PartAdded),
            Self::PartAdded => Some(Self::Delta(0)),
            Self::Delta(index) if index + 1 < tokens => Some(Self::Delta(index + 1)),
            Self::Delta(_) => Some(Self::TextDone),
            Self::TextDone => Some(Self::PartDone),
            Self::PartDone => Some(Self::ItemDone),
            Self::ItemDone => Some(Self::Completed),
            Self::Completed => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::request::Prompted;
    use serde_json::{Value, json};

    fn generation(stream: bool) -> Generation {
        let body = json!({ "model": "m", "input": "hi there", "max_output_tokens": 3, "stream": stream }).to_string();
        Generation::new(Prompted::response(body.as_bytes()).unwrap(), 0xabc, Duration::from_millis(10), Duration::from_millis(1))
    }

    fn event(piece: Piece) -> (u128, String, Value) {
        let text = String::from_utf8(piece.bytes.unwrap().to_vec()).unwrap();
        let (name, data) = text.strip_prefix("event: ").unwrap().strip_suffix("\n\n").unwrap().split_once("\ndata: ").unwrap();
        (piece.at.as_millis(), name.to_owned(), serde_json::from_str(data).unwrap())
    }

    #[test]
    fn a_response_holds_the_words_and_what_they_cost() {
        let whole: Value = serde_json::from_slice(&generation(false).whole()).unwrap();
        let text = whole["output"][0]["content"][0]["text"].as_str().unwrap();
        assert!(text.ends_with(" sandbox:0000000000000abc") && text.split(' ').count() == 3, "{text}");
        assert_eq!((&whole["id"], &whole["status"]), (&json!("resp_0000000000000abc"), &json!("completed")));
        assert_eq!((&whole["usage"]["input_tokens"], &whole["usage"]["output_tokens"]), (&json!(2), &json!(3)));
    }

    #[test]
    fn a_stream_is_numbered_named_by_type_and_ends_in_the_whole() {
        let whole: Value = serde_json::from_slice(&generation(false).whole()).unwrap();
        let events: Vec<_> = generation(true).events().map(event).collect();
        assert!(events.iter().enumerate().all(|(n, (_, name, data))| data["sequence_number"] == n && data["type"] == **name));
        let text: String = events.iter().filter_map(|(.., data)| data["delta"].as_str()).collect();
        assert_eq!(text, whole["output"][0]["content"][0]["text"]);
        assert_eq!(events[0].1, "response.created");
        assert_eq!((&*events.last().unwrap().1, &events.last().unwrap().2["response"]), ("response.completed", &whole));
        let due: Vec<_> = events.iter().map(|(at, ..)| *at).collect();
        assert_eq!(due, [10, 10, 10, 10, 11, 12, 12, 12, 12, 12]);
    }
}
