//! core: how many tokens a call may hold at one backend: learnt from how long its calls take.
//!
//! Tokens per second rise with the size of a call while its fixed cost is being shared, and fall where caches or memory
//! run out. So the limit goes where a token was seen to cost least, among the sizes whose calls keep the latency objective,
//! and looks a little above and below itself now and then (hill climbing by perturb and observe; to learn a backend's batch
//! size online against a latency objective is Clipper's, NSDI'17). It starts low and doubles (slow start, as in TCP), and
//! shrinks at once when the objective is missed or a call fails. The configured limit is never exceeded.

use super::batch::{CallResult, Ended};
use super::curve::{Class, Curve, OCTAVE, class, largest};
use super::line::Line;
use std::collections::HashMap;
use std::time::Duration;

/// Where it starts: a call of this size is quick on anything that serves embeddings.
const START: f64 = 2_048.0;

/// It never falls below: smaller calls lose more than any objective is worth.
const LEAST: f64 = 512.0;

/// Calls of at least half the limit before it moves; two when the objective is missed.
const CALLS_PER_MOVE: u32 = 8;
const CALLS_PER_RETREAT: u32 = 2;

/// Of so many calls one is smaller and one may be larger than the limit, to see whether that is better.
const PROBE_EVERY: u64 = 8;

/// Sizes at which a token costs so much more are not tried again while that is remembered.
const DEAR: f64 = 1.1;

/// Costs that differ by less are equal: then the larger call is taken.
const EQUAL: f64 = 0.01;

/// An objective of less than so many times a call's fixed cost cannot be kept by smaller calls, only paid for.
const FIXED: f64 = 2.0;

/// What a call costs before its first token, in tokens: until it is learnt, and at least.
const OVERHEAD: f64 = 256.0;
const OVERHEAD_LEAST: f64 = 16.0;

/// The limits of a model's backends; as many as its configuration names.
#[derive(Debug)]
pub(super) struct Limits {
    unseen: Limit,
    backends: HashMap<Box<str>, Limit>,
}

impl Limits {
    /// Of at most `max` tokens, for calls that should take no longer than `objective`.
    pub(super) fn new(max: u32, objective: Duration) -> Self {
        Self { unseen: Limit::new(f64::from(max), objective), backends: HashMap::new() }
    }

    /// Tokens that the next call there may hold.
    pub(super) fn tokens(&self, backend: &str) -> u64 {
        self.of(backend).tokens()
    }

    /// What a call costs before its first token, in tokens.
    pub(super) fn overhead(&self, backend: &str) -> u64 {
        self.of(backend).overhead()
    }

    /// The time of a call there before its first token, when it is known.
    pub(super) fn fixed(&self, backend: &str) -> Option<Duration> {
        self.of(backend).fixed()
    }

    fn of(&self, backend: &str) -> &Limit {
        self.backends.get(backend).unwrap_or(&self.unseen)
    }

    pub(super) fn learn(&mut self, call: &Ended) {
        if !self.backends.contains_key(&call.backend) {
            self.backends.insert(call.backend.clone(), self.unseen.clone());
        }
        let limit = self.backends.get_mut(&call.backend).expect("inserted a moment ago");
        match call.result {
            CallResult::Answered => limit.answered(call.size.max(1) as f64, call.took.as_secs_f64().max(1e-6)),
            CallResult::Failed => limit.failed(call.size as f64),
            CallResult::Unclear => {}
        }
    }
}

#[derive(Clone, Debug)]
struct Limit {
    max: f64,
    objective: Duration,
    /// The limit itself, and the least and most that it may be.
    class: Class,
    least: Class,
    most: Class,
    curve: Curve,
    /// Time against size, for what a call costs before its first token.
    line: Line,
    is_slow_start: bool,
    /// Calls near the limit since it moved.
    calls: u32,
    /// How far above itself it looks: further with each step up in a row.
    reach: Class,
}

impl Limit {
    fn new(max: f64, objective: Duration) -> Self {
        Self {
            max,
            objective,
            class: class(START.min(max)),
            least: class(LEAST.min(max)),
            most: class(max),
            curve: Curve::default(),
            line: Line::default(),
            is_slow_start: true,
            calls: 0,
            reach: 1,
        }
    }

    fn tokens(&self) -> u64 {
        let class = match self.curve.calls() % PROBE_EVERY {
            _ if self.is_slow_start => self.class,
            0 => self.class.saturating_sub(1).max(self.least),
            turn if turn == PROBE_EVERY / 2 => self.above(),
            _ => self.class,
        };
        largest(class).min(self.max) as u64
    }

    /// The size to try above the limit, if nothing speaks against it.
    fn above(&self) -> Class {
        let class = (self.class + self.reach).min(self.most);
        let is_dear = self.curve.cost(class).zip(self.curve.cost(self.class)).is_some_and(|(there, here)| there > here * DEAR);
        if is_dear || !self.is_in_time(class) { self.class } else { class }
    }

    fn is_in_time(&self, class: Class) -> bool {
        self.curve.time(class) <= self.objective()
    }

    /// Seconds that a call should take at most, as far as its size decides.
    fn objective(&self) -> f64 {
        let fixed = self.line.known().map_or(0.0, |(fixed, _)| fixed.min(self.curve.shortest()));
        self.objective.as_secs_f64().max(fixed * FIXED)
    }

    fn fixed(&self) -> Option<Duration> {
        self.line.height().map(|fixed| Duration::from_secs_f64(fixed.min(self.curve.shortest())))
    }

    fn overhead(&self) -> u64 {
        let tokens = self.line.known().map_or(OVERHEAD, |(fixed, per_token)| fixed / per_token);
        tokens.max(OVERHEAD_LEAST).min(self.max) as u64
    }

    fn answered(&mut self, size: f64, took: f64) {
        self.line.add(size, took);
        let class = class(size);
        self.curve.learn(class, took / size);
        if class + OCTAVE < self.class {
            return; // It says nothing of larger ones.
        }
        self.calls += 1;
        if self.is_slow_start {
            self.double(took / size);
        } else if self.calls >= CALLS_PER_RETREAT && !self.is_in_time(self.class) {
            self.retreat(self.objective() / self.curve.time(self.class));
        } else if self.calls >= CALLS_PER_MOVE {
            self.climb();
        }
    }

    fn double(&mut self, cost: f64) {
        let is_cheap = self.curve.least().is_none_or(|least| cost <= least * DEAR);
        self.is_slow_start = self.class < self.most && is_cheap && self.is_in_time(self.class + OCTAVE);
        if self.is_slow_start {
            self.class = (self.class + OCTAVE).min(self.most);
        }
    }

    /// To so much of the limit, and half of it at most.
    fn retreat(&mut self, left: f64) {
        let class = class(largest(self.class) * left.max(0.5));
        self.class = class.min(self.class.saturating_sub(1)).max(self.least);
        (self.calls, self.reach) = (0, 1);
    }

    /// To where a token costs least; up if that is no dearer than here.
    fn climb(&mut self) {
        self.calls = 0;
        let Some(here) = self.curve.cost(self.class) else { return };
        let allowed = |class| (self.least..=self.most).contains(&class) && self.is_in_time(class);
        let better = self.curve.cheapest(allowed).filter(|(_, cost)| *cost < here * (1.0 - EQUAL));
        let as_good = || {
            let above = self.class + 1;
            let is_as_good = self.curve.cost(above).is_some_and(|cost| cost <= here * (1.0 + EQUAL));
            if is_as_good && allowed(above) { above } else { self.class }
        };
        let class = better.map_or_else(as_good, |(class, _)| class);
        self.reach = if class > self.class { (self.reach * 2).min(OCTAVE) } else { 1 };
        self.class = class;
    }

    /// A call for whose size it may be: half of it from now on, and the same again not soon.
    fn failed(&mut self, size: f64) {
        let class = class(size);
        if class + OCTAVE < self.class {
            return;
        }
        self.curve.condemn(class.min(self.most));
        self.is_slow_start = false;
        self.retreat(0.5);
    }
}

#[cfg(test)]
mod tests {
    use super::super::concurrency::Load;
    use super::*;

    const BACKEND: &str = "only";

    fn limits(max: u32) -> Limits {
        Limits::new(max, Duration::from_millis(200))
    }

    fn end(limits: &mut Limits, size: u64, took_ms: f64, result: CallResult) {
        let (took, load) = (Duration::from_secs_f64(took_ms / 1_000.0), Load::Unknown);
        limits.learn(&Ended { backend: BACKEND.into(), size, work: size, took, result, verdict: None, load });
    }

    /// Full calls at a backend that takes so many milliseconds for a size.
    fn full_calls(limits: &mut Limits, count: u64, took: impl Fn(f64) -> f64) {
        for _ in 0..count {
            let size = limits.tokens(BACKEND);
            end(limits, size, took(size as f64), CallResult::Answered);
        }
    }

    fn now(limits: &Limits) -> u64 {
        let limit = limits.of(BACKEND);
        largest(limit.class).min(limit.max) as u64
    }

    #[test]
    fn it_starts_low_doubles_and_never_exceeds_what_is_configured() {
        let mut limits = limits(16_384);
        assert_eq!(now(&limits), 2_048);
        full_calls(&mut limits, 1, |tokens| 5.0 + tokens * 0.001);
        assert_eq!(now(&limits), 4_096);
        full_calls(&mut limits, 200, |tokens| 5.0 + tokens * 0.001);
        assert_eq!(now(&limits), 16_384);
        assert!(limits.tokens(BACKEND) <= 16_384);
        assert_eq!(now(&super::Limits::new(300, Duration::from_millis(200))), 300);
    }

    #[test]
    fn small_calls_say_nothing_of_the_limit() {
        let mut limits = limits(16_384);
        (0..100).for_each(|_| end(&mut limits, 100, 6.0, CallResult::Answered));
        assert_eq!(now(&limits), 2_048);
    }

    #[test]
    fn calls_keep_the_objective() {
        let mut limits = limits(65_536);
        full_calls(&mut limits, 200, |tokens| 5.0 + tokens * 0.01);
        assert!((15_000..19_600).contains(&now(&limits)), "{}", now(&limits));
    }

    #[test]
    fn an_objective_below_the_fixed_cost_does_not_starve_the_calls() {
        let mut limits = limits(65_536);
        full_calls(&mut limits, 400, |tokens| 300.0 + tokens * 0.01);
        assert!(now(&limits) > 15_000, "{}", now(&limits));
    }

    #[test]
    fn it_stays_below_a_knee() {
        let mut limits = limits(65_536);
        full_calls(&mut limits, 400, |tokens| 8.0 + 0.004 * (tokens + 5.0 * (tokens - 8_000.0).max(0.0)));
        assert!((6_500..8_800).contains(&now(&limits)), "{}", now(&limits));
    }

    #[test]
    fn what_fails_for_its_size_is_halved_and_found_again_when_it_was_not_the_size() {
        let mut limits = limits(16_384);
        let took = |tokens: f64| 5.0 + tokens * 0.005;
        full_calls(&mut limits, 50, took);
        let before = now(&limits);
        end(&mut limits, 100, 1.0, CallResult::Failed);
        assert_eq!(now(&limits), before, "a small one does not fail for its size");
        (0..20).for_each(|_| {
            let size = now(&limits);
            end(&mut limits, size, 1.0, CallResult::Failed);
        });
        assert_eq!(now(&limits), 512);
        full_calls(&mut limits, 400, took);
        assert!(now(&limits) > before / 2, "{} of {before}", now(&limits));
    }

    #[test]
    fn the_overhead_is_what_a_call_costs_before_its_first_token() {
        let mut limits = limits(16_384);
        assert_eq!(limits.overhead(BACKEND), 256);
        (0..50).for_each(|n| end(&mut limits, 100 * (n % 9 + 1), 5.0 + 0.01 * (100 * (n % 9 + 1)) as f64, CallResult::Answered));
        assert!((490..=510).contains(&limits.overhead(BACKEND)), "{}", limits.overhead(BACKEND));
    }
}
