//! core: the message ids of the last two minutes, each with the sequence its frame was stored at.

use crate::broker::limits::DUPLICATE_WINDOW;
use crate::clock::Time;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};

/// Ids remembered at once, about 1 MB. Past it the oldest is forgotten early: in one process a publish is not retried
/// over a lost answer, so a duplicate comes soon or not at all.
const IDS_MAX: usize = 16_384;

#[derive(Debug, Default)]
pub(super) struct RecentIds {
    sequences: HashMap<Print, u64>,
    by_age: VecDeque<(Time, Print)>,
    keys: [RandomState; 2],
}

/// 128 bits that stand for an id: two hashes under keys of this process.
type Print = [u64; 2];

impl RecentIds {
    pub(super) fn get(&mut self, now: Time, id: &str) -> Option<u64> {
        while self.by_age.front().is_some_and(|(at, _)| now.since(*at) >= DUPLICATE_WINDOW) {
            self.forget_oldest();
        }
        self.sequences.get(&self.print(id)).copied()
    }

    pub(super) fn insert(&mut self, now: Time, id: &str, sequence: u64) {
        if self.by_age.len() >= IDS_MAX {
            self.forget_oldest();
        }
        let print = self.print(id);
        self.sequences.insert(print, sequence);
        self.by_age.push_back((now, print));
    }

    fn print(&self, id: &str) -> Print {
        [self.keys[0].hash_one(id), self.keys[1].hash_one(id)]
    }

    fn forget_oldest(&mut self) {
        if let Some((_, print)) = self.by_age.pop_front() {
            self.sequences.remove(&print);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_known_for_two_minutes() {
        let mut ids = RecentIds::default();
        ids.insert(Time::ZERO, "a", 7);
        assert_eq!(ids.get(Time::from_millis(119_999), "a"), Some(7));
        assert_eq!(ids.get(Time::from_millis(120_000), "a"), None);
        assert!(ids.by_age.is_empty() && ids.sequences.is_empty());
    }

    #[test]
    fn the_oldest_id_makes_room() {
        let mut ids = RecentIds::default();
        for n in 0..=IDS_MAX {
            ids.insert(Time::ZERO, &n.to_string(), n as u64);
        }
        assert_eq!(ids.get(Time::ZERO, "0"), None);
        assert_eq!(ids.get(Time::ZERO, "1"), Some(1));
    }
}
