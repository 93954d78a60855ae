//! edge: what a tenant may use, and has used: its limits in force, and the sums of the usage journal.

use super::change::unavailable;
use super::named::not_found;
use super::{Answered, Office};
use axum::Json;
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use serde_json::{Value, json};
use shared::clock;
use shared::identity::Kind;
use shared::usage::{self, Spent, Totals};
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
    let body = json!({ "tenant": name, "limits": *tenant.quota, "as_of_ms": sum.as_of, "used": show(&sum.totals), "keys": keys });
    Ok(Json(body).into_response())
}

fn show(totals: &Totals) -> Value {
    json!({ "day": spent(&totals.day), "month": spent(&totals.month) })
}

fn spent(spent: &Spent) -> Value {
    json!({ "calls": spent.calls, "input_tokens": spent.input, "output_tokens": spent.output, "nano_usd": spent.nano_usd })
}
