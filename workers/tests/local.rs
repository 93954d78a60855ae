//! Promise: a model's vectors are those that it was published with, whatever company a text has in its call.
//!
//! On all-MiniLM-L6-v2, which `tests/setup/model.sh` fetches. Without it nothing is tested, in so many words.
#![cfg(feature = "local")]

use bytes::Bytes;
use serde_json::{Value, json};
use shared::config::{self, SandboxConfig, Target};
use shared::domain::Operation;
use shared::error::Code;
use std::path::{Path, PathBuf};
use std::time::Duration;
use workers::backend::{Backend, EmbedCall, http};
use workers::local::Model;
use workers::sandbox::{Body, Sandbox, Source};

const SENTENCE: &str = "This is an example sentence";

/// The first four numbers and the last of a text's vector, as an implementation in double precision has them.
const KNOWN: [(&str, [f32; 5]); 4] = [
    (SENTENCE, [0.067_657, 0.063_496, 0.048_713, 0.079_305, -0.042_229]),
    ("A man is eating food.", [0.033_242, 0.004_406, -0.006_277, 0.048_379, -0.037_564]),
    ("A man is eating a piece of bread.", [0.052_518, 0.055_241, -0.011_188, -0.005_745, -0.041_151]),
    ("The girl is carrying a baby.", [-0.036_309, -0.035_653, -0.027_223, 0.038_320, -0.001_315]),
];

/// Of the second and the third.
const COSINE: f32 = 0.755_337;

fn folder() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tidemill/models/all-minilm-l6-v2");
    if !folder.is_dir() {
        eprintln!("SKIPPED: there is no model in {}; tests/setup/model.sh fetches it", folder.display());
        return None;
    }
    Some(folder)
}

fn model() -> Option<Model> {
    Some(Model::load(&folder()?).expect("the model is whole"))
}

async fn ask(sandbox: &Sandbox, body: Value) -> (u16, Value) {
    let reply = sandbox.call(Operation::Embeddings, body.to_string().as_bytes()).await;
    let Body::Whole(bytes) = reply.body else { panic!("an embeddings answer comes whole") };
    (reply.status, serde_json::from_slice(&bytes).expect("it is JSON"))
}

fn vectors(model: &Model, texts: &[&str]) -> Vec<Vec<f32>> {
    model.embed(texts).expect("texts are embedded").vectors
}

fn is_near(one: &[f32], other: &[f32]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(a, b)| (a - b).abs() < 1e-5)
}

fn product(one: &[f32], other: &[f32]) -> f32 {
    one.iter().zip(other).map(|(a, b)| a * b).sum()
}

#[test]
fn vectors_are_those_of_the_published_model() {
    let Some(model) = model() else { return };
    let found = vectors(&model, &KNOWN.map(|(text, _)| text));
    for ((text, known), vector) in KNOWN.iter().zip(&found) {
        let (first, last) = (&vector[..4], vector[model.dimensions() - 1]);
        assert!(is_near(&[first, &[last]].concat(), known), "{text}: {first:?} … {last}");
        assert!((product(vector, vector) - 1.0).abs() < 1e-5, "{text}: not of length 1");
    }
    let cosine = product(&found[1], &found[2]);
    assert!((cosine - COSINE).abs() < 1e-5, "{cosine}");
}

#[test]
fn padding_does_not_change_a_vector() {
    let Some(model) = model() else { return };
    let long = "a long text that has many more words than the other one ".repeat(12);
    let alone = vectors(&model, &[SENTENCE]);
    let padded = vectors(&model, &[&long, SENTENCE]);
    assert!(is_near(&alone[0], &padded[1]));
}

#[test]
fn a_call_larger_than_a_slice_keeps_its_order() {
    let Some(model) = model() else { return };
    let long = "word ".repeat(300);
    let mut texts = vec![long.as_str(); 65];
    texts.push(SENTENCE);
    let embedded = model.embed(&texts).expect("texts are embedded");
    assert_eq!((embedded.vectors.len(), embedded.tokens), (66, 65 * 256 + 7), "texts are cut at the model's length");
    assert!(is_near(&embedded.vectors[65], &vectors(&model, &[SENTENCE])[0]));
}

#[test]
fn vectors_do_not_depend_on_who_forms_the_slices() {
    let Some(model) = model() else { return };
    let texts: Vec<String> = (0..40).map(|row| "word ".repeat(1 + row * 17 % 90)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let (padded, sorted) = (model.embed(&texts).expect("embedded"), model.embed_by_length(&texts, || false).expect("embedded"));
    assert_eq!(padded.tokens, sorted.tokens);
    assert!(padded.vectors.iter().zip(&sorted.vectors).all(|(one, other)| is_near(one, other)));
}

#[test]
fn work_that_nobody_waits_for_ends_before_the_next_slice() {
    let Some(model) = model() else { return };
    assert!(model.embed_by_length(&[SENTENCE], || true).is_err());
}

/// A backend of kind `local` with one seat.
fn backend() -> Option<Backend> {
    let target = Target::Local { model_dir: folder()? };
    let timeout = Duration::from_secs(60);
    let config = config::Backend { name: "b".into(), target, concurrency: 1, tokens_max: 1 << 20, per_worker: false, timeout };
    Some(Backend::new(&config, &mut http::Clients::default()).expect("the model is whole"))
}

fn inputs(requests: &[Value]) -> Vec<Bytes> {
    requests.iter().map(|inputs| Bytes::from(inputs.to_string().trim_matches(['[', ']']).to_owned())).collect()
}

#[tokio::test]
async fn a_local_backend_answers_several_requests_in_order() {
    let Some(backend) = backend() else { return };
    let inputs = inputs(&[json!([KNOWN[1].0, KNOWN[2].0]), json!([SENTENCE])]);
    let embedded = backend.embed(EmbedCall { inputs: &inputs, count: 3, params: r#""dimensions":384"#, traceparent: None }).await.unwrap();
    assert_eq!(embedded.prompt_tokens, Some(8 + 11 + 7));
    for (place, (_, known)) in [KNOWN[1], KNOWN[2], KNOWN[0]].iter().enumerate() {
        assert!(is_near(&embedded.vector(place)[..4], &known[..4]), "input {place}");
    }
}

#[tokio::test]
async fn a_local_backend_refuses_what_its_model_cannot_do() {
    let Some(backend) = backend() else { return };
    let cases = [("[1,2]", ""), (r#""a""#, r#""dimensions":64"#)];
    for (input, params) in cases {
        let inputs = [Bytes::from_static(input.as_bytes())];
        let error = backend.embed(EmbedCall { inputs: &inputs, count: 1, params, traceparent: None }).await.unwrap_err();
        assert_eq!(error.failure.code, Code::BackendRejected, "{input} {params}");
    }
}

#[tokio::test]
async fn a_call_that_was_left_gives_its_seat_back() {
    let Some(backend) = backend() else { return };
    let inputs = inputs(&[json!([SENTENCE])]);
    let call = EmbedCall { inputs: &inputs, count: 1, params: "", traceparent: None };
    let left = tokio::time::timeout(Duration::ZERO, backend.embed(call)).await;
    assert!(left.is_err(), "no model is as fast as that");
    assert!(backend.embed(call).await.is_ok());
}

#[test]
fn a_folder_of_another_kind_of_model_is_refused() {
    let Some(real) = folder() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = std::fs::read_to_string(real.join("config.json")).expect("it has a configuration");
    std::fs::write(folder.path().join("config.json"), config.replace(r#""model_type": "bert""#, r#""model_type": "mpnet""#))
        .expect("written");
    let error = Model::load(folder.path()).err().expect("it is refused").to_string();
    assert!(error.contains("mpnet"), "{error}");
}

#[tokio::test]
async fn the_sandbox_answers_with_the_models_vectors_and_tokens() {
    let Some(folder) = folder() else { return };
    let sandbox = Sandbox::with_source(SandboxConfig::default(), Source::model(&folder).expect("the model is whole"));
    let (status, answer) = ask(&sandbox, json!({ "model": "m", "input": [SENTENCE] })).await;
    let first = answer["data"][0]["embedding"][0].as_f64().expect("a vector");
    assert_eq!((status, answer["usage"]["prompt_tokens"].as_u64()), (200, Some(7)));
    assert!((first - 0.067_657).abs() < 1e-5, "{first}");
    for refused in [json!({ "model": "m", "input": [[1, 2]] }), json!({ "model": "m", "input": "a", "dimensions": 64 })] {
        assert_eq!(ask(&sandbox, refused).await.0, 400);
    }
}

#[test]
fn a_folder_without_a_model_is_named() {
    let folder = Path::new("/no/such/folder");
    let error = Model::load(folder).err().expect("nothing is there").to_string();
    assert!(error.starts_with("/no/such/folder/config.json: ") && error.contains("model.safetensors"), "{error}");
}
