//! core: journals, bounded in bytes: the oldest entries go.

use super::recent::RecentIds;
use crate::broker::{Entry, Journal, Since};
use crate::clock::Time;
use crate::domain::Token;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Bytes of one journal in memory, which is lost with the process anyway: enough for a look back, cheap for everybody else.
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// What an entry costs beside its bytes.
const ENTRY_BYTES: usize = 128;

#[derive(Debug, Default)]
pub(super) struct Journals {
    usage: Pages,
    audit: Pages,
}

impl Journals {
    pub(super) const fn of(&mut self, journal: Journal) -> &mut Pages {
        match journal {
            Journal::Usage => &mut self.usage,
            Journal::Audit => &mut self.audit,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Pages {
    entries: VecDeque<Entry>,
    bytes: usize,
    last: u64,
    recent: RecentIds,
    pub(super) news: Arc<Notify>,
}

impl Pages {
    /// `stored`: the wall clock, since 1970.
    pub(super) fn append(&mut self, now: Time, stored: Duration, topic: &Token, message_id: &str, value: Bytes) -> u64 {
        if let Some(sequence) = self.recent.get(now, message_id) {
            return sequence;
        }
        self.last += 1;
        self.recent.insert(now, message_id, self.last);
        self.bytes += cost(&value);
        self.entries.push_back(Entry { key: topic.as_str().into(), value: Some(value), sequence: self.last, stored, more: false });
        while self.bytes > BYTES_MAX
            && let Some(oldest) = self.entries.pop_front()
        {
            self.bytes -= oldest.value.as_ref().map_or(0, cost);
        }
        self.news.notify_waiters();
        self.last
    }

    /// The first entry after `last`, of a topic or of all, that is not from before `since`.
    pub(super) fn after(&self, last: u64, topic: Option<&Token>, since: Since) -> Option<Entry> {
        let wanted = |entry: &&Entry| topic.is_none_or(|topic| *entry.key == *topic.as_str());
        let begun = |entry: &&Entry| matches!(since, Since::Start) || matches!(since, Since::Time(time) if entry.stored >= time);
        let from = self.entries.partition_point(|entry| entry.sequence <= last);
        let mut rest = self.entries.range(from..).filter(wanted).filter(begun);
        let found = rest.next()?.clone();
        Some(Entry { more: rest.next().is_some(), ..found })
    }
}

fn cost(value: &Bytes) -> usize {
    ENTRY_BYTES + value.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_and_positions_stay() {
        let (mut pages, topic) = (Pages::default(), Token::parse("t").unwrap());
        let entry = Bytes::from(vec![0; 1024 * 1024]);
        for n in 1..=5 {
            assert_eq!(pages.append(Time::ZERO, Duration::ZERO, &topic, &n.to_string(), entry.clone()), n);
        }
        assert!(pages.bytes <= BYTES_MAX);
        let first = pages.after(0, None, Since::Start).unwrap();
        assert_eq!((first.sequence, first.more), (3, true));
    }
}
