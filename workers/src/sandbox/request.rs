//! core: reads a generation's body into what the sandbox needs of it: the canonical prompt, the length, the form.

use super::trouble::Trouble;
use serde::Deserialize;
use shared::domain::Operation;

/// Tokens of an answer whose length the caller leaves open.
const TOKENS: u32 = 16;

/// The longest answer: what the largest models give.
const TOKENS_MAX: u32 = 131_072;

/// Why the sandbox answers 400.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejected {
    pub(crate) message: String,
}

impl Rejected {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }

    /// Without serde's quotation of what it found.
    pub(crate) fn json(error: &serde_json::Error) -> Self {
        Self::new(format!("the body is not a request of this endpoint: {:?} error in column {}", error.classify(), error.column()))
    }
}

/// A generation asked for.
#[derive(Clone, Debug)]
pub(crate) struct Prompted {
    pub(crate) op: Operation,
    pub(crate) model: String,
    /// The canonical prompt, as the head of `sandbox.rs` defines it.
    pub(crate) prompt: String,
    pub(crate) prompt_tokens: usize,
    /// Length of the answer, at least 1.
    pub(crate) tokens: u32,
    /// The caller set that length.
    pub(crate) is_limited: bool,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    pub(crate) trouble: Trouble,
}

/// One input: text, or the ids of its tokens.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(crate) enum Input {
    Text(String),
    Tokens(Vec<u64>),
}

/// One input or several.
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum Inputs {
    One(Input),
    Many(Vec<Input>),
}

/// The body of a chat, a completion or a response: each has only one of `messages`, `prompt` and `input`.
#[derive(Deserialize)]
struct Body {
    model: String,
    messages: Option<Vec<Message>>,
    prompt: Option<Inputs>,
    instructions: Option<String>,
    input: Option<Items>,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    max_output_tokens: Option<u32>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

/// What a response answers: a text, or messages and other items.
#[derive(Deserialize)]
#[serde(untagged)]
enum Items {
    Text(String),
    Many(Vec<Message>),
}

#[derive(Deserialize)]
struct Message {
    content: Option<Content>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<ContentPart>),
}

#[derive(Deserialize)]
struct ContentPart {
    text: Option<String>,
}

impl Prompted {
    pub(crate) fn chat(body: &[u8]) -> Result<Self, Rejected> {
        let mut body = Body::parse(body)?;
        let messages = body.messages.take().filter(|messages| !messages.is_empty());
        let messages = messages.ok_or_else(|| Rejected::new("`messages` is missing or empty; send at least one"))?;
        Self::new(Operation::Chat, body, texts(messages).join("\n"))
    }

    pub(crate) fn completion(body: &[u8]) -> Result<Self, Rejected> {
        let mut body = Body::parse(body)?;
        let prompt = body.prompt.take().ok_or_else(|| Rejected::new("`prompt` is missing; send a text or token ids"))?;
        let prompts: Vec<_> = prompt.into_vec().iter().map(Input::canonical).collect();
        Self::new(Operation::Completions, body, prompts.join("\n"))
    }

    pub(crate) fn response(body: &[u8]) -> Result<Self, Rejected> {
        let mut body = Body::parse(body)?;
        let input = body.input.take().ok_or_else(|| Rejected::new("`input` is missing; send a text or items"))?;
        let mut prompt: Vec<_> = body.instructions.take().into_iter().collect();
        match input {
            Items::Text(text) => prompt.push(text),
            Items::Many(items) => prompt.extend(texts(items)),
        }
        Self::new(Operation::Responses, body, prompt.join("\n"))
    }

    fn new(op: Operation, body: Body, prompt: String) -> Result<Self, Rejected> {
        let limit = body.max_completion_tokens.or(body.max_tokens).or(body.max_output_tokens);
        let tokens = limit.unwrap_or(TOKENS);
        if !(1..=TOKENS_MAX).contains(&tokens) {
            return Err(Rejected::new(format!("`max_tokens` is {tokens}; use 1 to {TOKENS_MAX}")));
        }
        let mut trouble = Trouble::default();
        trouble.read(&prompt)?;
        Ok(Self {
            op,
            model: body.model,
            prompt_tokens: words(&prompt),
            prompt,
            tokens,
            is_limited: limit.is_some(),
            stream: body.stream.unwrap_or(false),
            include_usage: body.stream_options.and_then(|o| o.include_usage).unwrap_or(false),
            trouble,
        })
    }
}

impl Body {
    fn parse(json: &[u8]) -> Result<Self, Rejected> {
        serde_json::from_slice(json).map_err(|e| Rejected::json(&e))
    }
}

impl Input {
    pub(crate) fn canonical(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Tokens(ids) => ids.iter().map(u64::to_string).collect::<Vec<_>>().join(" "),
        }
    }
}

impl Inputs {
    pub(crate) fn into_vec(self) -> Vec<Input> {
        match self {
            Self::One(input) => vec![input],
            Self::Many(inputs) => inputs,
        }
    }
}

fn texts(messages: Vec<Message>) -> Vec<String> {
    messages.into_iter().filter_map(|message| message.content).flat_map(Content::texts).collect()
}

impl Content {
    fn texts(self) -> Vec<String> {
        match self {
            Self::Text(text) => vec![text],
            Self::Parts(parts) => parts.into_iter().filter_map(|part| part.text).collect(),
        }
    }
}

/// The sandbox's tokens of a text: its words, at least 1.
pub(crate) fn words(text: &str) -> usize {
    text.split_whitespace().count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn chat(body: &Value) -> Result<Prompted, Rejected> {
        Prompted::chat(body.to_string().as_bytes())
    }

    fn completion(prompt: &Value) -> String {
        Prompted::completion(json!({ "model": "m", "prompt": prompt }).to_string().as_bytes()).unwrap().prompt
    }

    #[test]
    fn the_canonical_prompt_is_the_text_of_all_messages() {
        let parts = json!([{ "type": "text", "text": "b" }, { "type": "image_url", "image_url": {} }, { "type": "text", "text": "c" }]);
        let messages =
            json!([{ "role": "system", "content": "a" }, { "role": "user", "content": parts }, { "role": "assistant", "content": null }]);
        assert_eq!(chat(&json!({ "model": "m", "messages": messages })).unwrap().prompt, "a\nb\nc");
    }

    #[test]
    fn every_form_of_a_completions_prompt_is_read() {
        assert_eq!(completion(&json!("a b")), "a b");
        assert_eq!(completion(&json!(["a", "b"])), "a\nb");
        assert_eq!(completion(&json!([1, 20])), "1 20");
        assert_eq!(completion(&json!([[1, 2], [3]])), "1 2\n3");
    }

    #[test]
    fn a_responses_prompt_is_its_instructions_and_the_text_of_its_input() {
        let prompt = |body: Value| Prompted::response(body.to_string().as_bytes()).map(|p| (p.prompt, p.tokens));
        assert_eq!(prompt(json!({ "model": "m", "input": "a", "max_output_tokens": 5 })), Ok(("a".into(), 5)));
        let items = json!([{ "role": "user", "content": [{ "type": "input_text", "text": "b" }] }, { "type": "function_call" }]);
        assert_eq!(prompt(json!({ "model": "m", "instructions": "a", "input": items })), Ok(("a\nb".into(), 16)));
        assert!(prompt(json!({ "model": "m" })).is_err());
    }

    #[test]
    fn the_length_is_the_callers_or_sixteen() {
        let with = |extra: Value| {
            let mut body = json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" }] });
            body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            chat(&body).map(|p| (p.tokens, p.is_limited))
        };
        assert_eq!(with(json!({})), Ok((16, false)));
        assert_eq!(with(json!({ "max_tokens": 5 })), Ok((5, true)));
        assert_eq!(with(json!({ "max_tokens": 5, "max_completion_tokens": 7 })), Ok((7, true)));
        assert!(with(json!({ "max_tokens": 0 })).is_err());
        assert!(with(json!({ "max_tokens": TOKENS_MAX + 1 })).is_err());
    }

    #[test]
    fn a_body_of_another_shape_is_rejected_without_being_quoted() {
        for bad in
            [json!({}), json!({ "model": "m" }), json!({ "model": "m", "messages": [] }), json!({ "model": "m", "messages": "secret" })]
        {
            let rejected = chat(&bad).unwrap_err();
            assert!(!rejected.message.contains("secret"), "{bad}: {rejected:?}");
        }
    }
}
