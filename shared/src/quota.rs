//! core: the quota ledger: who may still do how much. Work is reserved before it starts, by estimate, and settled when it
//! has ended, by what it used.
//!
//! The rules are in [`core`], once. Two edges keep the ledger's state: [`memory`] in this process and [`redis`] for many;
//! both pass [`suite`], to the unit. [`fallback`] is the stated rule for Redis being away. The ledger mirrors the usage
//! log, which is the truth of money: whoever asks sums the log when an account answers [`Decision::Unseeded`].

mod answer;
pub mod core;
pub mod fallback;
pub mod memory;
pub mod redis;
#[doc(hidden)]
pub mod suite;
mod terms;

pub use answer::{Decision, Look, Reason, Refusal, Seeded, Settled, Standing, Turn, Usage, Whose, Window};
pub use terms::{NanoUsd, Quota, Rate};

use crate::domain::RequestId;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// How long a reservation stands without being renewed: several renewals of [`RENEW_EVERY_MS`] may be lost.
pub const LEASE_MS: u64 = 30_000;

/// How often the holder of reservations should name them to [`memory::MemoryLedger::renew`] and its like.
pub const RENEW_EVERY_MS: u64 = 10_000;

/// How long an id is remembered after its settlement: longer than a message is repeated. A seed's list of ids reaches back
/// as far, or says how far.
pub const RECENT_MS: u64 = 120_000;

/// The most ids one [`Seed`] lists as counted: reading them is one turn of the ledger's store, which others wait for.
pub const COUNTED_MAX: usize = 4_096;

/// The most tokens of one request that the ledger counts; more count as this many. It keeps all sums exact in 53 bits.
pub const TOKENS_MAX: u64 = 1_000_000_000;

/// The most money of one request that the ledger counts: ten thousand US dollars.
pub const NANO_USD_MAX: u64 = 10_000_000_000_000;

/// Where a sum of tokens or money stops growing: below 2^53, so that a Redis script counts it exactly.
const SUM_MAX: u64 = 8_000_000_000_000_000;

/// What a request is counted against: its tenant's quota and its key's, where the key has one of its own.
#[derive(Clone, Debug)]
pub struct Quotas {
    pub tenant: Arc<Quota>,
    pub key: Option<Arc<Quota>>,
}

/// Asks for a place within every limit of a tenant and a key at once: all are charged, or none.
#[derive(Clone, Debug)]
pub struct Reserve {
    /// The reservation's id is the request's. An id that is open is granted again and charges nothing.
    pub id: RequestId,
    pub tenant: Arc<str>,
    /// The caller's key. Counted for itself where `quotas.key` is there.
    pub key: Option<Arc<str>>,
    pub quotas: Quotas,
    /// Estimated input and expected output.
    pub tokens: u64,
    /// What they may cost.
    pub nano_usd: u64,
}

impl Reserve {
    /// The key and its quota, where it has one that the ledger keeps.
    fn limited_key(&self) -> Option<(&Arc<str>, &Quota)> {
        let quota = self.quotas.key.as_deref().filter(|quota| !quota.is_unlimited())?;
        Some((self.key.as_ref()?, quota))
    }
}

/// Ends a reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settle {
    pub id: RequestId,
    pub tenant: Arc<str>,
    /// The caller's key: whose budget pays when the reservation is no longer known.
    pub key: Option<Arc<str>>,
    pub outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It ran, and this is what it took: the difference to the estimate is charged or given back.
    Used { tokens: u64, nano_usd: u64 },
    /// It never ran: everything is given back, the request too.
    Refund,
}

/// What was used, or may be: tokens and money.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    pub tokens: u64,
    pub nano_usd: u64,
}

impl Amount {
    /// No more of one request than the ledger counts exactly.
    pub(crate) fn of_request(tokens: u64, nano_usd: u64) -> Self {
        Self { tokens: tokens.min(TOKENS_MAX), nano_usd: nano_usd.min(NANO_USD_MAX) }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.tokens = (self.tokens + other.tokens).min(SUM_MAX);
        self.nano_usd = (self.nano_usd + other.nano_usd).min(SUM_MAX);
    }

    pub(crate) fn subtract(&mut self, other: Self) {
        self.tokens = self.tokens.saturating_sub(other.tokens);
        self.nano_usd = self.nano_usd.saturating_sub(other.nano_usd);
    }
}

/// What the usage log says of one account in the current day and month (UTC).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    pub day: Amount,
    pub month: Amount,
}

/// Tells the ledger what the usage log says of a tenant, so that budgets can be kept.
#[derive(Clone, Debug)]
pub struct Seed {
    pub tenant: Arc<str>,
    pub totals: Totals,
    /// The tenant's keys. Those that are not named stay as they are: name the one that is asked for, with zeros if need be.
    pub keys: Vec<(Arc<str>, Totals)>,
    /// When the log was summed, in Unix milliseconds. A sum of another day is not taken.
    pub as_of: u64,
    /// Ids whose usage is in the totals: all that the log holds from `counted_from` on, at most [`COUNTED_MAX`].
    pub counted: Vec<RequestId>,
    /// Unix milliseconds. What was settled before is taken to be in the totals.
    pub counted_from: u64,
    /// Replace counters that are there already: they may have missed something.
    pub force: bool,
}
