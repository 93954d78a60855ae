//! Promise: files, batches and jobs work with the official SDK as against OpenAI itself, in one process and over JetStream. The
//! checks are in `tests/sdk/python_batches.py` and `tests/sdk/node_batches.mjs`.

use crate::harness::{KEY, KEY_SMALL, Mill, Program, Setup, node_js, python, report};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Time for the script on a busy machine.
const SCRIPT_TIMEOUT: Duration = Duration::from_secs(240);

/// What a script prints, which must make at least so many checks: one that skipped them must not pass.
async fn passes(setup: Setup, mut interpreter: Command, script: &str, checks_min: usize) -> String {
    let mill = setup.start().await;
    interpreter.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk").join(script));
    interpreter.env("TIDEMILL_URL", mill.ingress(0)).env("TIDEMILL_KEY", KEY).env("TIDEMILL_KEY_OTHER", KEY_SMALL);
    interpreter.env("SANDBOX_URL", mill.backend().base());
    let ended = Program::start("batches", interpreter).end(SCRIPT_TIMEOUT).await;
    assert_eq!(ended.code, Some(0), "{}\n{}", ended.out, ended.err);
    let checks = ended.out.lines().filter(|line| line.starts_with("ok ")).count();
    assert!(checks >= checks_min, "only {checks} checks:\n{}", ended.out);
    ended.out
}

async fn all_pass(setup: Setup, interpreter: Command, script: &str, checks_min: usize, report_as: &str) {
    let setup = setup.sandbox(&["--first-token-ms", "5", "--token-ms", "5"]);
    let told = passes(setup, interpreter, script, checks_min).await;
    report(report_as, &format!("{} checks passed", told.lines().count()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn batches_and_jobs_run_in_one_process() {
    all_pass(Mill::up(), python(), "python_batches.py", 11, "python_batches.py in process").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn batches_and_jobs_run_over_jetstream() {
    all_pass(Mill::cluster(2, 2, 2), python(), "python_batches.py", 11, "python_batches.py over JetStream").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_node_sdk_runs_batches_and_background_responses() {
    all_pass(Mill::up().nats(), node_js(), "node_batches.mjs", 5, "node_batches.mjs").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn lines_that_are_no_json_are_named_wherever_they_stand_in_the_largest_batch() {
    let told = passes(Mill::up().nats().sandbox(&["--a-ms", "1", "--b-ms", "0"]), python(), "malformed_lines.py", 1).await;
    report("malformed lines", &told);
}
