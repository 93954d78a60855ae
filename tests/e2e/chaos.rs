//! Promise: whatever dies, stalls, is cut off, fills up or misbehaves, and several things at once: nothing accepted is lost, nothing
//! has two outcomes, nobody gets another's answer, and failures are honest.
//!
//! A seed plans the faults (`plan.rs`); they are done to real processes (`stage.rs`, `perform.rs`) under a mixed load (`load.rs`)
//! whose callers write a log; and the log alone is judged (`checker.rs`). The short form runs with all tests, `tests/chaos` runs
//! the long one.

mod ask;
mod batch;
mod book;
mod checker;
mod deferred;
mod disk;
mod front;
mod journal;
mod load;
mod oracle;
mod perform;
mod plan;
mod records;
mod report;
mod rolling;
mod stage;

use crate::harness::{KEY, KEY_SMALL, report as keep, scratch};
use book::Book;
use front::Front;
use journal::{Entry, Journal};
use load::Load;
use perform::Performer;
use plan::{Fault, Form, Who};
use report::Report;
use stage::{BACKENDS, INGRESSES, Stage};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Calls a second: two cores carry the load, seventeen processes and whatever else runs.
const RATE: f64 = 20.0;
/// The load goes on for a while when nothing is wrong any more.
const CALM: Duration = Duration::from_secs(5);

const SEED: u64 = 1;

struct Settings {
    seed: u64,
    form: Form,
    rate: f64,
    /// Rows of each batch of embeddings, and of chats.
    rows: (u64, u64),
    /// Of the disk that is filled: more than a run stores, and filled in moments.
    disk_gib: u32,
}

/// Runs it and reports.
async fn run(settings: Settings, name: &str) -> Report {
    let folder = folder(name, settings.seed);
    let log = folder.join("log.jsonl");
    let wrong = play(&settings, &folder, Arc::new(Journal::create(&log))).await;
    let report = Report::of(&Book::of(&journal::read(&log)));
    keep(name, &report.to_string());
    let json = serde_json::to_string_pretty(&report).expect("plain data");
    std::fs::write(folder.join("report.json"), json).expect("the folder is writable");
    assert_eq!(wrong, Vec::<String>::new(), "every process ends when asked");
    report
}

/// Where a run leaves its log, its report and what its processes logged.
fn folder(name: &str, seed: u64) -> PathBuf {
    stage::cleared(scratch().join("chaos").join(format!("{name}-{seed}")))
}

/// From the first process to the end of the last; who did not end as it should.
async fn play(settings: &Settings, folder: &std::path::Path, journal: Arc<Journal>) -> Vec<String> {
    let mut stage = Stage::start(folder, settings.disk_gib).await;
    stage.ready(&journal).await;
    journal.note(Entry::Began { seed: settings.seed, backends: BACKENDS });
    let load = Load::new(settings.seed, Arc::clone(&journal), front(&stage, false));
    load.begin(settings.rate);
    load.batches(settings.rows.0, settings.rows.1);
    let mut plan = plan::plan(settings.seed, settings.form);
    if stage.disk.is_none() {
        eprintln!("no disk is filled: this system mounts no tmpfs for us");
        plan.retain(|one| one.fault != Fault::DiskFull);
    }
    Performer::new(&mut stage, &load, &journal).perform(&plan).await;
    journal.note(Entry::Healed);
    tokio::time::sleep(CALM).await;
    load.stop();
    load.ended_within(Duration::from_millis(checker::ENDS_WITHIN_MS)).await;
    stage.ready(&journal).await;
    look_again(&load, folder).await;
    records::read(&mut stage, &journal).await;
    journal.flush();
    stage.end().await
}

fn front(stage: &Stage, passes_over: bool) -> Front {
    let addresses: Vec<String> = (0..INGRESSES).map(|index| stage.address(Who::Ingress(index)).to_owned()).collect();
    Front::new(&addresses, &[KEY, KEY_SMALL], passes_over)
}

/// Jobs keep the end that was seen.
async fn look_again(load: &Load, folder: &std::path::Path) {
    load.journal.flush();
    for line in journal::read(&folder.join("log.jsonl")) {
        let Entry::Accepted { id, calls } = line.entry else { continue };
        if !id.starts_with("job") {
            continue;
        }
        if let Some(outcome) = deferred::look(load, calls[0], &id).await {
            load.ended(calls[0], outcome);
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_whatever_goes_wrong() {
    let seed = number("TIDEMILL_CHAOS_SEED").unwrap_or(SEED);
    let report = run(Settings { seed, form: Form::Short, rate: RATE, rows: (400, 60), disk_gib: 1 }, "chaos").await;
    assert!(report.injections >= 24, "{report}");
    assert!(report.violations.is_empty(), "{report}");
}

/// `tests/chaos` runs it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes as long as it is told: run tests/chaos"]
async fn nothing_is_lost_in_a_long_run() {
    let seed = number("TIDEMILL_CHAOS_SEED").unwrap_or(SEED);
    let minutes = number("TIDEMILL_CHAOS_MINUTES").expect("tests/chaos says how long");
    let form = Form::Long(Duration::from_secs(60 * minutes));
    let report = run(Settings { seed, form, rate: RATE, rows: (10_000, 500), disk_gib: 6 }, "chaos-long").await;
    assert!(report.violations.is_empty(), "{report}");
}
