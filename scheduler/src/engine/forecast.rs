//! core: how long a lane's queue is in time: what waits, over the pace at which the lane was served lately.

use super::Engine;
use super::frames::FrameKey;
use super::item::{Entry, State};
use shared::clock::Time;
use shared::domain::Lane;
use shared::wire::Span;
use std::cmp::Ordering;
use std::time::Duration;

/// The pace is that of so many whole seconds: long enough to see a slow model serve at all, short enough to follow a change.
const SECONDS: usize = 10;

/// What waits in a lane, and for how long the last of it will.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wait {
    pub requests: u64,
    /// Unknown while nothing is served.
    pub time: Option<Duration>,
    /// Those that the engine has.
    pub span: Option<Span>,
}

/// Requests served in each of the last seconds.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// The ring's slot of a second is its number modulo the ring's length.
    served: [[u32; SECONDS]; Lane::ALL.len()],
    second: u64,
    /// The second in which the first was served, after a quiet time anew: before it there is nothing to average over.
    since: Option<u64>,
}

impl Pace {
    pub(super) fn served(&mut self, now: Time, lane: Lane) {
        self.turn(now);
        let is_quiet = self.served.iter().flatten().all(|served| *served == 0);
        if is_quiet {
            self.since = Some(self.second);
        }
        self.served[lane.index()][slot(self.second)] += 1;
    }

    /// Requests of the lane in a second; over the seconds that have passed, the present one included.
    fn per_second(&mut self, now: Time, lane: Lane) -> f64 {
        self.turn(now);
        let Some(since) = self.since else { return 0.0 };
        let seconds = u32::try_from(self.second - since + 1).map_or(SECONDS, |seconds| SECONDS.min(seconds as usize));
        let served: u32 = self.served[lane.index()].iter().sum();
        f64::from(served) / u32::try_from(seconds).map_or(f64::MAX, f64::from)
    }

    /// Forgets the seconds that have left the ring.
    fn turn(&mut self, now: Time) {
        let second = now.as_micros() / 1_000_000;
        for passed in (self.second + 1..=second).rev().take(SECONDS) {
            self.served.iter_mut().for_each(|lane| lane[slot(passed)] = 0);
        }
        self.second = second;
    }
}

#[expect(clippy::cast_possible_truncation, reason = "below the ring's length")]
const fn slot(second: u64) -> usize {
    (second % SECONDS as u64) as usize
}

impl Engine {
    /// What waits in a lane, with `beyond` requests that have not reached the engine. It looks at all there is: not for each step.
    pub fn wait(&mut self, now: Time, lane: Lane, beyond: u64) -> Wait {
        let is_unsent =
            |entry: &&Entry| entry.frame.lane == lane && matches!(entry.state, State::Reserving | State::Waiting | State::Resting(_));
        let span = self.items.values().filter(is_unsent).map(|entry| entry.frame).fold(None, spanning);
        let requests = span.map_or(0, |span| span.requests) + beyond;
        if requests == 0 {
            return Wait { requests, time: Some(Duration::ZERO), span };
        }
        let pace = self.pace.per_second(now, lane);
        #[expect(clippy::cast_precision_loss, reason = "queues are far below 2^52")]
        let time = (pace > 0.0).then(|| Duration::try_from_secs_f64(requests as f64 / pace).unwrap_or(Duration::MAX));
        Wait { requests, time, span }
    }
}

/// With one request more, which came in `frame`. Of what came from two incarnations of a stream, the later counts.
fn spanning(span: Option<Span>, frame: FrameKey) -> Option<Span> {
    let FrameKey { epoch, sequence, .. } = frame;
    let fresh = Span { epoch, first: sequence, last: sequence, requests: 1 };
    let Some(span) = span else { return Some(fresh) };
    let requests = span.requests + 1;
    Some(match epoch.cmp(&span.epoch) {
        Ordering::Less => Span { requests, ..span },
        Ordering::Equal => Span { first: span.first.min(sequence), last: span.last.max(sequence), requests, ..span },
        Ordering::Greater => Span { requests, ..fresh },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(seconds: u64) -> Time {
        Time::from_millis(1_000_000 + seconds * 1_000)
    }

    #[test]
    fn the_pace_is_that_of_the_last_seconds() {
        let mut pace = Pace::default();
        assert!(pace.per_second(after(0), Lane::Bulk) == 0.0);
        for second in 0..20 {
            (0..=second).for_each(|_| pace.served(after(second), Lane::Bulk));
        }
        assert!(pace.per_second(after(19), Lane::Bulk) == 15.5, "11 to 20 in its last ten seconds");
        assert!(pace.per_second(after(19), Lane::Async) == 0.0, "each lane has its own");
        assert!(pace.per_second(after(24), Lane::Bulk) == 9.0);
        assert!(pace.per_second(after(40), Lane::Bulk) == 0.0);
    }

    #[test]
    fn a_young_pace_is_taken_over_the_seconds_there_are() {
        let mut pace = Pace::default();
        (0..8).for_each(|_| pace.served(after(3), Lane::Interactive));
        assert!(pace.per_second(after(4), Lane::Interactive) == 4.0);
    }

    #[test]
    fn a_burst_after_a_quiet_time_is_not_averaged_over_it() {
        let mut pace = Pace::default();
        pace.served(after(0), Lane::Interactive);
        (0..64).for_each(|_| pace.served(after(30), Lane::Interactive));
        assert!(pace.per_second(after(30), Lane::Interactive) == 64.0);
        assert!(pace.per_second(after(31), Lane::Interactive) == 32.0);
    }

    #[test]
    fn a_span_is_of_the_last_incarnation_and_counts_all() {
        let of = |frames: &[(u64, u64)]| {
            frames.iter().map(|(epoch, sequence)| FrameKey { lane: Lane::Async, epoch: *epoch, sequence: *sequence }).fold(None, spanning)
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[(7, 5), (7, 3), (7, 9)]), Some(Span { epoch: 7, first: 3, last: 9, requests: 3 }));
        assert_eq!(of(&[(7, 5), (8, 2), (7, 6)]), Some(Span { epoch: 8, first: 2, last: 2, requests: 3 }));
    }
}
