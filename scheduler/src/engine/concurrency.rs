//! core: how many calls one place takes at once: at most what is configured, and less while that is too much for it.
//!
//! Two things tell. A server that refuses or stays silent (429, 503, a timeout) is over its limit: that falls to 0.7 of what was
//! out, once in a window however many calls say so. And a server whose calls take much longer than they did lately, for their
//! work, keeps them waiting (the gradient of Netflix's concurrency-limits): the limit falls by as much. Otherwise it rises while it
//! binds: twice as fast again while far below where it last was too high, carefully when near. A server that was away takes one
//! call and twice as many after each second (a slow start, as Envoy has it), whether or not one has ended yet.

use super::line::Line;
use shared::clock::Time;
use std::time::Duration;

/// Calls are judged together for at least so long, and until so many have ended, or as many as may be out.
const WINDOW: Duration = Duration::from_secs(1);
const CALLS_MIN: f64 = 8.0;

/// What is left of the limit when it was too high.
const CUT: f64 = 0.7;

/// Calls that take so many times as long as they did lately, and these seconds more, wait for each other. Below it, it is the weather.
const TOLERANCE: f64 = 2.0;
const WEATHER: f64 = 0.05;

/// What one window's gradient may take at most, and how much of that is done.
const GRADIENT_MIN: f64 = 0.5;
const SMOOTHING: f64 = 0.4;

/// Windows after which calls are known to take their time.
const KNOWN: u32 = 5;

/// After so long one that is back takes twice as many calls at once.
const DOUBLES: Duration = Duration::from_secs(1);

/// A limit of which so much is used binds.
const BINDS: f64 = 0.8;

/// What the end of a call says of the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Load {
    /// It had an answer.
    Borne,
    /// There was one call too many.
    TooMuch,
    Unknown,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Concurrency {
    /// `None`: what is configured.
    limit: Option<f64>,
    /// When it was last back from being away.
    back: Option<Time>,
    /// Where it was last too high, if it was.
    knee: Option<f64>,
    /// The time of calls against their work, a window at a time.
    usual: Line,
    windows: u32,
    window: Window,
}

/// What has been seen since it began.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    since: Time,
    calls: f64,
    work: f64,
    /// Seconds.
    took: f64,
    /// Calls that were out at once.
    peak: u32,
    has_cut: bool,
}

impl Concurrency {
    /// Calls at once, of so many configured.
    pub(super) fn calls(&self, now: Time, configured: u32) -> u32 {
        (self.current(now, f64::from(configured)) as u32).max(1).min(configured)
    }

    fn current(&self, now: Time, configured: f64) -> f64 {
        let limit = self.limit.unwrap_or(configured);
        self.back.map_or(limit, |back| limit.min((now.since(back).as_secs_f64() / DOUBLES.as_secs_f64()).floor().exp2()))
    }

    /// With this one, so many calls are out.
    pub(super) fn called(&mut self, calls: u32) {
        self.window.peak = self.window.peak.max(calls);
    }

    /// It was away and is back: a few calls first, and soon all.
    pub(super) fn begin_anew(&mut self, now: Time) {
        (self.limit, self.knee, self.back, self.window) = (None, None, Some(now), Window { since: now, ..Window::default() });
    }

    /// A call has ended that did so much work, in tokens; `configured` calls are allowed.
    pub(super) fn ended(&mut self, now: Time, configured: u32, load: Load, work: u64, took: Duration) {
        match load {
            Load::TooMuch => self.cut(now, f64::from(configured)),
            Load::Borne => {
                self.window.calls += 1.0;
                self.window.work += work.max(1) as f64;
                self.window.took += took.as_secs_f64().max(1e-6);
            }
            Load::Unknown => {}
        }
        let limit = self.current(now, f64::from(configured));
        if now.since(self.window.since) >= WINDOW && (self.window.calls >= CALLS_MIN.min(limit) || self.window.has_cut) {
            self.turn(now, f64::from(configured));
        }
    }

    fn cut(&mut self, now: Time, configured: f64) {
        if self.window.has_cut && now.since(self.window.since) < WINDOW {
            return;
        }
        let out = self.current(now, configured).min(f64::from(self.window.peak.max(1)));
        (self.knee, self.limit) = (Some(out), Some((out * CUT).max(1.0)));
        self.window = Window { since: now, has_cut: true, ..Window::default() };
    }

    /// Judges a window, and begins the next.
    fn turn(&mut self, now: Time, configured: f64) {
        let seen = std::mem::replace(&mut self.window, Window { since: now, ..Window::default() });
        if seen.has_cut || seen.calls < 1.0 {
            return;
        }
        let limit = self.current(now, configured);
        let gradient = self.gradient(seen.work / seen.calls, seen.took / seen.calls);
        let binds = f64::from(seen.peak) >= limit * BINDS;
        let next = match () {
            () if gradient < 1.0 => limit * (1.0 - SMOOTHING * (1.0 - gradient)),
            () if limit < self.limit.unwrap_or(configured) => return, // It is coming back by itself.
            () if binds => self.above(limit),
            () => limit,
        };
        self.limit = (next < configured).then_some(next.max(1.0));
    }

    /// How much of the limit the calls of a window leave: all, unless they took much longer than usual.
    fn gradient(&mut self, work: f64, took: f64) -> f64 {
        let usual = self.usual.at(work);
        self.usual.add(work, took);
        self.windows = self.windows.saturating_add(1);
        if self.windows <= KNOWN { 1.0 } else { ((TOLERANCE * usual + WEATHER) / took).clamp(GRADIENT_MIN, 1.0) }
    }

    fn above(&self, limit: f64) -> f64 {
        match self.knee {
            Some(knee) if limit < knee / 2.0 => limit * 2.0,
            Some(knee) if limit >= knee => limit + 1.0,
            _ => (limit * 1.25).max(limit + 1.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIGURED: u32 = 64;

    struct Rig {
        limit: Concurrency,
        now: Time,
    }

    impl Rig {
        fn new() -> Self {
            Self { limit: Concurrency::default(), now: Time::from_millis(10_000) }
        }

        /// A second in which the limit is used up and calls take so long.
        fn second(&mut self, ms: u64, load: Load) -> u32 {
            let calls = self.now();
            self.limit.called(calls);
            for _ in 0..20 {
                self.now = self.now + Duration::from_millis(50);
                self.limit.ended(self.now, CONFIGURED, load, 100, Duration::from_millis(ms));
            }
            self.now()
        }

        fn now(&self) -> u32 {
            self.limit.calls(self.now, CONFIGURED)
        }
    }

    #[test]
    fn it_is_what_is_configured_while_nothing_speaks_against_it() {
        let mut rig = Rig::new();
        assert!((0..100).all(|n| rig.second(100 + n % 7 * 10, Load::Borne) == CONFIGURED));
    }

    #[test]
    fn it_falls_once_in_a_window_however_many_calls_say_so() {
        let mut rig = Rig::new();
        rig.limit.called(64);
        for _ in 0..10 {
            rig.limit.ended(rig.now, CONFIGURED, Load::TooMuch, 1, Duration::ZERO);
        }
        assert_eq!(rig.now(), 44);
    }

    #[test]
    fn it_falls_from_what_was_out_and_not_from_what_might_have_been() {
        let mut rig = Rig::new();
        rig.limit.called(10);
        rig.limit.ended(rig.now, CONFIGURED, Load::TooMuch, 1, Duration::ZERO);
        assert_eq!(rig.now(), 7);
    }

    #[test]
    fn it_never_falls_below_one_and_comes_back_within_seconds() {
        let mut rig = Rig::new();
        for _ in 0..60 {
            rig.second(100, Load::TooMuch);
        }
        assert_eq!(rig.now(), 1);
        let seconds = (1..300).find(|_| rig.second(100, Load::Borne) == CONFIGURED);
        assert!(seconds.is_some_and(|seconds| seconds < 70), "{seconds:?}");
    }

    #[test]
    fn a_place_that_comes_back_is_full_within_ten_seconds() {
        let mut rig = Rig::new();
        rig.limit.begin_anew(rig.now);
        let calls: Vec<u32> = (0..7).map(|_| rig.second(100, Load::Borne)).collect();
        assert_eq!(calls, [2, 4, 8, 16, 32, 64, 64]);
    }

    #[test]
    fn a_place_that_comes_back_need_not_wait_for_long_calls_to_end() {
        let mut rig = Rig::new();
        rig.limit.begin_anew(rig.now);
        let calls = |seconds| rig.limit.calls(rig.now + Duration::from_secs(seconds), CONFIGURED);
        assert_eq!([0, 3, 6, 600].map(calls), [1, 8, 64, 64]);
    }

    #[test]
    fn a_place_that_comes_back_and_has_too_much_takes_less_than_was_out() {
        let mut rig = Rig::new();
        rig.limit.begin_anew(rig.now);
        (0..4).for_each(|_| _ = rig.second(100, Load::Borne));
        assert_eq!(rig.now(), 16);
        assert_eq!(rig.second(100, Load::TooMuch), 11);
    }

    #[test]
    fn it_falls_when_calls_take_much_longer_than_they_did() {
        let mut rig = Rig::new();
        for _ in 0..20 {
            rig.second(100, Load::Borne);
        }
        let after: Vec<u32> = (0..5).map(|_| rig.second(1_000, Load::Borne)).collect();
        assert!(after.last().is_some_and(|last| *last < 40), "{after:?}");
    }

    #[test]
    fn larger_calls_may_take_longer() {
        let mut rig = Rig::new();
        for n in 0..200 {
            let size = 50 + n % 10 * 100;
            rig.limit.called(64);
            for _ in 0..20 {
                rig.now = rig.now + Duration::from_millis(50);
                rig.limit.ended(rig.now, CONFIGURED, Load::Borne, size, Duration::from_millis(20 + size));
            }
            assert_eq!(rig.now(), CONFIGURED, "in second {n}");
        }
    }

    #[test]
    fn what_does_not_bind_does_not_rise() {
        let mut rig = Rig::new();
        rig.limit.called(10);
        rig.limit.ended(rig.now, CONFIGURED, Load::TooMuch, 1, Duration::ZERO);
        for _ in 0..10 {
            rig.limit.called(2);
            (0..20).for_each(|_| {
                rig.now = rig.now + Duration::from_millis(100);
                rig.limit.ended(rig.now, CONFIGURED, Load::Borne, 1, Duration::from_millis(5));
            });
        }
        assert_eq!(rig.now(), 7);
    }
}
