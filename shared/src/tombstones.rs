//! core: requests that nobody waits for, remembered in case they are still on their way.

use crate::clock::Time;
use crate::domain::RequestId;
use foldhash::HashSet;
use std::collections::VecDeque;
use std::time::Duration;

/// Enough for a cancel storm of every request of a full window, eight times over.
const KEPT_MAX: usize = 65_536;

/// Longer than any redelivery or re-publication of a frame that was in flight when its request was cancelled.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// A bounded set of cancelled requests, each kept for a minute.
#[derive(Debug, Default)]
pub struct Tombstones {
    ids: HashSet<RequestId>,
    order: VecDeque<(Time, RequestId)>,
}

impl Tombstones {
    pub fn insert(&mut self, id: RequestId, now: Time) {
        if self.ids.insert(id) {
            self.order.push_back((now, id));
        }
        if self.order.len() > KEPT_MAX {
            self.drop_oldest();
        }
    }

    pub fn contains(&self, id: RequestId) -> bool {
        self.ids.contains(&id)
    }

    pub fn sweep(&mut self, now: Time) {
        while self.order.front().is_some_and(|(at, _)| now.since(*at) > KEPT_FOR) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((_, id)) = self.order.pop_front() {
            self.ids.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_when_the_table_is_full_or_the_time_is_up() {
        let id = |n: usize| RequestId(uuid::Uuid::from_u128(n as u128));
        let mut tombstones = Tombstones::default();
        (0..=KEPT_MAX).for_each(|n| tombstones.insert(id(n), Time::ZERO));
        assert!(!tombstones.contains(id(0)) && tombstones.contains(id(1)));
        tombstones.sweep(Time::ZERO + KEPT_FOR + Duration::from_secs(1));
        assert!(!tombstones.contains(id(KEPT_MAX)));
    }
}
