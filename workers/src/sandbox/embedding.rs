//! core: an embeddings call of the sandbox: its body read, its answer written.

use super::hash::Fnv;
use super::request::{Input, Inputs, Rejected, words};
use super::source::Vectors;
use super::trouble::Trouble;
use super::vector;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use std::io::Write;

/// The longest vector a caller may ask for; as in the configuration.
const DIMENSIONS_MAX: usize = 8_192;

#[derive(Clone, Debug)]
pub(crate) struct Embedding {
    model: String,
    pub(crate) inputs: Vec<Input>,
    dimensions: usize,
    encoding: Encoding,
    /// That of any input is that of the whole call.
    pub(crate) trouble: Trouble,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    Float,
    Base64,
}

#[derive(Deserialize)]
struct Body {
    model: String,
    input: Inputs,
    dimensions: Option<usize>,
    encoding_format: Option<Encoding>,
}

impl Embedding {
    /// `dimensions` is the length of a vector unless the caller asks for another.
    pub(crate) fn parse(body: &[u8], dimensions: usize) -> Result<Self, Rejected> {
        let body: Body = serde_json::from_slice(body).map_err(|e| Rejected::json(&e))?;
        let dimensions = body.dimensions.unwrap_or(dimensions);
        if !(1..=DIMENSIONS_MAX).contains(&dimensions) {
            return Err(Rejected::new(format!("`dimensions` is {dimensions}; use 1 to {DIMENSIONS_MAX}")));
        }
        let inputs = body.input.into_vec();
        if inputs.is_empty() || inputs.iter().any(Input::is_empty) {
            return Err(Rejected::new("`input` is empty or holds an empty text; send at least one word or token in each"));
        }
        let mut trouble = Trouble::default();
        for input in &inputs {
            if let Input::Text(text) = input {
                trouble.read(text)?;
            }
        }
        Ok(Self { model: body.model, inputs, dimensions, encoding: body.encoding_format.unwrap_or(Encoding::Float), trouble })
    }

    /// Tokens of the longest input.
    pub(crate) fn longest(&self) -> usize {
        self.inputs.iter().map(Input::tokens).max().unwrap_or(0)
    }

    /// The tag of each input: of a text, over the text; of tokens, over their ids in decimal joined by spaces.
    pub(crate) fn tags(&self, key: Fnv) -> Vec<u64> {
        self.inputs.iter().map(|input| input.tag(key)).collect()
    }

    /// Its vectors by hash.
    pub(crate) fn hashed(&self, key: Fnv) -> Vectors {
        let rows = self.inputs.iter().map(|input| input.vector(self.dimensions, key)).collect();
        Vectors { rows, tokens: self.inputs.iter().map(Input::tokens).sum() }
    }

    /// Its texts, for a model whose vectors have this length.
    #[cfg(feature = "local")]
    pub(crate) fn texts(&self, dimensions: usize) -> Result<Vec<String>, Rejected> {
        if self.dimensions != dimensions {
            return Err(Rejected::new(format!("`dimensions` is {}; this model has {dimensions}", self.dimensions)));
        }
        let text = |input: &Input| if let Input::Text(text) = input { Some(text.clone()) } else { None };
        let texts: Option<Vec<String>> = self.inputs.iter().map(text).collect();
        texts.ok_or_else(|| Rejected::new("`input` holds token ids, which are not this model's; send texts"))
    }

    /// The answer, without the last `missing` vectors.
    pub(crate) fn answer(&self, vectors: &Vectors, missing: usize) -> Bytes {
        const ROW: usize = r#"{"object":"embedding","index":0000,"embedding":""},"#.len();
        let mut json = Vec::with_capacity(256 + self.inputs.len() * (ROW + self.dimensions * 6));
        json.extend_from_slice(br#"{"object":"list","data":["#);
        for (index, row) in vectors.rows[..vectors.rows.len() - missing].iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write(&mut json, format_args!(r#"{comma}{{"object":"embedding","index":{index},"embedding":"#));
            self.encoding.write(row, &mut json);
            json.push(b'}');
        }
        let model = serde_json::Value::from(self.model.as_str());
        let tokens = vectors.tokens;
        write(&mut json, format_args!(r#"],"model":{model},"usage":{{"prompt_tokens":{tokens},"total_tokens":{tokens}}}}}"#));
        json.into()
    }
}

impl Encoding {
    fn write(self, vector: &[f32], json: &mut Vec<u8>) {
        match self {
            Self::Float => serde_json::to_writer(json, vector).expect("writing numbers to memory does not fail"),
            Self::Base64 => {
                let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
                write(json, format_args!("\"{}\"", BASE64_STANDARD.encode(bytes)));
            }
        }
    }
}

impl Input {
    fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            Self::Tokens(ids) => ids.is_empty(),
        }
    }

    fn tokens(&self) -> usize {
        match self {
            Self::Text(text) => words(text),
            Self::Tokens(ids) => ids.len(),
        }
    }

    fn tag(&self, key: Fnv) -> u64 {
        match self {
            Self::Text(text) => key.bytes(text.as_bytes()).finish(),
            Self::Tokens(_) => key.bytes(self.canonical().as_bytes()).finish(),
        }
    }

    fn vector(&self, dimensions: usize, key: Fnv) -> Vec<f32> {
        match self {
            Self::Text(text) => vector::of_text(text, dimensions, key),
            Self::Tokens(ids) => vector::of_tokens(ids, dimensions, key),
        }
    }
}

fn write(json: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    json.write_fmt(text).expect("writing to memory does not fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn key() -> Fnv {
        Fnv::keyed(b"k")
    }

    fn answer(mut body: Value) -> Value {
        body["model"] = "m\"".into();
        let call = Embedding::parse(body.to_string().as_bytes(), 4).unwrap();
        serde_json::from_slice(&call.answer(&call.hashed(key()), 0)).unwrap()
    }

    fn rejected(body: &Value) -> bool {
        Embedding::parse(body.to_string().as_bytes(), 4).is_err()
    }

    #[test]
    fn the_answer_has_openais_shape() {
        let answer = answer(json!({ "input": ["a b", [7]] }));
        assert_eq!((&answer["object"], &answer["model"]), (&json!("list"), &json!("m\"")));
        assert_eq!(answer["data"][1]["index"], 1);
        assert_eq!(answer["data"][0]["embedding"].as_array().unwrap().len(), 4);
        assert_eq!(answer["usage"], json!({ "prompt_tokens": 3, "total_tokens": 3 }));
    }

    #[test]
    fn both_encodings_hold_the_same_vector() {
        let floats = answer(json!({ "input": "a b c", "dimensions": 3 }));
        let base64 = answer(json!({ "input": "a b c", "dimensions": 3, "encoding_format": "base64" }));
        let bytes = BASE64_STANDARD.decode(base64["data"][0]["embedding"].as_str().unwrap()).unwrap();
        let vector: Vec<f32> = bytes.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        assert_eq!(serde_json::from_value::<Vec<f32>>(floats["data"][0]["embedding"].clone()).unwrap(), vector);
    }

    #[test]
    fn nothing_to_embed_is_rejected() {
        for input in [json!(""), json!([]), json!(["a", ""]), json!([[]]), json!(5), json!(null)] {
            assert!(rejected(&json!({ "model": "m", "input": input })), "{input}");
        }
        assert!(rejected(&json!({ "model": "m", "input": "a", "dimensions": 0 })));
        assert!(rejected(&json!({ "model": "m", "input": "a", "encoding_format": "hex" })));
    }

    #[test]
    fn one_poisoned_input_poisons_the_call() {
        let call = Embedding::parse(br#"{"model":"m","input":["fine","[[fault:hang]]"]}"#, 4).unwrap();
        assert!(call.trouble.fault.is_some());
    }
}
