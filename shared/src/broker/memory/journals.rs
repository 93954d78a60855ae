//! core: one journal, bounded in bytes: the oldest entries go, or the next is refused.
//!
//! Entries are found by topic as well as by position, because many readers follow one job each of a journal of many.

use super::recent::RecentIds;
use super::records::Now;
use crate::broker::{BrokerError, Entry, Journal, Topic};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use tokio::sync::Notify;

/// What an entry costs beside its bytes.
const ENTRY_BYTES: usize = 128;

#[derive(Debug)]
pub(super) struct Pages {
    journal: Journal,
    bytes_max: usize,
    entries: BTreeMap<u64, Entry>,
    /// The positions of each topic's entries; a topic goes with its last entry.
    topics: BTreeMap<Box<str>, BTreeSet<u64>>,
    bytes: usize,
    last: u64,
    recent: RecentIds,
    pub(super) news: Arc<Notify>,
}

impl Pages {
    pub(super) fn new(journal: Journal, bytes_max: usize) -> Self {
        let (entries, topics, recent, news) = Default::default();
        Self { journal, bytes_max, entries, topics, bytes: 0, last: 0, recent, news }
    }

    pub(super) fn append(&mut self, (now, stored): Now, topic: &Topic, id: &str, value: Bytes) -> Result<u64, BrokerError> {
        if let Some(sequence) = self.recent.get(now, id) {
            return Ok(sequence);
        }
        self.make_room(cost(&value))?;
        self.last += 1;
        self.recent.insert(now, id, self.last);
        self.bytes += cost(&value);
        self.topics.entry(topic.as_str().into()).or_default().insert(self.last);
        let entry = Entry { key: topic.as_str().into(), value: Some(value), sequence: self.last, stored, more: false };
        self.entries.insert(self.last, entry);
        self.news.notify_waiters();
        Ok(self.last)
    }

    fn make_room(&mut self, bytes: usize) -> Result<(), BrokerError> {
        while self.bytes + bytes > self.bytes_max {
            let Some((&oldest, _)) = self.entries.first_key_value().filter(|_| !self.journal.keeps()) else {
                return Err(BrokerError::Full);
            };
            self.remove(oldest);
        }
        Ok(())
    }

    /// Removes the entries of a topic and of all below it, as far as `through`.
    pub(super) fn erase(&mut self, topic: &Topic, through: u64) {
        let erased: Vec<u64> = self.topics_of(topic).flat_map(|entries| entries.range(..=through)).copied().collect();
        erased.into_iter().for_each(|sequence| self.remove(sequence));
    }

    /// The position of the last entry.
    pub(super) const fn last(&self) -> u64 {
        self.last
    }

    /// The first entry after `last`, of a topic and of all below it, or of all topics.
    pub(super) fn after(&self, last: u64, topic: Option<&Topic>) -> Option<Entry> {
        let found = self.next(last, topic)?;
        let more = self.next(found, topic).is_some();
        Some(Entry { more, ..self.entries.get(&found)?.clone() })
    }

    fn next(&self, last: u64, topic: Option<&Topic>) -> Option<u64> {
        let later = (Bound::Excluded(last), Bound::Unbounded);
        match topic {
            Some(topic) => self.topics_of(topic).filter_map(|entries| entries.range(later).next()).min().copied(),
            None => self.entries.range(later).next().map(|(sequence, _)| *sequence),
        }
    }

    /// The positions of a topic's entries, and of those of each topic below it.
    fn topics_of(&self, topic: &Topic) -> impl Iterator<Item = &BTreeSet<u64>> {
        let (own, below) = (topic.as_str(), format!("{topic}."));
        let own = self.topics.get(own);
        let from = self.topics.range::<str, _>((Bound::Included(below.as_str()), Bound::Unbounded));
        let below: Vec<_> = from.take_while(|(key, _)| key.starts_with(&below)).map(|(_, entries)| entries).collect();
        own.into_iter().chain(below)
    }

    fn remove(&mut self, sequence: u64) {
        let Some(entry) = self.entries.remove(&sequence) else { return };
        self.bytes -= entry.value.as_ref().map_or(0, cost);
        if let Some(entries) = self.topics.get_mut(&entry.key) {
            entries.remove(&sequence);
            if entries.is_empty() {
                self.topics.remove(&entry.key);
            }
        }
    }
}

fn cost(value: &Bytes) -> usize {
    ENTRY_BYTES + value.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Time;
    use crate::domain::Token;
    use std::time::Duration;

    fn append(pages: &mut Pages, topic: &str, id: &str, bytes: usize) -> Result<u64, BrokerError> {
        let levels: Vec<_> = topic.split('.').map(|level| Token::parse(level).unwrap()).collect();
        let topic = Topic::of(&levels.iter().collect::<Vec<_>>());
        pages.append((Time::ZERO, Duration::ZERO), &topic, id, Bytes::from(vec![0; bytes]))
    }

    #[test]
    fn the_oldest_goes_and_positions_stay() {
        let mut pages = Pages::new(Journal::Usage, 1_000);
        for n in 1..=5 {
            assert_eq!(append(&mut pages, "t", &n.to_string(), 200), Ok(n));
        }
        let first = pages.after(0, None).unwrap();
        assert_eq!((first.sequence, first.more), (3, true));
        assert_eq!(append(&mut pages, "t", "larger than all", 1_000), Err(BrokerError::Full));
    }

    #[test]
    fn erasing_takes_a_topic_with_all_below_it_and_makes_room() {
        let mut pages = Pages::new(Journal::Results, 1_000);
        for (n, topic) in ["a.0", "a-b.0", "a.1"].into_iter().enumerate() {
            append(&mut pages, topic, &n.to_string(), 200).unwrap();
        }
        assert_eq!(append(&mut pages, "c.0", "full", 200), Err(BrokerError::Full));
        pages.erase(&Token::parse("a").unwrap().into(), u64::MAX);
        assert_eq!(&*pages.after(0, None).unwrap().key, "a-b.0");
        assert_eq!(append(&mut pages, "c.0", "full", 200), Ok(4), "what was refused is not remembered");
        pages.erase(&Token::parse("c").unwrap().into(), u64::MAX);
        pages.erase(&Token::parse("a-b").unwrap().into(), u64::MAX);
        assert!(pages.bytes == 0 && pages.topics.is_empty());
    }

    #[test]
    fn a_topic_is_read_with_all_below_it_in_order() {
        let mut pages = Pages::new(Journal::Results, 10_000);
        for (n, topic) in ["a.1", "b.0", "a.0", "a.1"].into_iter().enumerate() {
            append(&mut pages, topic, &n.to_string(), 1).unwrap();
        }
        let of_a = Topic::from(Token::parse("a").unwrap());
        let mut read = Vec::new();
        while let Some(entry) = pages.after(read.last().copied().unwrap_or(0), Some(&of_a)) {
            assert_eq!(entry.more, entry.sequence < 4);
            read.push(entry.sequence);
        }
        assert_eq!(read, [1, 3, 4]);
    }
}
