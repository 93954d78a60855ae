//! core: the message ids of the last two minutes, each with the sequence its frame was stored at.

use crate::broker::limits::DUPLICATE_WINDOW;
use crate::clock::Time;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Ids remembered at once, about 40 MB. Past it the oldest is forgotten early: in one process a publish is not retried
/// over a lost answer, so a duplicate comes soon or not at all.
const IDS_MAX: usize = 262_144;

#[derive(Debug, Default)]
pub(super) struct RecentIds {
    sequences: HashMap<Arc<str>, u64>,
    by_age: VecDeque<(Time, Arc<str>)>,
}

impl RecentIds {
    pub(super) fn get(&mut self, now: Time, id: &str) -> Option<u64> {
        while self.by_age.front().is_some_and(|(at, _)| now.since(*at) >= DUPLICATE_WINDOW) {
            self.forget_oldest();
        }
        self.sequences.get(id).copied()
    }

    pub(super) fn insert(&mut self, now: Time, id: &str, sequence: u64) {
        if self.by_age.len() >= IDS_MAX {
            self.forget_oldest();
        }
        let id: Arc<str> = id.into();
        self.sequences.insert(id.clone(), sequence);
        self.by_age.push_back((now, id));
    }

    fn forget_oldest(&mut self) {
        if let Some((_, id)) = self.by_age.pop_front() {
            self.sequences.remove(&id);
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
