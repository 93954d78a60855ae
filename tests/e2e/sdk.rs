//! Promise: the official SDKs work as against OpenAI itself: answers, streams, errors, deadlines. The checks are in `tests/sdk`.

use crate::harness::{AUTHORITY, KEY, Mill, Program, Setup, node_js, python, report};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Time for one script: a fresh interpreter on a busy machine is slow.
const SCRIPT_TIMEOUT: Duration = Duration::from_secs(120);
/// A script that skipped its checks must not pass.
const CHECKS_MIN: usize = 14;

/// What the scripts expect to be there.
fn setup() -> Setup {
    Mill::up().sandbox(&["--first-token-ms", "5", "--token-ms", "20"]).limit("body_bytes_max: 1000000")
}

async fn passes(mill: Mill, mut interpreter: Command, script: &str, report_as: &str) {
    interpreter.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk").join(script));
    interpreter.env("TIDEMILL_URL", mill.ingress(0)).env("TIDEMILL_KEY", KEY).env("SANDBOX_URL", mill.backend().base());
    let ended = Program::start("sdk", interpreter).end(SCRIPT_TIMEOUT).await;
    assert_eq!(ended.code, Some(0), "{script}: {}\n{}", ended.out, ended.err);
    let checks = ended.out.lines().filter(|line| line.starts_with("ok ")).count();
    assert!(checks >= CHECKS_MIN, "{script} made only {checks} checks:\n{}", ended.out);
    report(report_as, &format!("{checks} checks passed"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_python_sdk_is_at_home() {
    passes(setup().start().await, python(), "python_sdk.py", "python_sdk.py").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_python_sdk_is_at_home_over_https() {
    let mill = setup().tls(AUTHORITY.server(), "").start().await;
    let mut python = python();
    python.env("SSL_CERT_FILE", mill.folder().join("ca.pem"));
    passes(mill, python, "python_sdk.py", "python_sdk.py over https").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_node_sdk_is_at_home() {
    passes(setup().start().await, node_js(), "node_sdk.mjs", "node_sdk.mjs").await;
}
