//! edge: what a tenant may use, and has used: its limits in force, the sums of the usage journal, and how the ledgers stand now.

use super::change::unavailable;
use super::named::not_found;
use super::standing::{self, LimitedKey};
use super::{Answered, Office};
use axum::Json;
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use serde_json::{Value, json};
use shared::clock;
use shared::identity::{Kind, Tenant};
use shared::usage::{self, Spent, Sum, Totals};
use std::sync::Arc;
use std::time::Duration;

/// A month of a busy tenant is many entries; whoever asks should still be there.
const SUM_WITHIN: Duration = Duration::from_secs(20);

pub(super) async fn of_tenant(State(office): State<Arc<Office>>, Path(name): Path<String>) -> Answered {
    let tenant = office.gate.directory().tenant(&name).cloned().ok_or_else(|| not_found(Kind::Tenant))?;
    let summing = usage::sum(office.gate.road.broker.as_ref(), &name, clock::unix());
    let slow = |_| shared::broker::BrokerError::Unavailable("the month's usage is not read in time".into());
    let sum = tokio::time::timeout(SUM_WITHIN, summing).await.map_err(slow).and_then(|sum| sum).map_err(|error| unavailable(&error))?;
    let keys: serde_json::Map<String, Value> = sum.keys.iter().map(|(key, totals)| (key.to_string(), show(totals))).collect();
    let live = live(&office, &tenant, &sum).await;
    let used = show(&sum.totals);
    let body = json!({ "tenant": name, "limits": *tenant.quota, "live": live, "as_of_ms": sum.as_of, "used": used, "keys": keys });
    Ok(Json(body).into_response())
}

/// The word of each ledger in which the tenant is counted: one where schedulers share it. Of the keys, those that have limits of
/// their own and have been used.
async fn live(office: &Office, tenant: &Tenant, sum: &Sum) -> Vec<Value> {
    let directory = office.gate.directory();
    let quota_of = |id: &str| directory.quota_of_key(id).cloned();
    let keys: Vec<LimitedKey> = sum.keys.keys().filter_map(|id| Some((id.clone(), quota_of(id)?))).collect();
    drop(directory);
    if keys.is_empty() && tenant.quota.is_unlimited() {
        return Vec::new();
    }
    let ids: Vec<Box<str>> = keys.iter().map(|(id, _)| id.clone()).collect();
    let schedulers = office.gate.peers.schedulers(clock::now());
    let looked = office.gate.road.looks.look(&schedulers, &tenant.name, &ids).await;
    looked.iter().map(|looked| standing::show(looked, &tenant.quota, &keys)).collect()
}

fn show(totals: &Totals) -> Value {
    json!({ "day": spent(&totals.day), "month": spent(&totals.month) })
}

fn spent(spent: &Spent) -> Value {
    json!({ "calls": spent.calls, "input_tokens": spent.input, "output_tokens": spent.output, "nano_usd": spent.nano_usd })
}
