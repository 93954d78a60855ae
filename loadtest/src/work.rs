//! core: what the callers ask for: the body of each request, and whether its answer is right.

use crate::tag;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;

/// The kinds of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    Embed,
    Chat,
    Stream,
}

/// How an answer is checked.
#[derive(Clone, Debug)]
pub enum Check {
    /// Only its status.
    Status,
    /// It must carry the sandbox's tag for its own prompt, made with this hash key.
    Tag(String),
    /// It must contain the text learned for the same input.
    Contains(Arc<[String]>),
}

/// A repeatable series of requests: the i-th is always the same.
#[derive(Clone, Debug)]
pub struct Work {
    pub mode: Mode,
    pub model: String,
    /// Texts of one call of embeddings.
    pub inputs: usize,
    pub texts: Arc<[String]>,
    pub check: Check,
}

/// Words a generation is asked for.
const WORDS_MAX: u32 = 16;

impl Work {
    pub const fn path(&self) -> &'static str {
        match self.mode {
            Mode::Embed => "/v1/embeddings",
            Mode::Chat | Mode::Stream => "/v1/chat/completions",
        }
    }

    /// The JSON body of the i-th request.
    pub fn body(&self, index: u64) -> Vec<u8> {
        let (model, text) = (&self.model, self.prompt(index));
        let body = match self.mode {
            Mode::Embed if self.inputs == 1 => json!({ "model": model, "input": text, "encoding_format": "base64" }),
            Mode::Embed => {
                let texts: Vec<&str> = self.positions(index).map(|position| self.texts[position].as_str()).collect();
                json!({ "model": model, "input": texts, "encoding_format": "base64" })
            }
            Mode::Chat => json!({ "model": model, "max_tokens": WORDS_MAX, "messages": [{ "role": "user", "content": text }] }),
            Mode::Stream => {
                json!({ "model": model, "max_tokens": WORDS_MAX, "stream": true, "messages": [{ "role": "user", "content": text }] })
            }
        };
        body.to_string().into_bytes()
    }

    /// Whether this text of an answer (a body, or a stream's joined words) belongs to the i-th request.
    pub fn is_right(&self, index: u64, answer: &str) -> bool {
        match &self.check {
            Check::Status => true,
            Check::Tag(key) => answer.contains(&tag::of(key, &self.prompt(index))),
            Check::Contains(expected) => self.positions(index).all(|position| answer.contains(&expected[position])),
        }
    }

    /// Embeddings repeat their texts, so that answers can be known beforehand; each generation has a prompt of its own.
    fn prompt(&self, index: u64) -> String {
        let text = &self.texts[self.position(index)];
        if self.mode == Mode::Embed { text.clone() } else { format!("{index} {text}") }
    }

    /// Of the texts of the i-th call.
    fn positions(&self, index: u64) -> impl Iterator<Item = usize> {
        let inputs = self.inputs as u64;
        (index * inputs..(index + 1) * inputs).map(|text| self.position(text))
    }

    fn position(&self, index: u64) -> usize {
        usize::try_from(index % self.texts.len() as u64).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(mode: Mode, check: Check) -> Work {
        Work { mode, model: "m".into(), inputs: 1, texts: vec!["a".to_owned(), "b".to_owned()].into(), check }
    }

    #[test]
    fn an_answer_to_another_prompt_is_wrong() {
        let work = work(Mode::Chat, Check::Tag("k".into()));
        let answer = format!("… {} …", tag::of("k", "3 b"));
        assert!(work.is_right(3, &answer));
        assert!(!work.is_right(1, &answer), "the same text in another request");
    }

    #[test]
    fn learned_answers_follow_their_texts() {
        let work = work(Mode::Embed, Check::Contains(vec!["AAA".to_owned(), "BBB".to_owned()].into()));
        assert!(work.is_right(4, r#"{"embedding":"AAA"}"#));
        assert!(!work.is_right(5, r#"{"embedding":"AAA"}"#));
        assert_eq!(work.body(0), work.body(2));
    }

    #[test]
    fn a_call_of_several_texts_takes_them_in_order() {
        let work = Work { inputs: 3, ..work(Mode::Embed, Check::Contains(vec!["AAA".to_owned(), "BBB".to_owned()].into())) };
        assert!(String::from_utf8(work.body(1)).unwrap().contains(r#"["b","a","b"]"#));
        assert!(work.is_right(1, "BBB AAA BBB") && !work.is_right(1, "BBB"));
    }
}
