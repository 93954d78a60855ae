//! Promise: every process can be restarted in turn while the load goes on, and no request fails: no stream breaks either, though what
//! the roles say to each other is lost while they go from a nats-server that retires, as a lame duck, to another.
//!
//! In front of the ingresses stands what stands there in earnest: it takes one out before it is asked to end, and passes over one
//! that cannot be connected to. It repeats nothing that an ingress has taken.

use super::book::Book;
use super::journal::{self, Entry, Journal};
use super::plan::Who;
use super::report::Report;
use super::stage::{BACKENDS, INGRESSES, Stage};
use super::{Load, RATE, folder, front, keep, records};
use crate::harness::until;
use std::sync::Arc;
use std::time::Duration;

/// A lame duck tells its clients, sends them away one by one and ends.
const RETIRES_WITHIN: Duration = Duration::from_secs(45);
/// Between one restart and the next.
const PAUSE: Duration = Duration::from_secs(2);

const SEED: u64 = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_every_process_is_restarted() {
    let folder = folder("rolling", SEED);
    let log = folder.join("log.jsonl");
    let journal = Arc::new(Journal::create(&log));
    let mut stage = Stage::start(&folder, 1).await;
    stage.ready(&journal).await;
    journal.note(Entry::Began { seed: SEED, backends: BACKENDS });
    let load = Load::new(SEED, Arc::clone(&journal), front(&stage, true));
    load.begin(RATE);
    tokio::time::sleep(PAUSE).await;
    roll_everything(&mut stage, &load).await;
    load.stop();
    load.ended_within(Duration::from_secs(60)).await;
    records::read(&mut stage, &journal).await;
    journal.flush();
    let book = Book::of(&journal::read(&log));
    let report = Report::of(&book);
    keep("rolling", &report.to_string());
    assert_eq!(stage.end().await, Vec::<String>::new());
    let failed: Vec<_> = book.calls.iter().filter(|(_, call)| !call.is_answered()).collect();
    assert!(failed.is_empty() && report.violations.is_empty(), "{report}{failed:#?}");
}

async fn roll_everything(stage: &mut Stage, load: &Load) {
    let roles = [Who::Worker(0), Who::Scheduler(0), Who::Worker(1), Who::Scheduler(1), Who::Worker(2)];
    for who in roles {
        roll(stage, load, who).await;
    }
    for ingress in 0..INGRESSES {
        load.front.set_out(ingress, true);
        roll(stage, load, Who::Ingress(ingress)).await;
        load.front.set_out(ingress, false);
    }
    for server in 0..stage.nats.ports().len() {
        load.journal.note(Entry::Injected { id: server, class: "retire nats-server".into(), targets: Vec::new() });
        stage.nats.signal(server, "USR2");
        until("a lame duck ends", RETIRES_WITHIN, async || stage.nats.has_ended(server)).await;
        stage.nats.launch(server);
        stage.nats.whole().await;
        load.journal.note(Entry::Over { id: server });
        tokio::time::sleep(PAUSE).await;
    }
}

async fn roll(stage: &mut Stage, load: &Load, who: Who) {
    let id = 100 + stage_place(who);
    load.journal.note(Entry::Injected { id, class: format!("restart {who}"), targets: Vec::new() });
    assert_eq!(stage.roll(who).await, Some(0), "{who} ends when asked");
    load.journal.note(Entry::Over { id });
    tokio::time::sleep(PAUSE).await;
}

/// A number for each process of ours.
fn stage_place(who: Who) -> usize {
    match who {
        Who::Worker(index) => index,
        Who::Scheduler(index) => 10 + index,
        Who::Ingress(index) => 20 + index,
        Who::Backend(_) | Who::Nats(_) | Who::Redis => unreachable!("not restarted here"),
    }
}
