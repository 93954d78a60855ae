//! core: how much a tenant or a key may use. Every limit is optional; absent means unlimited.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quota {
    pub requests_per_minute: Option<u64>,
    pub request_burst: Option<u64>,
    pub tokens_per_minute: Option<u64>,
    pub token_burst: Option<u64>,
    pub concurrency: Option<u64>,
    pub queued: Option<u64>,
    pub tokens_per_day: Option<u64>,
    pub tokens_per_month: Option<u64>,
    pub usd_per_day: Option<f64>,
    pub usd_per_month: Option<f64>,
}

impl Quota {
    /// These limits, and where there is none, those of `base`.
    #[must_use]
    pub fn or(&self, base: &Self) -> Self {
        Self {
            requests_per_minute: self.requests_per_minute.or(base.requests_per_minute),
            request_burst: self.request_burst.or(base.request_burst),
            tokens_per_minute: self.tokens_per_minute.or(base.tokens_per_minute),
            token_burst: self.token_burst.or(base.token_burst),
            concurrency: self.concurrency.or(base.concurrency),
            queued: self.queued.or(base.queued),
            tokens_per_day: self.tokens_per_day.or(base.tokens_per_day),
            tokens_per_month: self.tokens_per_month.or(base.tokens_per_month),
            usd_per_day: self.usd_per_day.or(base.usd_per_day),
            usd_per_month: self.usd_per_month.or(base.usd_per_month),
        }
    }
}
