//! core: the view of an embeddings body: its inputs as one slice of the body, and what may share a call with it.

use super::members::Members;
use super::{invalid, missing};
use bytes::Bytes;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde_json::value::RawValue;
use shared::config::Limits;
use shared::domain::estimate_tokens;
use shared::error::{Code, Failure};
use shared::wire::Encoding;
use std::fmt;

/// The longest vector a caller may ask for.
const DIMENSIONS_MAX: u32 = 8_192;

/// Bytes of the fields that are passed on beside the inputs. They travel in the envelope's head, which must fit a frame.
const PARAMS_BYTES_MAX: usize = 64 * 1024;

/// Token ids are below this.
const TOKEN_ID_END: u64 = 1 << 31;

const INPUT_IS: &str = "a string, an array of strings, an array of token ids, or an array of arrays of token ids";

/// Fields that are read here and not passed on. `user` is identity, which a call merged from many callers cannot carry.
const OWN: [&str; 4] = ["encoding_format", "input", "model", "user"];

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Embedding {
    pub(crate) model: String,
    /// The inputs as raw JSON values joined by commas; a slice of the body.
    pub(crate) inputs: Bytes,
    pub(crate) items: u32,
    pub(crate) tokens_in: u32,
    /// Tokens of the longest of several inputs; 0 of one.
    pub(crate) longest: u32,
    pub(crate) encoding: Encoding,
    /// The other fields as JSON members in the order of their names.
    pub(crate) params: Box<str>,
    /// Equal for bodies that may share one backend call: of one kind of input, and with the same `params`.
    pub(crate) compat: u64,
}

/// Checks an embeddings body.
///
/// # Errors
/// `invalid_json`, `json_too_deep`, `too_many_inputs`, `missing_required_parameter` and `invalid_value`, with `param`.
pub(crate) fn embedding(body: &Bytes, limits: &Limits) -> Result<Embedding, Failure> {
    let members = Members::parse(body, limits.json_depth_max)?;
    let (model, _) = members.model()?;
    let inputs = Inputs::read(members.required("input")?, limits.inputs_max)?;
    let encoding = encoding(&members)?;
    members.count("dimensions", DIMENSIONS_MAX)?;
    let params = params(&members)?;
    let compat = compat(inputs.kind, &params);
    Ok(Embedding {
        model,
        inputs: body.slice_ref(inputs.text.as_bytes()),
        items: inputs.items,
        tokens_in: inputs.tokens,
        longest: inputs.longest,
        encoding,
        params,
        compat,
    })
}

fn encoding(members: &Members<'_>) -> Result<Encoding, Failure> {
    match members.get("encoding_format").map(RawValue::get) {
        None | Some("\"float\"") => Ok(Encoding::Float),
        Some("\"base64\"") => Ok(Encoding::Base64),
        Some(_) => Err(invalid("encoding_format", "\"float\" or \"base64\"")),
    }
}

fn params(members: &Members<'_>) -> Result<Box<str>, Failure> {
    let mut params = String::new();
    for (name, value) in members.iter().filter(|(name, value)| !OWN.contains(name) && value.get() != "null") {
        if !params.is_empty() {
            params.push(',');
        }
        params.push_str(&serde_json::Value::from(name).to_string());
        params.push(':');
        params.push_str(value.get());
    }
    if params.len() > PARAMS_BYTES_MAX {
        let message = format!("The fields beside `input` hold more than {PARAMS_BYTES_MAX} bytes: send less");
        return Err(Failure::new(Code::InvalidValue, message));
    }
    Ok(params.into())
}

fn compat(kind: Kind, params: &str) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[kind as u8]).update(params.as_bytes());
    let [a, b, c, d, e, f, g, h, ..] = *hasher.finalize().as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// Texts and token ids never share a backend call: its `input` is homogeneous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text = 0,
    Tokens = 1,
}

/// The `input` field, checked.
struct Inputs<'a> {
    kind: Kind,
    /// The values joined by commas.
    text: &'a str,
    items: u32,
    tokens: u32,
    longest: u32,
}

impl<'a> Inputs<'a> {
    fn read(value: &'a RawValue, max: usize) -> Result<Self, Failure> {
        let text = value.get();
        match text.as_bytes().first() {
            Some(b'"') => Self::single_text(text),
            Some(b'[') => Self::array(text, max),
            _ => Err(invalid("input", INPUT_IS)),
        }
    }

    fn array(text: &'a str, max: usize) -> Result<Self, Failure> {
        let inside = text[1..text.len() - 1].trim_ascii();
        match inside.as_bytes().first() {
            None => Err(missing("input")),
            Some(b'"') => Self::many(Kind::Text, inside, &Count::texts(text)?, max),
            Some(b'[') => Self::many(Kind::Tokens, inside, &Count::token_arrays(text)?, max),
            Some(_) => Self::single_tokens(text),
        }
    }

    fn single_text(text: &'a str) -> Result<Self, Failure> {
        if text == "\"\"" {
            return Err(invalid("input", "without empty strings"));
        }
        Ok(Self { kind: Kind::Text, text, items: 1, tokens: estimate_tokens(text.len()), longest: 0 })
    }

    fn single_tokens(text: &'a str) -> Result<Self, Failure> {
        let TokenIds(tokens) = serde_json::from_str(text).map_err(malformed)?;
        Ok(Self { kind: Kind::Tokens, text, items: 1, tokens, longest: 0 })
    }

    fn many(kind: Kind, inside: &'a str, count: &Count, max: usize) -> Result<Self, Failure> {
        let Count { items, tokens, longest } = *count;
        if items as usize > max {
            let message = format!("`input` holds {items} inputs, and {max} are the most: split the call");
            return Err(Failure::new(Code::TooManyInputs, message).param("input"));
        }
        let tokens = if kind == Kind::Text { estimate_tokens(inside.len()) } else { tokens };
        Ok(Self { kind, text: inside, items, tokens, longest: if items > 1 { longest } else { 0 } })
    }
}

fn malformed(_: serde_json::Error) -> Failure {
    invalid("input", &format!("{INPUT_IS}; none of them empty"))
}

/// How many elements an array has, token ids in them, and tokens in the longest; counted without building any.
struct Count {
    items: u32,
    tokens: u32,
    longest: u32,
}

impl Count {
    fn texts(array: &str) -> Result<Self, Failure> {
        let NonEmptyTexts { items, longest } = serde_json::from_str(array).map_err(malformed)?;
        Ok(Self { items, tokens: 0, longest: estimate_tokens(longest) })
    }

    fn token_arrays(array: &str) -> Result<Self, Failure> {
        let TokenArrays { items, tokens, longest } = serde_json::from_str(array).map_err(malformed)?;
        Ok(Self { items, tokens, longest })
    }
}

struct NonEmptyTexts {
    items: u32,
    /// In bytes.
    longest: usize,
}
struct TokenIds(u32);
struct TokenArrays {
    items: u32,
    tokens: u32,
    longest: u32,
}

/// A visitor that folds a sequence instead of collecting it.
macro_rules! fold_sequence {
    ($type:ty, $expecting:literal, |$seq:ident| $fold:block) => {
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Fold;
                impl<'de> Visitor<'de> for Fold {
                    type Value = $type;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }
                    fn visit_seq<A: SeqAccess<'de>>(self, mut $seq: A) -> Result<$type, A::Error> $fold
                }
                deserializer.deserialize_seq(Fold)
            }
        }
    };
}

fold_sequence!(NonEmptyTexts, "strings", |seq| {
    let (mut items, mut longest) = (0u32, 0);
    while let Some(text) = seq.next_element::<&RawValue>()? {
        if !text.get().starts_with('"') || text.get().len() == 2 {
            return Err(A::Error::custom("not a string, or empty"));
        }
        items = items.saturating_add(1);
        longest = longest.max(text.get().len());
    }
    Ok(NonEmptyTexts { items, longest })
});

fold_sequence!(TokenIds, "token ids", |seq| {
    let mut tokens = 0u32;
    while let Some(id) = seq.next_element::<u64>()? {
        if id >= TOKEN_ID_END {
            return Err(A::Error::custom("not a token id"));
        }
        tokens = tokens.saturating_add(1);
    }
    if tokens == 0 { Err(A::Error::custom("no token ids")) } else { Ok(TokenIds(tokens)) }
});

fold_sequence!(TokenArrays, "arrays of token ids", |seq| {
    let (mut items, mut tokens, mut longest) = (0u32, 0u32, 0);
    while let Some(TokenIds(more)) = seq.next_element()? {
        items = items.saturating_add(1);
        tokens = tokens.saturating_add(more);
        longest = longest.max(more);
    }
    Ok(TokenArrays { items, tokens, longest })
});

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str) -> Result<Embedding, Failure> {
        embedding(&Bytes::copy_from_slice(body.as_bytes()), &Limits { inputs_max: 3, ..Limits::default() })
    }

    fn of_input(input: &str) -> Result<Embedding, Failure> {
        check(&format!("{{\"model\":\"m\",\"input\":{input}}}"))
    }

    #[test]
    fn inputs_of_every_form_are_counted_and_cut_out_raw() {
        let cases = [
            (r#""a b""#, r#""a b""#, 1),
            (r#"[ "a" , "\"" ]"#, r#""a" , "\"""#, 2),
            ("[1, 2,3]", "[1, 2,3]", 1),
            ("[[1],[2, 3]]", "[1],[2, 3]", 2),
            ("[0, 2147483647]", "[0, 2147483647]", 1),
        ];
        for (input, raw, items) in cases {
            let view = of_input(input).unwrap();
            assert_eq!((&view.inputs[..], view.items), (raw.as_bytes(), items), "{input}");
        }
        assert_eq!(of_input("[[1],[2, 3]]").unwrap().tokens_in, 3, "given tokens are counted, not estimated");
        let longest = |input| of_input(input).unwrap().longest;
        assert_eq!([r#""abcde""#, r#"["a"]"#, r#"["a","abcde"]"#, "[[1],[2, 3]]"].map(longest), [0, 0, 2, 2]);
    }

    #[test]
    fn every_malformed_input_is_refused() {
        let cases = [
            ("null", Code::MissingParameter),
            ("[]", Code::MissingParameter),
            ("[ ]", Code::MissingParameter),
            ("\"\"", Code::InvalidValue),
            ("[\"a\",\"\"]", Code::InvalidValue),
            ("7", Code::InvalidValue),
            ("{}", Code::InvalidValue),
            ("[\"a\",1]", Code::InvalidValue),
            ("[1,\"a\"]", Code::InvalidValue),
            ("[[1],\"a\"]", Code::InvalidValue),
            ("[[]]", Code::InvalidValue),
            ("[[\"a\"]]", Code::InvalidValue),
            ("[-1]", Code::InvalidValue),
            ("[1.5]", Code::InvalidValue),
            ("[2147483648]", Code::InvalidValue),
            ("[{}]", Code::InvalidValue),
            ("[null]", Code::InvalidValue),
            ("[\"a\",\"b\",\"c\",\"d\"]", Code::TooManyInputs),
            ("[[1],[1],[1],[1]]", Code::TooManyInputs),
        ];
        for (input, code) in cases {
            let failure = of_input(input).unwrap_err();
            assert_eq!((failure.code, failure.param.as_deref()), (code, Some("input")), "{input}");
        }
    }

    #[test]
    fn every_malformed_option_is_named() {
        let options = [
            ("dimensions", "0"),
            ("dimensions", "8193"),
            ("dimensions", "\"9\""),
            ("encoding_format", "\"hex\""),
            ("encoding_format", "1"),
        ];
        for (name, value) in options {
            let failure = check(&format!("{{\"model\":\"m\",\"input\":\"a\",\"{name}\":{value}}}")).unwrap_err();
            assert_eq!((failure.code, failure.param.as_deref()), (Code::InvalidValue, Some(name)), "{value}");
        }
        assert_eq!(check(r#"{"input":"a"}"#).unwrap_err().param.as_deref(), Some("model"));
        assert_eq!(check(r#"{"model":"m"}"#).unwrap_err().param.as_deref(), Some("input"));
    }

    #[test]
    fn other_fields_pass_on_in_one_order_and_the_user_does_not() {
        let one = check(r#"{"model":"m","input":"a","x\"":[1],"dimensions":256,"user":"u","encoding_format":"base64","z":null}"#).unwrap();
        let two = check(r#"{"dimensions":256,"user":"v","input":"b","model":"m","x\"":[1]}"#).unwrap();
        assert_eq!(&*one.params, r#""dimensions":256,"x\"":[1]"#);
        assert_eq!(one.encoding, Encoding::Base64);
        assert_eq!(one.compat, two.compat, "neither order nor caller nor encoding parts them");
    }

    #[test]
    fn texts_tokens_and_dimensions_are_kept_apart() {
        let texts = of_input("\"a\"").unwrap().compat;
        let tokens = of_input("[1]").unwrap().compat;
        let shorter = check(r#"{"model":"m","input":"a","dimensions":2}"#).unwrap().compat;
        assert!(texts != tokens && texts != shorter && tokens != shorter);
    }
}
