//! core: the body of an embeddings answer, in the form its caller asked for.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use shared::wire::Encoding;
use std::io::Write as _;

/// An OpenAI `list` of `embedding` objects. `model` is the public name; `tokens` the request's share of the call's input.
pub(super) fn embeddings(vectors: &[Vec<f32>], encoding: Encoding, model: &str, tokens: u32) -> Bytes {
    let values: usize = vectors.iter().map(Vec::len).sum();
    let mut json = Vec::with_capacity(values * if encoding == Encoding::Float { 13 } else { 6 } + vectors.len() * 64 + 256);
    json.extend_from_slice(br#"{"object":"list","data":["#);
    for (index, vector) in vectors.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        put(&mut json, format_args!(r#"{comma}{{"object":"embedding","index":{index},"embedding":"#));
        match encoding {
            Encoding::Float => floats(&mut json, vector),
            Encoding::Base64 => base64(&mut json, vector),
        }
        json.push(b'}');
    }
    let model = serde_json::Value::from(model);
    put(&mut json, format_args!(r#"],"model":{model},"usage":{{"prompt_tokens":{tokens},"total_tokens":{tokens}}}}}"#));
    json.into()
}

fn put(json: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    json.write_fmt(text).expect("memory takes every write");
}

/// The shortest decimals that read back as the same floats.
fn floats(json: &mut Vec<u8>, vector: &[f32]) {
    serde_json::to_writer(json, vector).expect("finite floats always encode");
}

/// Little-endian `f32`s, as OpenAI's SDKs ask for by default.
fn base64(json: &mut Vec<u8>, vector: &[f32]) {
    let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
    let start = json.len() + 1;
    json.push(b'"');
    json.resize(start + bytes.len().div_ceil(3) * 4, 0);
    let written = STANDARD.encode_slice(&bytes, &mut json[start..]).expect("the room was made for it");
    json.truncate(start + written);
    json.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn parse(body: &Bytes) -> Value {
        serde_json::from_slice(body).unwrap()
    }

    #[test]
    fn floats_read_back_exactly() {
        let vectors = [vec![0.1_f32, -1.5e-8, 1.0], vec![f32::MIN_POSITIVE, 0.0, -0.33333334]];
        let body = parse(&embeddings(&vectors, Encoding::Float, "m\"x", 7));
        assert_eq!(body["model"], "m\"x");
        assert_eq!(body["usage"], json!({"prompt_tokens": 7, "total_tokens": 7}));
        for (i, vector) in vectors.iter().enumerate() {
            let read: Vec<f32> = serde_json::from_value(body["data"][i]["embedding"].clone()).unwrap();
            assert_eq!(&read, vector);
            assert_eq!(body["data"][i]["index"], i);
        }
    }

    #[test]
    fn base64_holds_the_same_bytes() {
        let vectors = [vec![1.0_f32, 2.0, 3.0, 4.5]];
        let body = parse(&embeddings(&vectors, Encoding::Base64, "m", 1));
        let bytes = STANDARD.decode(body["data"][0]["embedding"].as_str().unwrap()).unwrap();
        let floats: Vec<f32> = bytes.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        assert_eq!(floats, vectors[0]);
    }
}
