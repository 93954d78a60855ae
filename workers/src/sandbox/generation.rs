//! core: a generation of the sandbox: some words, then the tag of the prompt, whole or as a stream, in OpenAI's shapes.

mod response;

use super::reply::{Piece, Script};
use super::request::Prompted;
use bytes::Bytes;
use serde_json::Value;
use shared::domain::Operation;
use std::borrow::Cow;
use std::time::Duration;

/// A fixed date, so that the same prompt gives the same bytes.
const CREATED: u64 = 1_767_225_600;

const WORDS: [&str; 16] =
    ["water", "turns", "the", "wheel", "while", "tide", "and", "moon", "agree", "on", "slow", "patient", "work", "below", "grey", "stone"];

pub(crate) struct Generation {
    call: Prompted,
    /// The model's name as a JSON string.
    model: String,
    tag: u64,
    first: Duration,
    each: Duration,
}

impl Generation {
    /// The first token comes after `first`, each further one `each` later.
    pub(crate) fn new(call: Prompted, tag: u64, first: Duration, each: Duration) -> Self {
        let model = Value::from(call.model.as_str()).to_string();
        Self { call, model, tag, first, each }
    }

    pub(crate) const fn is_stream(&self) -> bool {
        self.call.stream
    }

    /// Until the last token.
    pub(crate) fn duration(&self) -> Duration {
        self.first + self.each * (self.call.tokens - 1)
    }

    pub(crate) fn whole(&self) -> Bytes {
        if self.call.op == Operation::Responses {
            return self.response().into();
        }
        let (text, finish) = (self.text(), self.finish_reason());
        let choice = match self.call.op {
            Operation::Chat => {
                format!(r#"{{"index":0,"message":{{"role":"assistant","content":"{text}"}},"logprobs":null,"finish_reason":"{finish}"}}"#)
            }
            _ => format!(r#"{{"index":0,"text":"{text}","logprobs":null,"finish_reason":"{finish}"}}"#),
        };
        format!("{},\"choices\":[{choice}],\"usage\":{}}}", self.head(""), self.usage()).into()
    }

    /// The stream's events, each when it is due.
    pub(crate) fn events(self) -> Script {
        if self.call.op == Operation::Responses {
            return Box::new(self.response_events());
        }
        let first = if self.call.op == Operation::Chat { Step::Role } else { Step::Token(0) };
        let (tokens, include_usage) = (self.call.tokens, self.call.include_usage);
        let steps = std::iter::successors(Some(first), move |step| step.next(tokens, include_usage));
        Box::new(steps.map(move |step| Piece::new(self.due(step), self.event(step))))
    }

    fn due(&self, step: Step) -> Duration {
        match step {
            Step::Role => self.first,
            Step::Token(index) => self.first + self.each * index,
            Step::Finish | Step::Usage | Step::Done => self.duration(),
        }
    }

    fn event(&self, step: Step) -> Bytes {
        match step {
            Step::Role => self.chunk(r#"{"role":"assistant","content":""}"#, "null"),
            Step::Token(index) => self.chunk(&format!(r#"{{"content":"{}"}}"#, self.token(index)), "null"),
            Step::Finish => self.chunk("{}", &format!("\"{}\"", self.finish_reason())),
            Step::Usage => format!("data: {},\"choices\":[],\"usage\":{}}}\n\n", self.head(".chunk"), self.usage()).into(),
            Step::Done => Bytes::from_static(b"data: [DONE]\n\n"),
        }
    }

    /// One event; `delta` as chat has it.
    fn chunk(&self, delta: &str, finish: &str) -> Bytes {
        let head = self.head(".chunk");
        let usage = if self.call.include_usage { r#","usage":null"# } else { "" };
        let content = match self.call.op {
            Operation::Chat => format!("\"delta\":{delta}"),
            _ => format!("\"text\":{}", delta.strip_prefix(r#"{"content":"#).and_then(|d| d.strip_suffix('}')).unwrap_or("\"\"")),
        };
        format!("data: {head},\"choices\":[{{\"index\":0,{content},\"logprobs\":null,\"finish_reason\":{finish}}}]{usage}}}\n\n").into()
    }

    /// The members that all answers begin with, the object left open.
    fn head(&self, chunk: &str) -> String {
        let (id, object) = match self.call.op {
            Operation::Chat => ("chatcmpl", format!("chat.completion{chunk}")),
            _ => ("cmpl", "text_completion".to_owned()),
        };
        format!(r#"{{"id":"{id}-{:016x}","object":"{object}","created":{CREATED},"model":{}"#, self.tag, self.model)
    }

    fn text(&self) -> String {
        (0..self.call.tokens).map(|index| self.token(index)).collect()
    }

    /// One word, with the space before it; none of them needs escaping in JSON.
    fn token(&self, index: u32) -> Cow<'static, str> {
        let space = if index == 0 { "" } else { " " };
        if index + 1 == self.call.tokens {
            return format!("{space}sandbox:{:016x}", self.tag).into();
        }
        let draw = self.tag.rotate_right(index % 16 * 4) as usize % WORDS.len();
        format!("{space}{}", WORDS[draw]).into()
    }

    const fn finish_reason(&self) -> &'static str {
        if self.call.is_limited { "length" } else { "stop" }
    }

    fn usage(&self) -> String {
        let (prompt, completion) = (self.call.prompt_tokens, self.call.tokens as usize);
        let total = prompt + completion;
        format!(r#"{{"prompt_tokens":{prompt},"completion_tokens":{completion},"total_tokens":{total}}}"#)
    }
}

/// Where a stream stands.
#[derive(Clone, Copy)]
enum Step {
    Role,
    Token(u32),
    Finish,
    Usage,
    Done,
}

impl Step {
    const fn next(self, tokens: u32, include_usage: bool) -> Option<Self> {
        match self {
            Self::Role => Some(Self::Token(0)),
            Self::Token(index) if index + 1 < tokens => Some(Self::Token(index + 1)),
            Self::Token(_) => Some(Self::Finish),
            Self::Finish if include_usage => Some(Self::Usage),
            Self::Finish | Self::Usage => Some(Self::Done),
            Self::Done => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::request::Rejected;
    use serde_json::json;

    const MS: Duration = Duration::from_millis(1);

    fn generation(parse: fn(&[u8]) -> Result<Prompted, Rejected>, mut body: Value) -> Generation {
        body["model"] = "m".into();
        Generation::new(parse(body.to_string().as_bytes()).unwrap(), 0xabc, MS * 10, MS)
    }

    fn chat(extra: &Value) -> Generation {
        let mut body = json!({ "messages": [{ "role": "user", "content": "hi there" }] });
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        generation(Prompted::chat, body)
    }

    fn events(generation: Generation) -> Vec<(u128, Value)> {
        let read = |piece: Piece| {
            let text = String::from_utf8(piece.bytes.unwrap().to_vec()).unwrap();
            let data = text.strip_prefix("data: ").unwrap().strip_suffix("\n\n").unwrap().to_owned();
            (piece.at.as_millis(), serde_json::from_str(&data).unwrap_or_else(|_| Value::from(data)))
        };
        generation.events().map(read).collect()
    }

    #[test]
    fn an_answer_has_as_many_words_as_tokens_and_ends_in_the_tag() {
        let whole: Value = serde_json::from_slice(&chat(&json!({ "max_tokens": 4 })).whole()).unwrap();
        let text = whole["choices"][0]["message"]["content"].as_str().unwrap();
        assert_eq!(text.split(' ').count(), 4);
        assert!(text.ends_with(" sandbox:0000000000000abc"), "{text}");
        assert_eq!(whole["id"], "chatcmpl-0000000000000abc");
        assert_eq!(whole["choices"][0]["finish_reason"], "length");
        assert_eq!(whole["usage"], json!({ "prompt_tokens": 2, "completion_tokens": 4, "total_tokens": 6 }));
    }

    #[test]
    fn a_stream_says_the_same_as_the_whole_answer() {
        let whole: Value = serde_json::from_slice(&chat(&json!({})).whole()).unwrap();
        let events = events(chat(&json!({ "stream": true })));
        let text: String = events.iter().filter_map(|(_, e)| e["choices"][0]["delta"]["content"].as_str()).collect();
        assert_eq!(text, whole["choices"][0]["message"]["content"]);
        assert_eq!(events[0].1["choices"][0]["delta"], json!({ "role": "assistant", "content": "" }));
        assert_eq!(events[events.len() - 2].1["choices"][0]["finish_reason"], "stop");
        assert_eq!(events.last().unwrap().1, "[DONE]");
    }

    #[test]
    fn events_are_due_at_times_that_do_not_add_up_errors() {
        let due: Vec<_> = events(chat(&json!({ "stream": true, "max_tokens": 3 }))).into_iter().map(|(at, _)| at).collect();
        assert_eq!(due, [10, 10, 11, 12, 12, 12]);
    }

    #[test]
    fn usage_comes_before_done_when_asked_for() {
        let events = events(chat(&json!({ "stream": true, "stream_options": { "include_usage": true } })));
        let usage = &events[events.len() - 2].1;
        assert_eq!((&usage["choices"], &usage["usage"]["completion_tokens"]), (&json!([]), &json!(16)));
        assert!(events[..events.len() - 2].iter().all(|(_, e)| e["usage"].is_null()));
    }

    #[test]
    fn completions_have_their_own_shape() {
        let body = json!({ "prompt": "hi", "max_tokens": 2, "stream": true });
        let whole: Value = serde_json::from_slice(&generation(Prompted::completion, body.clone()).whole()).unwrap();
        let events = events(generation(Prompted::completion, body));
        let text: String = events.iter().filter_map(|(_, e)| e["choices"][0]["text"].as_str()).collect();
        assert_eq!((&whole["object"], &whole["choices"][0]["text"]), (&json!("text_completion"), &json!(text)));
        assert_eq!(events.len(), 4);
    }
}
