//! loop: the record of what ran: notes the end of every call and appends what has gathered to the usage journal, for each
//! tenant apart, a moment later.
//!
//! The moment makes a busy worker's entries full ones: one append for up to 64 calls. What is noted waits in this process
//! only, so one that is killed takes the last moment with it; one that drains does not.

pub mod measured;
mod notes;
#[cfg(test)]
mod tests;

use crate::metrics::Metrics;
use bytes::Bytes;
use futures::{StreamExt, stream};
use notes::{Noted, Notes};
use shared::broker::{Broker, BrokerError, Journal, Topic};
use shared::clock;
use shared::domain::Token;
use shared::entropy;
use shared::task::{self, Guarded};
use shared::wire::{Call, FrameWriter, Part};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// How long calls gather: what a killed worker leaves unrecorded, and longer than an append takes.
const GATHER: Duration = Duration::from_millis(50);

/// Calls of one round, which is appended before the next is begun.
const ROUND_MAX: usize = 4_096;

/// Appends in flight: a round may be of as many tenants as it has calls, and each append waits for the broker's disk.
const APPENDS_MAX: usize = 16;

/// Pauses between the tries of an append that the broker did not confirm: the first, and the longest, as they double.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How long a worker that drains waits for its last calls to be on record, and how often it looks.
const SETTLE_MAX: Duration = Duration::from_secs(5);
const SETTLE_POLL: Duration = Duration::from_millis(5);

/// The handle. Its drop ends the recording at once; see [`Recorder::settled`].
pub(crate) struct Recorder {
    desk: Arc<Desk>,
    _task: Guarded,
}

/// A blocking mutex: held to add or take notes, never across an await.
struct Desk {
    notes: Mutex<Notes>,
    news: Notify,
    metrics: Metrics,
}

impl Recorder {
    pub(crate) fn start(broker: Arc<dyn Broker>, metrics: Metrics) -> Self {
        let desk = Arc::new(Desk { notes: Mutex::default(), news: Notify::new(), metrics });
        let task = task::spawn_guarded("usage", record(broker, Arc::clone(&desk)));
        Self { desk, _task: task }
    }

    /// Notes a call that has ended. Never waits.
    pub(crate) fn note(&self, call: Call) {
        let noted = self.desk.notes().add(call);
        match noted {
            Noted::First => self.desk.news.notify_one(),
            Noted::More => {}
            Noted::Dropped { first } => {
                self.desk.metrics.unrecorded(1);
                if first {
                    tracing::error!(
                        "the usage journal cannot be written and calls are no longer recorded, the oldest first: mend the broker"
                    );
                }
            }
        }
    }

    /// Waits until everything noted is on record, if that can be had within a few seconds.
    pub(crate) async fn settled(&self) {
        let settled = async {
            while !self.desk.notes().are_settled() {
                tokio::time::sleep(SETTLE_POLL).await;
            }
        };
        if tokio::time::timeout(SETTLE_MAX, settled).await.is_err() {
            tracing::error!("the last calls are not on record: the usage journal cannot be written");
        }
    }
}

impl Desk {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn record(broker: Arc<dyn Broker>, desk: Arc<Desk>) {
    loop {
        desk.news.notified().await;
        while !desk.notes().are_settled() {
            tokio::time::sleep(GATHER).await;
            let round = desk.notes().take(ROUND_MAX);
            let appends = entries(round).into_iter().map(|entry| append(broker.as_ref(), &desk.metrics, entry));
            stream::iter(appends).buffer_unordered(APPENDS_MAX).for_each(|()| async {}).await;
            desk.notes().settle();
        }
    }
}

/// What is appended at once: up to 64 calls of one tenant.
struct Entry {
    topic: Topic,
    calls: usize,
    frame: Bytes,
}

fn entries(round: Vec<Call>) -> Vec<Entry> {
    let mut by_tenant: HashMap<Box<str>, Vec<Part>> = HashMap::new();
    for call in round {
        let part = Part::encode(&call, Bytes::new());
        by_tenant.entry(call.tenant).or_default().push(part);
    }
    by_tenant.iter().flat_map(|(tenant, parts)| entries_of(&Token::of_name(tenant).into(), parts)).collect()
}

fn entries_of(topic: &Topic, parts: &[Part]) -> Vec<Entry> {
    let mut entries = Vec::new();
    let (mut writer, mut calls) = (FrameWriter::new(), 0);
    for part in parts {
        if !writer.fits(part) {
            entries.push(Entry { topic: topic.clone(), calls, frame: writer.take() });
            calls = 0;
        }
        writer.push(part);
        calls += 1;
    }
    entries.push(Entry { topic: topic.clone(), calls, frame: writer.take() });
    entries
}

/// Appends one entry, however long the broker is away; always under the same id, so that it is stored once.
async fn append(broker: &dyn Broker, metrics: &Metrics, entry: Entry) {
    let (message_id, since, mut pause) = (entropy::message_id(), clock::now(), PAUSE_MIN);
    loop {
        match broker.append(Journal::Usage, &entry.topic, &message_id, entry.frame.clone()).await {
            Ok(_) => return,
            Err(BrokerError::TooLarge) => {
                tracing::error!(calls = entry.calls, "calls are not recorded: an entry is larger than the broker carries");
                return metrics.unrecorded(entry.calls);
            }
            Err(error) => tracing::warn!(%error, waiting = ?clock::now().since(since), "calls are not yet on record; trying again"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}
