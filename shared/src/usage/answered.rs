//! core: which requests have been answered, so that one that ran twice is counted once: as its first answer on record.

use crate::domain::RequestId;
use foldhash::HashSet;
use std::collections::VecDeque;

/// Requests remembered, in some 10 MB while a journal is summed. A second execution begins within seconds of the first one's trouble,
/// so this is minutes of the busiest tenant; past it the oldest is forgotten.
const IDS_MAX: usize = 262_144;

#[derive(Debug, Default)]
pub(super) struct Answered {
    ids: HashSet<RequestId>,
    by_age: VecDeque<RequestId>,
}

impl Answered {
    /// Whether this is the first answer of a request.
    pub(super) fn is_first(&mut self, id: RequestId) -> bool {
        if !self.ids.insert(id) {
            return false;
        }
        self.by_age.push_back(id);
        if self.by_age.len() > IDS_MAX
            && let Some(oldest) = self.by_age.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn the_oldest_is_forgotten_and_nobody_else() {
        let (mut answered, id) = (Answered::default(), |n| RequestId(Uuid::from_u128(n)));
        assert!((0..=IDS_MAX as u128).all(|n| answered.is_first(id(n))));
        assert!(!answered.is_first(id(1)));
        assert!(answered.is_first(id(0)), "it made room");
    }
}
