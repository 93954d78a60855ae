//! edge: the only reader of the clock. Core code takes a [`Time`] as an argument and never asks for one.

use std::ops::Add;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A point on this process's monotonic clock, in microseconds. The process first asked at [`BEGINNING`], so that what happened before
/// has a time, too.
///
/// Never sent to another process: what travels is what remains of a deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

/// 400 days: longer ago than anything a broker keeps.
const BEGINNING: Duration = Duration::from_secs(400 * 24 * 3_600);

impl Time {
    pub const ZERO: Self = Self(0);

    pub const fn from_millis(ms: u64) -> Self {
        Self(ms * 1_000)
    }

    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero when it is not after.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    pub const fn saturating_sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(micros(span)))
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(micros(span)))
    }
}

#[expect(clippy::cast_possible_truncation, reason = "584,000 years of microseconds fit")]
const fn micros(span: Duration) -> u64 {
    span.as_micros() as u64
}

/// The whole milliseconds of a span, saturating at `u32::MAX` (49 days): the unit of spans on the wire.
pub fn millis(span: Duration) -> u32 {
    u32::try_from(span.as_millis()).unwrap_or(u32::MAX)
}

/// Now, on the monotonic clock. Follows tokio's clock, so a test that pauses time pauses this too.
pub fn now() -> Time {
    Time(micros(BEGINNING + origin().elapsed()))
}

/// The tokio instant of a [`Time`], for timers: of one before this process began, its beginning.
pub fn instant(at: Time) -> tokio::time::Instant {
    origin() + Duration::from_micros(at.0).saturating_sub(BEGINNING)
}

/// The wall clock, in whole milliseconds since 1970: for the times of a record.
pub fn unix_ms() -> u64 {
    u64::try_from(unix().as_millis()).unwrap_or(u64::MAX)
}

/// The wall clock, in whole seconds since 1970: for `created` fields, and for what expires at a date that people chose.
pub fn unix_seconds() -> u64 {
    unix().as_secs()
}

/// The wall clock since 1970: to tell the age of a message that another machine stamped.
pub fn unix() -> Duration {
    #[expect(clippy::disallowed_methods, reason = "this module is the one place")]
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn origin() -> tokio::time::Instant {
    static ORIGIN: OnceLock<tokio::time::Instant> = OnceLock::new();
    #[expect(clippy::disallowed_methods, reason = "this module is the one place")]
    *ORIGIN.get_or_init(tokio::time::Instant::now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_never_runs_backwards() {
        assert_eq!(Time(5).since(Time(9)), Duration::ZERO);
        assert_eq!(Time::from_millis(3).since(Time::from_millis(1)), Duration::from_millis(2));
        assert_eq!(Time(1) + Duration::MAX, Time(u64::MAX));
    }

    #[test]
    fn what_happened_before_this_process_began_has_a_time() {
        let (begun, day) = (now(), Duration::from_secs(86_400));
        assert_eq!(begun.since(begun.saturating_sub(day)), day);
        assert!(instant(begun.saturating_sub(day)) <= instant(begun));
        assert_eq!(instant(begun + day) - instant(begun), day);
    }
}
