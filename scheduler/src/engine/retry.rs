//! core: the tries of one request whose calls fail: how often, where not, and after which pause.

use shared::clock::Time;
use shared::domain::{Lane, RequestId};
use shared::wire::Fault;
use std::time::Duration;

/// The pause before a call is made again where one was made before: the first, and the longest, as they double.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// The same for what is deferred and met a rate limit: those that are counted by the minute have passed before the tries are used up.
const LIMITED_PAUSE: Duration = Duration::from_secs(10);
const LIMITED_PAUSE_MAX: Duration = Duration::from_secs(60);

/// A request that was in so many spoilt calls goes alone, so that it spoils nobody else's.
const SPOILT_TOGETHER_MAX: u8 = 2;

/// Calls that a request may take. Who waits on the line wants an answer or an error soon; what is deferred, an answer.
const fn calls_max(lane: Lane) -> u8 {
    match lane {
        Lane::Interactive => 3,
        Lane::Async => 5,
        Lane::Bulk => 8,
    }
}

/// What is known of a request whose call has failed; nobody else carries one.
#[derive(Clone, Debug, Default)]
pub(super) struct Retry {
    /// Calls that have failed.
    failed: u8,
    /// Where; each backend once.
    tried: Vec<Box<str>>,
    /// Calls that one of their requests may have spoilt.
    spoilt: u8,
    /// It was called alone and spoilt it.
    is_suspect: bool,
    /// The last call met a rate limit.
    is_limited: bool,
    /// Nobody waits on the line.
    pub(super) has_time: bool,
    /// When it came back from the last of them.
    pub(super) back: Time,
    /// It has paused since the last of them.
    pub(super) has_rested: bool,
    /// The budget has not yet paid for the next call.
    pub(super) owes: bool,
}

impl Retry {
    /// Its call at `backend` failed; `is_alone`: it was the only one in it. One that does not `count` was not made for its sake.
    pub(super) fn failed(&mut self, backend: &str, fault: Fault, is_alone: bool, counts: bool) {
        self.failed = self.failed.saturating_add(counts.into());
        self.has_rested = false;
        self.is_limited = fault == Fault::RateLimited;
        if !self.tried.iter().any(|tried| **tried == *backend) {
            self.tried.push(backend.into());
        }
        if fault.may_be_the_requests() {
            self.spoilt = self.spoilt.saturating_add(1);
            self.is_suspect |= is_alone;
        }
    }

    pub(super) fn tried(&self) -> &[Box<str>] {
        &self.tried
    }

    /// It has had all the calls that it may have.
    pub(super) const fn is_over(&self, lane: Lane) -> bool {
        self.failed >= calls_max(lane)
    }

    /// A call failed for what may be its fault.
    pub(super) const fn has_spoilt(&self) -> bool {
        self.spoilt > 0
    }

    /// It shares a call with nobody.
    pub(super) const fn is_alone(&self) -> bool {
        self.is_suspect || self.spoilt >= SPOILT_TOGETHER_MAX
    }

    /// Before the next call, where one was made before. Ids spread those that failed together.
    pub(super) fn pause(&self, id: RequestId) -> Duration {
        let (first, longest) = if self.is_limited && self.has_time { (LIMITED_PAUSE, LIMITED_PAUSE_MAX) } else { (PAUSE, PAUSE_MAX) };
        let doubled = first.saturating_mul(1 << self.failed.saturating_sub(1).min(16));
        let spread = id.0.as_u128() as u8;
        doubled.min(longest).mul_f64(0.5 + f64::from(spread) / 512.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn pauses_double_up_to_a_bound_and_differ_by_request() {
        let pause = |failed, id| Retry { failed, ..Retry::default() }.pause(RequestId(Uuid::from_u128(id)));
        assert_eq!(pause(1, 0), Duration::from_millis(50));
        assert_eq!(pause(2, 0), Duration::from_millis(100));
        assert!(pause(1, 255) > Duration::from_millis(99));
        assert_eq!(pause(250, 0), PAUSE_MAX / 2);
    }

    #[test]
    fn who_has_time_outlasts_a_limit_by_the_minute() {
        let tries = |has_time, calls| {
            let mut retry = Retry { has_time, ..Retry::default() };
            let pauses = (1..calls).map(|_| {
                retry.failed("a", Fault::RateLimited, true, true);
                retry.pause(RequestId(Uuid::from_u128(0)))
            });
            pauses.sum::<Duration>()
        };
        assert!(tries(true, calls_max(Lane::Async)) > Duration::from_secs(60));
        assert!(tries(false, calls_max(Lane::Interactive)) < Duration::from_secs(1));
    }

    #[test]
    fn what_spoils_calls_goes_alone_and_what_a_dead_backend_failed_does_not() {
        let mut retry = Retry::default();
        (0..2).for_each(|_| retry.failed("a", Fault::Connect, true, true));
        assert!(!retry.is_alone());
        retry.failed("a", Fault::Malformed, false, true);
        assert!(!retry.is_alone(), "somebody else may have spoilt it");
        retry.failed("b", Fault::ServerError, false, true);
        assert!(retry.is_alone());
        assert_eq!(retry.tried().len(), 2);
    }
}
