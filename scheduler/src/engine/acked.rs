//! core: the frames that were acked lately, a bit for each: their sequences are close together.

use super::frames::FrameKey;
use foldhash::HashMap;
use shared::domain::Lane;
use std::collections::VecDeque;

/// Frames of neighbouring sequences that are remembered together.
const PAGE: u64 = 1_024;

/// Pages remembered: a million frames of the lane, a model's own or others' between them. That is more than an ack wait's worth at
/// full speed.
const PAGES_MAX: usize = 1_024;

#[derive(Debug, Default)]
pub(super) struct Acked {
    pages: HashMap<PageKey, [u64; (PAGE / 64) as usize]>,
    by_age: VecDeque<PageKey>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct PageKey {
    lane: Lane,
    epoch: u64,
    number: u64,
}

/// The frame's page, and there the word and the bit in it.
const fn place(key: FrameKey) -> (PageKey, usize, u64) {
    let bit = key.sequence % PAGE;
    (PageKey { lane: key.lane, epoch: key.epoch, number: key.sequence / PAGE }, (bit / 64) as usize, 1 << (bit % 64))
}

impl Acked {
    pub(super) fn contains(&self, key: FrameKey) -> bool {
        let (page, word, bit) = place(key);
        self.pages.get(&page).is_some_and(|words| words[word] & bit != 0)
    }

    pub(super) fn insert(&mut self, key: FrameKey) {
        let (page, word, bit) = place(key);
        let words = self.pages.entry(page).or_insert_with(|| {
            self.by_age.push_back(page);
            [0; (PAGE / 64) as usize]
        });
        words[word] |= bit;
        if self.by_age.len() > PAGES_MAX
            && let Some(oldest) = self.by_age.pop_front()
        {
            self.pages.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(lane: Lane, epoch: u64, sequence: u64) -> FrameKey {
        FrameKey { lane, epoch, sequence }
    }

    #[test]
    fn a_frame_is_known_and_its_neighbours_are_not() {
        let mut acked = Acked::default();
        for sequence in [0, 63, 64, PAGE - 1, PAGE, u64::MAX] {
            acked.insert(frame(Lane::Async, 7, sequence));
            assert!(acked.contains(frame(Lane::Async, 7, sequence)));
            assert!(!acked.contains(frame(Lane::Async, 7, sequence ^ 1)));
        }
        assert!(!acked.contains(frame(Lane::Bulk, 7, 63)));
        assert!(!acked.contains(frame(Lane::Async, 8, 63)));
    }

    #[test]
    fn the_page_begun_first_goes_first_however_low_its_sequences() {
        let mut acked = Acked::default();
        let of_page = |number: usize| frame(Lane::Interactive, 1, number as u64 * PAGE);
        (10..10 + PAGES_MAX).for_each(|number| acked.insert(of_page(number)));
        assert!(acked.contains(of_page(10)));
        acked.insert(of_page(0));
        assert!(acked.contains(of_page(0)) && !acked.contains(of_page(10)) && acked.contains(of_page(11)));
        assert_eq!(acked.pages.len(), PAGES_MAX);
    }
}
