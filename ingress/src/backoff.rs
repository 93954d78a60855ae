//! edge: pauses between tries of a broker that is away, doubling up to a second.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(25);

/// A broker that is back is found within this.
const LONGEST: Duration = Duration::from_secs(1);

pub(crate) struct Backoff(Duration);

impl Backoff {
    pub(crate) const fn new() -> Self {
        Self(FIRST)
    }

    pub(crate) async fn pause(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(LONGEST);
    }
}
