//! core: the ledger's rules: buckets, calendar budgets, accounts, and what one tenant's reservations do to them.
//!
//! Times are Unix milliseconds, because a bucket may live in Redis and a budget ends at midnight. All arithmetic is in
//! integers below 2^53, so that the scripts of `redis/` come to the same results to the unit.

mod account;
mod bucket;
mod budget;
mod leases;
mod recent;
mod seed;
mod tenant;

pub use tenant::Tenant;

use super::Reason;

/// How long a refusal lasts. Ordered: the longest of several is the one that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wait {
    Ms(u32),
    Never,
}

impl Wait {
    fn ms(ms: u64) -> Self {
        Self::Ms(saturated(ms))
    }

    const fn retry_after_ms(self) -> Option<u32> {
        match self {
            Self::Ms(ms) => Some(ms),
            Self::Never => None,
        }
    }
}

/// A limit that says no, and for how long.
type No = (Reason, Wait);

/// A span on the wire: 49 days at most.
fn saturated(ms: u64) -> u32 {
    u32::try_from(ms).unwrap_or(u32::MAX)
}
