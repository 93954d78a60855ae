//! core: what reached the sandbox, so that a test can see what a gateway sent, merged, cancelled or never should have sent.

use serde::Serialize;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many tags are remembered: more than any one test sends between two looks.
const SEEN_MAX: usize = 10_000;

/// Counts since the start or the last reset. Calls that were rejected as malformed are not in them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    pub calls: u64,
    pub embed_calls: u64,
    pub embed_items: u64,
    /// Inputs of the largest embeddings call.
    pub max_items: u64,
    /// Chat, completions and responses.
    pub chat_calls: u64,
    /// Calls that are not at their end now.
    pub running: u64,
    /// Calls whose caller left before the end.
    pub aborted: u64,
    /// The tags of the last prompts and inputs, the oldest first, as 16 hex digits.
    pub seen: Vec<String>,
}

/// The counts behind one lock, which is held for a few additions.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// Its `seen` stays empty: tags are kept as numbers.
    totals: Snapshot,
    seen: VecDeque<u64>,
}

/// A call under way. Dropped without [`Running::finish`], its caller has left.
#[derive(Debug)]
pub(crate) struct Running {
    stats: Arc<Stats>,
    is_finished: bool,
}

impl Stats {
    pub(crate) fn embeddings(self: &Arc<Self>, tags: Vec<u64>) -> Running {
        self.begin(|counts| {
            let items = tags.len() as u64;
            counts.totals.embed_calls += 1;
            counts.totals.embed_items += items;
            counts.totals.max_items = counts.totals.max_items.max(items);
            tags.into_iter().for_each(|tag| counts.saw(tag));
        })
    }

    pub(crate) fn generation(self: &Arc<Self>, tag: u64) -> Running {
        self.begin(|counts| {
            counts.totals.chat_calls += 1;
            counts.saw(tag);
        })
    }

    fn begin(self: &Arc<Self>, count: impl FnOnce(&mut Counts)) -> Running {
        let mut counts = self.lock();
        counts.totals.calls += 1;
        counts.totals.running += 1;
        count(&mut counts);
        drop(counts);
        Running { stats: Arc::clone(self), is_finished: false }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let counts = self.lock();
        let seen = counts.seen.iter().map(|tag| format!("{tag:016x}")).collect();
        Snapshot { seen, ..counts.totals.clone() }
    }

    /// Begins to count anew; what is running stays.
    pub(crate) fn reset(&self) {
        let mut counts = self.lock();
        let running = counts.totals.running;
        *counts = Counts { totals: Snapshot { running, ..Snapshot::default() }, seen: VecDeque::new() };
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn saw(&mut self, tag: u64) {
        if self.seen.len() == SEEN_MAX {
            self.seen.pop_front();
        }
        self.seen.push_back(tag);
    }
}

impl Running {
    pub(crate) fn finish(mut self) {
        self.is_finished = true;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut counts = self.stats.lock();
        counts.totals.running -= 1;
        counts.totals.aborted += u64::from(!self.is_finished);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_kind_and_remembered_by_tag() {
        let stats = Arc::new(Stats::default());
        stats.embeddings(vec![1, 2, 3]).finish();
        stats.embeddings(vec![4]).finish();
        drop(stats.generation(0xff));
        let counts = stats.snapshot();
        assert_eq!((counts.calls, counts.embed_calls, counts.embed_items, counts.max_items, counts.chat_calls), (3, 2, 4, 3, 1));
        assert_eq!((counts.running, counts.aborted), (0, 1));
        assert_eq!(counts.seen.last().map(String::as_str), Some("00000000000000ff"));
    }

    #[test]
    fn a_reset_forgets_all_but_what_runs() {
        let stats = Arc::new(Stats::default());
        let running = stats.generation(1);
        stats.reset();
        assert_eq!(stats.snapshot(), Snapshot { running: 1, ..Snapshot::default() });
        running.finish();
        assert_eq!(stats.snapshot(), Snapshot::default());
    }

    #[test]
    fn memory_is_bounded() {
        let stats = Arc::new(Stats::default());
        stats.embeddings((0..=SEEN_MAX as u64).collect()).finish();
        let seen = stats.snapshot().seen;
        assert_eq!((seen.len(), seen[0].as_str()), (SEEN_MAX, "0000000000000001"));
    }
}
