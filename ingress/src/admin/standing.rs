//! core: how an account stands within its limits at this moment, as the administration shows it.

use serde_json::{Value, json};
use shared::quota::{Amount, Quota, Rate, Usage};
use shared::wire::Looked;
use std::sync::Arc;

/// A key that has limits of its own.
pub(super) type LimitedKey = (Box<str>, Arc<Quota>);

/// One ledger's word on a tenant, and on the keys that were asked for, in their order.
pub(super) fn show(looked: &Looked, tenant: &Quota, keys: &[LimitedKey]) -> Value {
    let of_keys = keys.iter().zip(&looked.look.keys).map(|((id, quota), usage)| (id.to_string(), account(usage, quota)));
    json!({
        "ledger": if looked.shared { "redis" } else { looked.from.as_str() },
        "tenant": account(&looked.look.tenant, tenant),
        "keys": of_keys.collect::<serde_json::Map<String, Value>>(),
    })
}

fn account(usage: &Usage, quota: &Quota) -> Value {
    let settled = usage.settled.map(|totals| json!({ "day": amount(&totals.day), "month": amount(&totals.month) }));
    json!({
        "requests": quota.requests().map(|rate| window(usage.requests, rate)),
        "tokens": quota.tokens().map(|rate| window(usage.tokens, rate)),
        "open": usage.open,
        "reserved": amount(&usage.held),
        "settled": settled,
    })
}

/// What is left of a bucket of which so much is taken, in the words of the `x-ratelimit-*` headers.
fn window(taken: u64, rate: Rate) -> Value {
    let reset_ms = taken.saturating_mul(60_000).div_ceil(rate.per_minute.max(1));
    json!({ "limit": rate.burst, "remaining": rate.burst.saturating_sub(taken), "reset_ms": reset_ms })
}

fn amount(amount: &Amount) -> Value {
    json!({ "tokens": amount.tokens, "nano_usd": amount.nano_usd })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_tells_what_is_left_and_when_it_is_full() {
        let rate = Rate { per_minute: 600, burst: 100 };
        assert_eq!(window(0, rate), json!({ "limit": 100, "remaining": 100, "reset_ms": 0 }));
        assert_eq!(window(31, rate), json!({ "limit": 100, "remaining": 69, "reset_ms": 3_100 }));
        assert_eq!(window(250, rate), json!({ "limit": 100, "remaining": 0, "reset_ms": 25_000 }), "a debt is paid first");
    }

    #[test]
    fn what_is_not_limited_has_no_window() {
        let shown = account(&Usage { open: 2, ..Usage::default() }, &Quota { concurrency: Some(3), ..Quota::default() });
        assert_eq!((&shown["requests"], &shown["open"], &shown["settled"]), (&Value::Null, &json!(2), &Value::Null));
    }
}
