//! core: how far an owner has read the interactive lane, which it tells the ingresses: by that they know what is lost.

use shared::broker::ACK_WAIT_INTERACTIVE;
use shared::clock::Time;
use std::time::Duration;

/// How often what is held is announced to the ingresses, however busy the loop is, and what it must be older than to be named.
pub const HELD_EVERY: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
pub struct Reading {
    since: Time,
    /// Epoch and sequence: the last handed out before this owner came, and to it.
    position: (u64, u64),
    delivered: (u64, u64),
}

impl Reading {
    pub const fn new(now: Time) -> Self {
        Self { since: now, position: (0, 0), delivered: (0, 0) }
    }

    /// Where the lane stood when its reader was opened, or opened again.
    pub const fn opened(&mut self, epoch: u64, sequence: u64) {
        self.position = (epoch, sequence);
    }

    pub fn delivered(&mut self, epoch: u64, sequence: u64) {
        self.delivered = if epoch == self.delivered.0 { (epoch, self.delivered.1.max(sequence)) } else { (epoch, sequence) };
    }

    /// What was handed out to an earlier owner counts as passed only when its redelivery has had time to arrive here.
    pub fn passed(&self, now: Time) -> Option<(u64, u64)> {
        let settled = now.since(self.since) > ACK_WAIT_INTERACTIVE + HELD_EVERY;
        match (self.delivered, self.position) {
            (delivered, position) if settled && position > delivered => Some(position),
            ((0, _), _) => None,
            (delivered, _) => Some(delivered),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_earlier_owner_had_counts_when_it_would_have_come_again() {
        let mut reading = Reading::new(Time::ZERO);
        reading.opened(1, 9);
        assert_eq!(reading.passed(Time::from_millis(4_000)), None);
        reading.delivered(1, 5);
        assert_eq!(reading.passed(Time::from_millis(4_000)), Some((1, 5)));
        assert_eq!(reading.passed(Time::from_millis(4_001)), Some((1, 9)));
    }

    #[test]
    fn a_lane_made_anew_is_read_from_its_beginning() {
        let mut reading = Reading::new(Time::ZERO);
        reading.delivered(1, 9);
        reading.delivered(2, 1);
        assert_eq!(reading.passed(Time::from_millis(9_000)), Some((2, 1)));
    }
}
