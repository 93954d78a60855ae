//! core: where the Redis is that keeps limits for many processes, how long a request may wait for it, and how long budgets
//! are kept without it.

use super::{ClientTls, hidden};
use crate::quota::fallback::GRACE;
use crate::quota::redis::{RedisLedger, TIMEOUT};
use serde::Serialize;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Shorter than a round trip it is never there; longer, and a Redis that hangs is felt by every caller.
const TIMEOUT_MS: RangeInclusive<u64> = 10..=5_000;

/// An hour of spending that nobody adds up is as much as may be meant.
const GRACE_MS_MAX: u64 = 3_600_000;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Redis {
    /// `redis://HOST:PORT`, or `rediss://` for TLS. May hold credentials: see [`super::without_credentials`].
    #[serde(serialize_with = "hidden")]
    pub url: String,
    /// No request waits longer for Redis.
    pub timeout_ms: u64,
    /// How long budgets go on by what each process knows, once Redis is away.
    pub grace_ms: u64,
    /// Goes with `rediss://`. Absent there: the system's roots, and no certificate of ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ClientTls>,
}

impl Redis {
    /// The Redis at an address, with every default.
    pub fn at(url: &str) -> Self {
        let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Self { url: url.to_owned(), timeout_ms: ms(TIMEOUT), grace_ms: ms(GRACE), tls: None }
    }

    pub const fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    pub const fn grace(&self) -> Duration {
        Duration::from_millis(self.grace_ms)
    }

    /// Whether this can work.
    ///
    /// # Errors
    /// A sentence that begins with the key's name.
    pub fn check(&self) -> Result<(), String> {
        if !TIMEOUT_MS.contains(&self.timeout_ms) {
            return Err(format!("timeout_ms: from {} to {}", TIMEOUT_MS.start(), TIMEOUT_MS.end()));
        }
        if self.grace_ms > GRACE_MS_MAX {
            return Err(format!("grace_ms: at most {GRACE_MS_MAX} (one hour)"));
        }
        if self.tls.is_some() && !self.url.starts_with("rediss://") {
            return Err("tls: needs an address that begins with rediss://".into());
        }
        RedisLedger::open(&self.url, self.timeout()).map(drop).map_err(|error| format!("url: {error}"))
    }
}
