//! The same at Tidemill itself: the batches go on while nobody watches them.

use super::{lines, tidemill};
use crate::embed_many::backends_own;
use crate::harness::{KEY, Mill, Program, Setup, until};
use base64::prelude::{BASE64_STANDARD, Engine};
use loadtest::texts;
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

const ROWS: usize = 3_000;
/// Rows that the backend has seen when the run is killed.
const ROWS_BEFORE: u64 = 300;
const PATIENCE: Duration = Duration::from_secs(60);

fn command(mill: &Mill, folder: &TempDir) -> Command {
    let mut command = tidemill();
    command.arg("embed").arg(folder.path().join("in.jsonl")).arg("-o").arg(folder.path().join("out.jsonl"));
    command.args(["--model", "embed", "--batch-rows", "500", "--only-vectors", "--url"]).arg(format!("{}/v1", mill.ingress(0)));
    command.env("TIDEMILL_API_KEY", KEY);
    command
}

async fn rows_seen(mill: &Mill) -> u64 {
    mill.stats().await["embed_items"].as_u64().expect("the sandbox counts inputs")
}

async fn a_killed_run_goes_on(setup: Setup) {
    let mill = setup.sandbox(&["--a-ms", "5", "--b-ms", "0.5", "--concurrency", "1"]).start().await;
    let texts = texts::synthetic(ROWS);
    let expected = backends_own(&mill.backend(), &texts).await;
    mill.reset_stats().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let rows: String = texts.lines.iter().map(|text| json!({ "text": text }).to_string() + "\n").collect();
    std::fs::write(folder.path().join("in.jsonl"), rows).expect("the folder is writable");

    let first = Program::start("embed", command(&mill, &folder));
    until("the backend has work", PATIENCE, async || rows_seen(&mill).await > ROWS_BEFORE).await;
    first.kill();
    let ended = Program::start("embed", command(&mill, &folder)).end(PATIENCE).await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);

    let output = std::fs::read_to_string(folder.path().join("out.jsonl")).expect("the output is there");
    let found: Vec<String> = lines(&output).iter().map(|line| encoded(&line["embedding"])).collect();
    let wrong = found.iter().zip(&expected).filter(|(found, expected)| found != expected).count();
    assert_eq!((found.len(), wrong), (ROWS, 0), "all vectors, and none that differs from the backend's own");
    assert_eq!(rows_seen(&mill).await, ROWS as u64, "no row is embedded twice");
}

/// A vector as the backend writes it.
fn encoded(vector: &Value) -> String {
    let numbers: Vec<f32> = serde_json::from_value(vector.clone()).expect("each row has a vector");
    BASE64_STANDARD.encode(numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<_>>())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_one_process_a_killed_run_goes_on() {
    a_killed_run_goes_on(Mill::up()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_jetstream_a_killed_run_goes_on() {
    a_killed_run_goes_on(Mill::up().nats()).await;
}
