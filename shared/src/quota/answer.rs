//! core: what the ledger answers. Standing and refusal travel between the roles, hence their short names.

use super::Amount;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Granted(Standing),
    Refused(Refusal),
    /// There is a budget, and its counters are not known: sum the usage log, seed the ledger, and ask again.
    Unseeded,
}

/// The answers to settlements and reservations that came together, each in the order in which they were told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    pub settled: Vec<Settled>,
    pub decisions: Vec<Decision>,
}

/// How an account stands after a decision: the tighter of the tenant's and the key's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<Window>,
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Window>,
}

/// One rate limit as the `x-ratelimit-*` headers tell it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// The bucket's size.
    #[serde(rename = "l")]
    pub limit: u64,
    #[serde(rename = "r")]
    pub remaining: u64,
    /// Until the bucket is full.
    #[serde(rename = "f")]
    pub reset_ms: u32,
}

/// Why there is no place now. Of several limits that refuse, the one that does so longest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    #[serde(rename = "y")]
    pub reason: Reason,
    #[serde(rename = "w")]
    pub whose: Whose,
    /// `None`: never, the request is larger than the bucket or the budget itself.
    #[serde(rename = "a", default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u32>,
    #[serde(rename = "s", default)]
    pub standing: Standing,
}

impl Refusal {
    /// The budgets of the tenant, or of the key alone, cannot be kept at the moment; they may be in a while.
    pub const fn unavailable(whose: Whose) -> Self {
        Self { reason: Reason::Unavailable, whose, retry_after_ms: Some(1_000), standing: Standing { requests: None, tokens: None } }
    }

    /// A budget is used up: there is no use in trying before the period ends, and a client should not.
    pub const fn is_exhausted(&self) -> bool {
        self.reason.is_budget()
    }
}

/// The limit that refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    Requests,
    Tokens,
    Concurrency,
    TokensPerDay,
    TokensPerMonth,
    UsdPerDay,
    UsdPerMonth,
    /// The limit cannot be kept at the moment: Redis is away for too long, or the ledger is full.
    Unavailable,
}

impl Reason {
    /// All reasons, as they are numbered between us and the Redis scripts.
    pub const ALL: [Self; 8] = [
        Self::Requests,
        Self::Tokens,
        Self::Concurrency,
        Self::TokensPerDay,
        Self::TokensPerMonth,
        Self::UsdPerDay,
        Self::UsdPerMonth,
        Self::Unavailable,
    ];

    /// The quota's field, for messages and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::Concurrency => "concurrency",
            Self::TokensPerDay => "tokens_per_day",
            Self::TokensPerMonth => "tokens_per_month",
            Self::UsdPerDay => "usd_per_day",
            Self::UsdPerMonth => "usd_per_month",
            Self::Unavailable => "unavailable",
        }
    }

    pub const fn is_budget(self) -> bool {
        matches!(self, Self::TokensPerDay | Self::TokensPerMonth | Self::UsdPerDay | Self::UsdPerMonth)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Whose {
    #[serde(rename = "t")]
    Tenant,
    #[serde(rename = "k")]
    Key,
}

impl Whose {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Key => "key",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The reservation has ended. `overrun`: the tokens used beyond the estimate, which the refill now pays back.
    Open { overrun: u64 },
    /// No such reservation was open, because its lease had run out or the ledger had lost it: the budgets are charged
    /// with what was used.
    Unknown,
    /// Its usage has been charged already, or there was nothing to give back: nothing was done.
    Again,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seeded {
    Done,
    /// Somebody else was faster.
    Already,
    /// The sum was made on another day: sum again.
    OfAnotherDay,
}

/// An account's live usage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Requests and tokens that the refill has not yet paid back: the bucket's size less what is left of it.
    pub requests: u64,
    pub tokens: u64,
    /// Open reservations.
    pub open: u64,
    /// Tokens and money of open reservations that count against budgets.
    pub held: Amount,
    /// Settled in the current day and month. `None`: not seeded, or no budget.
    pub settled: Option<super::Totals>,
}

/// The live usage of a tenant and of the keys asked for, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    pub tenant: Usage,
    pub keys: Vec<Usage>,
}
