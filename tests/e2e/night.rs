//! Promise: a batch survives whatever dies under it: each line has one outcome and its own answer, and what runs twice is no more than
//! what was in flight at the kills.

use crate::harness::{KEY, Mill, Program, Role, python, report};
use std::path::Path;
use std::time::Duration;

/// Time for both batches on a busy machine.
const WITHIN: Duration = Duration::from_secs(400);

/// Between a kill and the restart of what was killed, and from there to the next: longer than most things take to heal.
const DOWN: Duration = Duration::from_millis(600);
const UP: Duration = Duration::from_millis(1_400);

/// Whose turn it is: every role, and the broker twice.
const ROUND: [Option<(Role, usize)>; 9] = [
    Some((Role::Worker, 0)),
    Some((Role::Ingress, 0)),
    Some((Role::Scheduler, 0)),
    Some((Role::Worker, 1)),
    None,
    Some((Role::Ingress, 1)),
    Some((Role::Scheduler, 1)),
    Some((Role::Worker, 2)),
    Some((Role::Worker, 1)),
];

struct Size {
    embeddings: u32,
    chats: u32,
    kills: usize,
    /// What a call of the backend takes beside its texts: so much that the batches outlast the kills on any machine.
    call_ms: &'static str,
}

async fn survives(size: Size, report_as: &str) {
    let sandbox = ["--a-ms", size.call_ms, "--b-ms", "0.15", "--first-token-ms", "5", "--token-ms", "20"];
    let mut mill = Mill::cluster(2, 2, 3).sandbox(&sandbox).start().await;
    let mut python = python();
    python.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk/night.py"));
    let urls = format!("{},{}", mill.ingress(0), mill.ingress(1));
    python.env("TIDEMILL_URLS", urls).env("TIDEMILL_KEY", KEY).env("SANDBOX_URL", mill.backend().base());
    python.env("EMBEDDINGS", size.embeddings.to_string()).env("CHATS", size.chats.to_string());
    let mut night = Program::start("night", python);
    night.printed("submitted", WITHIN).await;
    let (mut kills, mut broker) = (0, 0);
    while kills < size.kills && !night.has_printed("through") {
        match ROUND[kills % ROUND.len()] {
            Some((role, index)) => {
                mill.kill(role, index);
                tokio::time::sleep(DOWN).await;
                mill.restart(role, index).await;
            }
            None => {
                mill.nats().kill();
                mill.nats().restart().await.unwrap_or_else(|error| panic!("{error}"));
                broker += 1;
            }
        }
        kills += 1;
        tokio::time::sleep(UP).await;
    }
    let ended = night.end(WITHIN).await;
    assert_eq!(ended.code, Some(0), "after {kills} kills: {}\n{}", ended.out, ended.err);
    assert_eq!(kills, size.kills, "the batches were over before all the kills");
    let told = ended.out.lines().find(|line| line.starts_with("ok ")).expect("it says what it saw");
    report(report_as, &format!("{kills} kills, {broker} of them of nats-server: {told}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_line_has_one_outcome_whatever_dies() {
    survives(Size { embeddings: 20_000, chats: 2_000, kills: 9, call_ms: "80" }, "night").await;
}

/// The size that a data team would run: about four minutes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: run it by name"]
async fn fifty_thousand_lines_have_one_outcome_each_whatever_dies() {
    survives(Size { embeddings: 50_000, chats: 5_000, kills: 27, call_ms: "65" }, "night of 55,000 lines").await;
}
