//! core: the few fields of a request that the mock reads.

use serde::Deserialize;
use std::borrow::Cow;

#[derive(Deserialize)]
pub struct Chat<'a> {
    #[serde(borrow, default)]
    model: Cow<'a, str>,
    #[serde(borrow)]
    messages: Vec<Message<'a>>,
    #[serde(default)]
    pub(super) stream: bool,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    content: Cow<'a, str>,
}

#[derive(Deserialize)]
pub struct Embeddings<'a> {
    #[serde(borrow)]
    pub(super) model: Cow<'a, str>,
    #[serde(borrow)]
    input: Inputs<'a>,
    #[serde(borrow, default)]
    encoding_format: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Inputs<'a> {
    One(#[serde(borrow)] Cow<'a, str>),
    Many(#[serde(borrow)] Vec<Cow<'a, str>>),
}

/// Bytes of a token. The gateways' own estimates may well differ.
const TOKEN_BYTES: usize = 4;

impl Chat<'_> {
    pub(super) fn is_slow(&self) -> bool {
        self.model == super::SLOW_CHAT
    }

    /// What the last message says.
    pub(super) fn prompt(&self) -> &str {
        self.messages.last().map_or("", |message| &message.content)
    }
}

impl Embeddings<'_> {
    pub(super) fn inputs(&self) -> &[Cow<'_, str>] {
        match &self.input {
            Inputs::One(input) => std::slice::from_ref(input),
            Inputs::Many(inputs) => inputs,
        }
    }

    pub(super) fn wants_base64(&self) -> bool {
        self.encoding_format == "base64"
    }

    /// What a model that pads works on: the longest input's tokens, for each.
    pub(super) fn padded_tokens(&self) -> usize {
        padded_tokens(self.inputs().iter().map(|input| input.len()))
    }
}

/// Of one call, from its inputs' bytes.
pub(crate) fn padded_tokens(lengths: impl ExactSizeIterator<Item = usize>) -> usize {
    lengths.len() * lengths.max().unwrap_or(0).div_ceil(TOKEN_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_may_be_one_text_or_many() {
        for (json, expected) in [(r#""one""#, vec!["one"]), (r#"["a","b\n"]"#, vec!["a", "b\n"])] {
            let body = format!(r#"{{"model":"m","input":{json},"dimensions":4}}"#);
            let request: Embeddings<'_> = serde_json::from_str(&body).unwrap();
            assert_eq!(request.inputs(), expected);
            assert!(!request.wants_base64());
        }
    }

    #[test]
    fn the_prompt_is_the_last_message() {
        let request: Chat<'_> =
            serde_json::from_str(r#"{"messages":[{"role":"system","content":"a"},{"role":"user","content":"b"}]}"#).unwrap();
        assert_eq!((request.prompt(), request.stream), ("b", false));
    }

    #[test]
    fn the_longest_counts_for_all() {
        assert_eq!(padded_tokens([4, 9].into_iter()), 6);
        assert_eq!(padded_tokens([].into_iter()), 0);
    }
}
