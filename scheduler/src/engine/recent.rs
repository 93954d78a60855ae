//! core: two counts over the last ten seconds, second by second.

use shared::clock::Time;

/// How far back it counts, the second that is under way included.
const SECONDS: u64 = 10;

const MICROS: u64 = 1_000_000;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Recent {
    /// Second n stands at n modulo ten.
    slots: [[u32; 2]; SECONDS as usize],
    /// The second that was counted last.
    newest: u64,
}

impl Recent {
    pub(super) fn add(&mut self, now: Time, counts: [u32; 2]) {
        let second = now.as_micros() / MICROS;
        for passed in (self.newest + 1..=second).rev().take(SECONDS as usize) {
            self.slots[slot(passed)] = [0; 2];
        }
        self.newest = self.newest.max(second);
        let slot = &mut self.slots[slot(self.newest)];
        *slot = [slot[0].saturating_add(counts[0]), slot[1].saturating_add(counts[1])];
    }

    pub(super) fn sums(&self, now: Time) -> [u32; 2] {
        let second = now.as_micros() / MICROS;
        let counted = (0..SECONDS).filter_map(|ago| self.newest.checked_sub(ago));
        let recent = counted.filter(|counted| second.saturating_sub(*counted) < SECONDS);
        recent.map(|counted| self.slots[slot(counted)]).fold([0; 2], |sum, counts| [sum[0] + counts[0], sum[1] + counts[1]])
    }
}

const fn slot(second: u64) -> usize {
    (second % SECONDS) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(tenths: u64) -> Time {
        Time::from_millis(tenths * 100)
    }

    #[test]
    fn what_is_ten_seconds_old_counts_no_more() {
        let mut recent = Recent::default();
        recent.add(at(5), [1, 0]);
        recent.add(at(12), [1, 2]);
        assert_eq!(recent.sums(at(99)), [2, 2]);
        assert_eq!(recent.sums(at(100)), [1, 2]);
        assert_eq!(recent.sums(at(110)), [0, 0]);
        recent.add(at(100_000), [0, 1]);
        assert_eq!(recent.sums(at(100_000)), [0, 1]);
    }

    proptest! {
        #[test]
        fn it_is_the_sum_of_its_seconds(events in prop::collection::vec((0u64..300, 0u32..3), 0..50), look in 0u64..400) {
            let (mut recent, mut events) = (Recent::default(), events);
            events.sort_unstable();
            let look = look.max(events.last().map_or(0, |(at, _)| *at));
            events.iter().for_each(|(tenths, count)| recent.add(at(*tenths), [*count, 1]));
            let counted: Vec<u32> = events.iter().filter(|(at, _)| look / 10 - at / 10 < SECONDS).map(|(_, count)| *count).collect();
            prop_assert_eq!(recent.sums(at(look)), [counted.iter().sum::<u32>(), counted.len() as u32]);
        }
    }
}
