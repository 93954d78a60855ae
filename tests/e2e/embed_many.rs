//! Promise: many callers' single texts become few backend calls, and every caller gets exactly its own vector.
//!
//! The real job: 2,000 real texts through the official Python SDK by 64 concurrent callers, one text a call, at one serialised
//! accelerator. The figures are reported, not judged: the Python client itself may be the limit, so the project's own callers
//! run the same work beside it.

use crate::harness::{KEY, Mill, Program, Setup, python, report};
use loadtest::client::Client;
use loadtest::load::{self, Plan, Until};
use loadtest::texts::{self, Texts};
use loadtest::work::{Check, Mode, Work};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

const JOB: &str = "64 callers, one text a call, one serialised accelerator of 5 ms + 0.15 ms an input";
const TEXTS: usize = 2_000;
const CALLERS: usize = 64;
/// Time for one run of the script: straight at the accelerator it is 2,000 × 5.15 ms and a slow interpreter.
const SCRIPT_TIMEOUT: Duration = Duration::from_secs(180);
/// Requests of the project's own callers, straight at the accelerator.
const DIRECT_REQUESTS: u64 = 500;

/// One run of the script.
struct Embedded {
    vectors: Vec<String>,
    per_second: f64,
}

/// 64 callers of the Python SDK, one text a call; vectors as base64, in the order of the texts.
async fn embed_with_sdk(url: &str, key: &str, model: &str, texts: &Texts) -> Embedded {
    let folder = TempDir::new().expect("a temporary folder");
    let (input, output) = (folder.path().join("texts"), folder.path().join("vectors"));
    std::fs::write(&input, texts.lines.join("\n")).expect("the folder is writable");
    let mut command = python();
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk/embed_texts.py"));
    command.args(["--url", url, "--model", model, "--callers", &CALLERS.to_string(), "--texts"]).arg(&input).arg("--vectors").arg(&output);
    command.env("TIDEMILL_KEY", key);
    let ended = Program::start("embed_texts", command).end(SCRIPT_TIMEOUT).await;
    assert_eq!(ended.code, Some(0), "{}\n{}", ended.out, ended.err);
    let summary: Value = serde_json::from_str(&ended.out).expect("the script prints its figures");
    let vectors = std::fs::read_to_string(&output).expect("the script wrote its vectors").lines().map(str::to_owned).collect();
    Embedded { vectors, per_second: summary["per_second"].as_f64().expect("a rate") }
}

/// The same work from the project's own callers; texts a second.
async fn embed_with_callers(client: &Client, work: &Work, requests: u64) -> f64 {
    let outcome = load::run(client, work, Plan::closed(CALLERS, Until::Requests(requests))).await;
    assert!(outcome.failures.is_empty(), "{:?}", outcome.failures);
    outcome.summary().per_second
}

/// Every text's vector, asked of the backend itself.
pub(crate) async fn backends_own(backend: &Client, texts: &Texts) -> Vec<String> {
    let mut vectors = Vec::with_capacity(texts.lines.len());
    for inputs in texts.lines.chunks(100) {
        let body = json!({ "model": "sandbox-embedding", "input": inputs, "encoding_format": "base64" });
        let answer = backend.post("/v1/embeddings", body.to_string()).await.expect("the backend answers").json();
        let data = answer["data"].as_array().expect("vectors").iter();
        vectors.extend(data.filter_map(|item| item["embedding"].as_str().map(str::to_owned)));
    }
    assert_eq!(vectors.len(), texts.lines.len());
    vectors
}

async fn accelerator(setup: Setup) -> Mill {
    setup.sandbox(&["--a-ms", "5", "--b-ms", "0.15", "--concurrency", "1"]).start().await
}

/// The project's own callers, straight at the accelerator and through Tidemill; what came of it in words.
async fn own_callers(mill: &Mill, texts: &Texts, vectors: &[String]) -> String {
    let work = |model: &str| {
        let check = Check::Contains(vectors.into());
        Work { mode: Mode::Embed, model: model.into(), inputs: 1, texts: texts.lines.clone().into(), check }
    };
    let direct = embed_with_callers(&mill.backend(), &work("sandbox-embedding"), DIRECT_REQUESTS).await;
    mill.reset_stats().await;
    let through = embed_with_callers(&mill.client(), &work("embed"), TEXTS as u64).await;
    let (calls, batch) = figures(&mill.stats().await);
    assert!(calls * 4 < TEXTS as u64, "{calls} backend calls for {TEXTS} texts");
    let ratio = through / direct;
    format!("{calls} backend calls, mean batch {batch:.1}, {through:.0} texts/s; straight at the backend {direct:.0}; ratio {ratio:.1}")
}

fn figures(stats: &Value) -> (u64, f64) {
    let field = |name: &str| stats[name].as_f64().expect("the sandbox counts calls and inputs");
    let calls = field("embed_calls");
    (stats["embed_calls"].as_u64().unwrap_or_default(), field("embed_items") / calls.max(1.0))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_texts_become_few_calls_and_each_vector_is_its_own() {
    let mill = accelerator(Mill::up()).await;
    let texts = texts::descriptions(TEXTS);
    let direct = embed_with_sdk(mill.backend().base(), "unused", "sandbox-embedding", &texts).await;
    mill.reset_stats().await;
    let through = embed_with_sdk(mill.ingress(0), KEY, "embed", &texts).await;
    let (calls, batch) = figures(&mill.stats().await);
    let wrong = through.vectors.iter().zip(&direct.vectors).filter(|(own, backends)| own != backends).count();
    assert_eq!((through.vectors.len(), wrong), (TEXTS, 0), "all vectors, and none that differs from the backend's own");
    assert!(calls * 4 < TEXTS as u64, "{calls} backend calls for {TEXTS} texts");

    let (origin, ratio) = (texts.origin, through.per_second / direct.per_second);
    let sdk = format!(
        "{calls} backend calls, mean batch {batch:.1}, {:.0} texts/s; straight at the backend {:.0}; ratio {ratio:.1}",
        through.per_second, direct.per_second
    );
    let own = own_callers(&mill, &texts, &direct.vectors).await;
    report("embed-many", &format!("{TEXTS} texts ({origin}), {JOB}\nPython SDK:  {sdk}\nown callers: {own}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_holds_over_jetstream() {
    let mill = accelerator(Mill::up().nats()).await;
    let texts = texts::synthetic(TEXTS);
    let vectors = backends_own(&mill.backend(), &texts).await;
    let own = own_callers(&mill, &texts, &vectors).await;
    report("embed-many-jetstream", &format!("{TEXTS} texts ({}), {JOB}\nown callers: {own}", texts.origin));
}
