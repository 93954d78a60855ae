//! core: where the Redis is that keeps limits for many processes, and how long a request may wait for it.

use super::hidden;
use crate::quota::redis::{RedisLedger, TIMEOUT};
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;
use std::time::Duration;

/// Shorter than a round trip it is never there; longer, and a Redis that hangs is felt by every caller.
const TIMEOUT_MS: RangeInclusive<u64> = 10..=5_000;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redis {
    /// `redis://HOST:PORT`, or `rediss://` for TLS. May hold credentials: see [`super::without_credentials`].
    #[serde(serialize_with = "hidden")]
    pub url: String,
    /// No request waits longer for Redis.
    #[serde(default = "timeout_ms")]
    pub timeout_ms: u64,
}

fn timeout_ms() -> u64 {
    u64::try_from(TIMEOUT.as_millis()).unwrap_or(u64::MAX)
}

impl Redis {
    /// The Redis at an address, with every default.
    ///
    /// # Errors
    /// Those of [`Self::check`].
    pub fn at(url: &str) -> Result<Self, String> {
        let redis = Self { url: url.to_owned(), timeout_ms: timeout_ms() };
        redis.check().map(|()| redis)
    }

    pub const fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    /// Whether this can work.
    ///
    /// # Errors
    /// A sentence that begins with the key's name.
    pub fn check(&self) -> Result<(), String> {
        if !TIMEOUT_MS.contains(&self.timeout_ms) {
            return Err(format!("timeout_ms: from {} to {}", TIMEOUT_MS.start(), TIMEOUT_MS.end()));
        }
        RedisLedger::open(&self.url, self.timeout()).map(drop).map_err(|error| format!("url: {error}"))
    }
}
