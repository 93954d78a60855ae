//! core: is a body sound? Typed views of the few fields that are read; everything else passes through as raw JSON.

mod depth;
mod embedding;
mod generation;
mod measure;
mod members;
mod metadata;

pub(crate) use embedding::embedding;
pub(crate) use generation::{Background, generation};
pub(crate) use measure::tokens_of;
pub(crate) use metadata::{Metadata, metadata};

use shared::error::{Code, Failure};

fn missing(name: &str) -> Failure {
    Failure::new(Code::MissingParameter, format!("`{name}` is required: add it to the body")).param(name)
}

fn invalid(name: &str, expected: &str) -> Failure {
    Failure::new(Code::InvalidValue, format!("`{name}` must be {expected}")).param(name)
}

/// The length of a body, in the wire's unit.
pub(crate) fn bytes(body: &[u8]) -> u32 {
    u32::try_from(body.len()).expect("a body is at most 1 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;
    use shared::config::Limits;
    use shared::domain::Operation;

    /// Pieces of bodies in any order: closer to JSON than noise, and rarely JSON.
    fn pieces() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ":",
            ",",
            "\"",
            "\\",
            "\"model\"",
            "\"input\"",
            "\"messages\"",
            "\"n\"",
            "null",
            "1",
            "-1.5e9",
            " ",
            "é",
            "\"m\"",
        ]);
        prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
    }

    fn check_all(body: &[u8]) {
        let (limits, body) = (Limits::default(), Bytes::copy_from_slice(body));
        for op in [Operation::Chat, Operation::Completions, Operation::Responses] {
            match generation(op, &body, &limits) {
                Ok(view) => {
                    let (start, end) = view.model_at;
                    let name: String = serde_json::from_slice(&body[start as usize..end as usize]).unwrap();
                    assert_eq!(name, view.model);
                }
                Err(failure) => check_refusal(&failure),
            }
        }
        match embedding(&body, &limits) {
            Ok(view) => {
                let inputs: Vec<serde_json::Value> = serde_json::from_slice(&[b"[", &view.inputs[..], b"]"].concat()).unwrap();
                assert_eq!(inputs.len(), view.items as usize);
            }
            Err(failure) => check_refusal(&failure),
        }
    }

    /// It is the caller's to mend, and says so in a sentence.
    fn check_refusal(failure: &Failure) {
        assert!((400..500).contains(&failure.code.status()), "{failure:?}");
        assert!(failure.message.len() > 10, "{failure:?}");
    }

    proptest! {
        #[test]
        fn no_body_makes_a_check_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), text in pieces(), input in pieces()) {
            check_all(&bytes);
            check_all(text.as_bytes());
            check_all(format!("{{\"model\":\"m\",\"input\":{input},\"messages\":[{input}]}}").as_bytes());
        }

        #[test]
        fn the_inputs_that_travel_are_those_of_the_body(texts in prop::collection::vec("\\PC{1,20}", 1..20)) {
            check_all(serde_json::json!({ "model": "m", "input": texts }).to_string().as_bytes());
        }
    }
}
