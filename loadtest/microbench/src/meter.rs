//! edge: runs one case: for callgrind, for the wall clock, or a few times to see that it works.
//!
//! What is measured is the calls of [`counted`] and nothing else: callgrind collects inside that function only, so that
//! neither the process's start nor the making of inputs is in a count. What an operation returns is dropped inside.

use std::hint::black_box;
use std::time::{Duration, Instant};

/// Calls before the first that is measured: tables have grown, tenants and workers are known.
const WARM_UP_CALLS: u64 = 100;

/// Calls whose instructions are counted: enough for the random keys of hash tables to average out, and quick under callgrind.
pub(crate) const COUNTED_CALLS: u64 = 200;

/// How long one case is timed.
const TIMED_FOR: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) enum Meter {
    /// A few calls.
    #[cfg(test)]
    Try,
    /// [`COUNTED_CALLS`] calls of [`counted`].
    Count,
    /// Calls for [`TIMED_FOR`]; what each took.
    Time(Vec<Duration>),
}

impl Meter {
    /// Measures `operate` on what `prepare` makes for each call. Both may change the `world`.
    pub(crate) fn run<W, I, O>(&mut self, world: &mut W, prepare: impl Fn(&mut W) -> I, operate: impl Fn(&mut W, I) -> O) {
        let calls = |world: &mut W, calls: u64| {
            for _ in 0..calls {
                let input = prepare(world);
                black_box(operate(world, input));
            }
        };
        match self {
            #[cfg(test)]
            Self::Try => calls(world, 3),
            Self::Count => {
                calls(world, WARM_UP_CALLS);
                for _ in 0..COUNTED_CALLS {
                    let input = prepare(world);
                    counted(&operate, world, input);
                }
            }
            Self::Time(spans) => {
                calls(world, WARM_UP_CALLS);
                let began = now();
                while began.elapsed() < TIMED_FOR {
                    let input = prepare(world);
                    let called = now();
                    counted(&operate, world, input);
                    spans.push(called.elapsed());
                }
            }
        }
    }
}

/// The function that callgrind knows by its name; see `callgrind.rs`.
#[inline(never)]
fn counted<W, I, O>(operate: &impl Fn(&mut W, I) -> O, world: &mut W, input: I) {
    drop(black_box(operate(world, black_box(input))));
}

fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "this module is the one place; the gateway's own clock counts microseconds")]
    Instant::now()
}
