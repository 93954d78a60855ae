//! edge: the load generator's only reader of the clock, so that every latency is measured in one way.

use std::time::{Duration, Instant};

/// A running measurement.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    pub fn start() -> Self {
        #[expect(clippy::disallowed_methods, reason = "this module is the one place")]
        Self(Instant::now())
    }

    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// Blocks this thread. For destructors, which cannot await, and for threads of their own, which wake more punctually than
/// a runtime's timers.
pub fn block_for(span: Duration) {
    #[expect(clippy::disallowed_methods, reason = "no thread of a runtime calls it")]
    std::thread::sleep(span);
}
