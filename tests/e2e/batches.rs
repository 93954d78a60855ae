//! Promise: files, batches and jobs work with the official SDK as against OpenAI itself, in one process and over JetStream. The
//! checks are in `tests/sdk/python_batches.py`.

use crate::harness::{KEY, KEY_SMALL, Mill, Program, Setup, python, report};
use std::path::Path;
use std::time::Duration;

/// Time for the script on a busy machine.
const SCRIPT_TIMEOUT: Duration = Duration::from_secs(240);
/// A script that skipped its checks must not pass.
const CHECKS_MIN: usize = 10;

async fn passes(setup: Setup, report_as: &str) {
    let mill = setup.sandbox(&["--first-token-ms", "5", "--token-ms", "5"]).start().await;
    let mut python = python();
    python.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk/python_batches.py"));
    python.env("TIDEMILL_URL", mill.ingress(0)).env("TIDEMILL_KEY", KEY).env("TIDEMILL_KEY_OTHER", KEY_SMALL);
    python.env("SANDBOX_URL", mill.backend().base());
    let ended = Program::start("batches", python).end(SCRIPT_TIMEOUT).await;
    assert_eq!(ended.code, Some(0), "{}\n{}", ended.out, ended.err);
    let checks = ended.out.lines().filter(|line| line.starts_with("ok ")).count();
    assert!(checks >= CHECKS_MIN, "only {checks} checks:\n{}", ended.out);
    report(report_as, &format!("{checks} checks passed"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn batches_and_jobs_run_in_one_process() {
    passes(Mill::up(), "python_batches.py in process").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn batches_and_jobs_run_over_jetstream() {
    passes(Mill::cluster(2, 2, 2), "python_batches.py over JetStream").await;
}
