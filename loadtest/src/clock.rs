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

/// Blocks this thread. For destructors, which cannot await.
pub fn block_for(span: Duration) {
    #[expect(clippy::disallowed_methods, reason = "a destructor has no runtime to wait on")]
    std::thread::sleep(span);
}
