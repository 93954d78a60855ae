//! core: a quota as the file and the admin API write it, and the ranges in which counting stays exact.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The highest rate per minute, and the largest burst. 60,000 times as much still fits 53 bits, in which Redis scripts count.
const RATE_MAX: u64 = 10_000_000_000;

/// The largest budget of tokens.
const BUDGET_TOKENS_MAX: u64 = 1_000_000_000_000_000;

/// The largest budget of money, in nano-dollars: two million US dollars. Up to here a decimal is read back as it was written.
const BUDGET_USD_MAX: u64 = 2_000_000_000_000_000;

/// The most requests at once.
const COUNT_MAX: u32 = 1_000_000;

/// What a tenant or a key may do. Absent means unlimited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quota {
    /// A bucket of this many requests that refills evenly over the minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u64>,
    /// The bucket's size, where it is not one minute's worth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_burst: Option<u64>,
    /// Input and output together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_burst: Option<u64>,
    /// Requests admitted and not yet ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Requests that wait to be admitted. Kept by the ingress, not by the ledger.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queued: Option<u32>,
    /// A budget of a calendar day, UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_day: Option<u64>,
    /// A budget of a calendar month, UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_month: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usd_per_day: Option<NanoUsd>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usd_per_month: Option<NanoUsd>,
}

/// A bucket's size and how fast it fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub per_minute: u64,
    pub burst: u64,
}

impl Quota {
    /// Fills what is absent from a role's quota. A rate and its burst belong together: with a rate of one's own, the
    /// role's burst does not count.
    #[must_use]
    pub fn or(&self, base: &Self) -> Self {
        let burst = |rate: Option<u64>, own: Option<u64>, base: Option<u64>| own.or(base.filter(|_| rate.is_none()));
        Self {
            requests_per_minute: self.requests_per_minute.or(base.requests_per_minute),
            request_burst: burst(self.requests_per_minute, self.request_burst, base.request_burst),
            tokens_per_minute: self.tokens_per_minute.or(base.tokens_per_minute),
            token_burst: burst(self.tokens_per_minute, self.token_burst, base.token_burst),
            concurrency: self.concurrency.or(base.concurrency),
            queued: self.queued.or(base.queued),
            tokens_per_day: self.tokens_per_day.or(base.tokens_per_day),
            tokens_per_month: self.tokens_per_month.or(base.tokens_per_month),
            usd_per_day: self.usd_per_day.or(base.usd_per_day),
            usd_per_month: self.usd_per_month.or(base.usd_per_month),
        }
    }

    /// Whether there is nothing to ask the ledger about. (`queued` is not the ledger's.)
    pub fn is_unlimited(&self) -> bool {
        self.requests().is_none() && self.tokens().is_none() && self.concurrency.is_none() && !self.has_budget()
    }

    pub fn has_budget(&self) -> bool {
        self.tokens_per_day.is_some() || self.tokens_per_month.is_some() || self.usd_per_day.is_some() || self.usd_per_month.is_some()
    }

    pub fn requests(&self) -> Option<Rate> {
        rate(self.requests_per_minute, self.request_burst)
    }

    pub fn tokens(&self) -> Option<Rate> {
        rate(self.tokens_per_minute, self.token_burst)
    }

    /// Whether every limit is within what can be counted exactly. Ask it of the quota in force, after [`Quota::or`].
    ///
    /// # Errors
    /// A sentence that begins with the field's name.
    pub fn check(&self) -> Result<(), String> {
        let usd = |budget: Option<NanoUsd>| budget.map(|usd| usd.0);
        let count = |count: Option<u32>| count.map(u64::from);
        within("requests_per_minute", self.requests_per_minute, RATE_MAX, "10000000000")?;
        within("request_burst", self.request_burst, RATE_MAX, "10000000000")?;
        within("tokens_per_minute", self.tokens_per_minute, RATE_MAX, "10000000000")?;
        within("token_burst", self.token_burst, RATE_MAX, "10000000000")?;
        within("concurrency", count(self.concurrency), COUNT_MAX.into(), "1000000")?;
        within("queued", count(self.queued), COUNT_MAX.into(), "1000000")?;
        within("tokens_per_day", self.tokens_per_day, BUDGET_TOKENS_MAX, "1000000000000000")?;
        within("tokens_per_month", self.tokens_per_month, BUDGET_TOKENS_MAX, "1000000000000000")?;
        within("usd_per_day", usd(self.usd_per_day), BUDGET_USD_MAX, "2000000")?;
        within("usd_per_month", usd(self.usd_per_month), BUDGET_USD_MAX, "2000000")?;
        with_rate("request_burst", self.request_burst, "requests_per_minute", self.requests_per_minute)?;
        with_rate("token_burst", self.token_burst, "tokens_per_minute", self.tokens_per_minute)
    }
}

fn rate(per_minute: Option<u64>, burst: Option<u64>) -> Option<Rate> {
    per_minute.map(|per_minute| Rate { per_minute, burst: burst.unwrap_or(per_minute) })
}

fn within(field: &str, value: Option<u64>, max: u64, shown: &str) -> Result<(), String> {
    if value.is_none_or(|value| (1..=max).contains(&value)) {
        return Ok(());
    }
    Err(format!("{field}: must be above zero and at most {shown}; leave it out for no limit"))
}

fn with_rate(burst: &str, value: Option<u64>, rate: &str, per_minute: Option<u64>) -> Result<(), String> {
    if value.is_some() && per_minute.is_none() {
        return Err(format!("{burst}: says nothing without {rate}; set that too"));
    }
    Ok(())
}

/// An amount of money in billionths of a US dollar. Written as a decimal of dollars, such as `12.5`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct NanoUsd(pub u64);

const NANO: f64 = 1e9;

impl Serialize for NanoUsd {
    #[expect(clippy::cast_precision_loss, reason = "exact as far as a budget reaches")]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0 as f64 / NANO)
    }
}

impl<'de> Deserialize<'de> for NanoUsd {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked before")]
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let usd = f64::deserialize(deserializer)?;
        if !(0.0..=9_000_000.0).contains(&usd) {
            return Err(D::Error::custom("expected US dollars from 0 to 2000000, such as 12.5"));
        }
        Ok(Self((usd * NANO).round() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn quota(json: &str) -> Quota {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_burst_is_a_minutes_worth_unless_it_is_said() {
        assert_eq!(quota(r#"{"requests_per_minute":600}"#).requests(), Some(Rate { per_minute: 600, burst: 600 }));
        assert_eq!(quota(r#"{"tokens_per_minute":60,"token_burst":9}"#).tokens(), Some(Rate { per_minute: 60, burst: 9 }));
    }

    #[test]
    fn a_role_fills_what_is_absent_and_lends_no_burst_to_a_rate_of_ones_own() {
        let role = quota(r#"{"requests_per_minute":600,"request_burst":900,"concurrency":5,"usd_per_day":1.5}"#);
        let own = quota(r#"{"requests_per_minute":60,"concurrency":7}"#).or(&role);
        assert_eq!(own, quota(r#"{"requests_per_minute":60,"concurrency":7,"usd_per_day":1.5}"#));
        let burst = quota(r#"{"request_burst":20}"#).or(&role);
        assert_eq!(burst.requests(), Some(Rate { per_minute: 600, burst: 20 }));
    }

    #[test]
    fn only_what_the_ledger_keeps_makes_a_quota_limited() {
        assert!(quota(r#"{"queued":5}"#).is_unlimited());
        for limited in [r#"{"requests_per_minute":1}"#, r#"{"tokens_per_minute":1}"#, r#"{"concurrency":1}"#, r#"{"usd_per_month":1}"#] {
            assert!(!quota(limited).is_unlimited(), "{limited}");
        }
    }

    #[test]
    fn a_limit_that_cannot_be_counted_is_refused_by_name() {
        let cases = [
            (r#"{"requests_per_minute":0}"#, "requests_per_minute"),
            (r#"{"tokens_per_minute":10000000001}"#, "tokens_per_minute"),
            (r#"{"request_burst":5}"#, "request_burst"),
            (r#"{"usd_per_day":2000000.01}"#, "usd_per_day"),
            (r#"{"concurrency":1000001}"#, "concurrency"),
        ];
        for (json, field) in cases {
            assert!(quota(json).check().unwrap_err().starts_with(field), "{json}");
        }
        assert_eq!(quota(r#"{"tokens_per_month":1000000000000000,"usd_per_month":2000000}"#).check(), Ok(()));
        assert!(serde_json::from_str::<Quota>(r#"{"requests_per_second":1}"#).is_err());
    }

    proptest! {
        #[test]
        fn money_is_read_back_as_it_was_written(nano in 0..=BUDGET_USD_MAX) {
            let written = serde_json::to_string(&NanoUsd(nano)).unwrap();
            prop_assert_eq!(serde_json::from_str::<NanoUsd>(&written).unwrap(), NanoUsd(nano));
        }
    }
}
