//! edge: pages of the journals: who changed what, and who called which model when.

use super::change::unavailable;
use super::{Answered, Office};
use crate::query::Query;
use axum::Json;
use axum::extract::{Request, State};
use axum::response::IntoResponse;
use serde_json::{Value, json};
use shared::broker::{Broker, BrokerError, Entry, Feed, Journal, Since};
use shared::domain::Token;
use shared::hear;
use shared::wire::{Call, ItemEnd};
use std::sync::Arc;
use std::time::Duration;

/// What has been stored is there within this; whoever asks for news waits as long for it.
const WAIT: Duration = Duration::from_secs(1);

/// `GET /admin/audit`: changes, oldest first.
pub(super) async fn changes(State(office): State<Arc<Office>>, request: Request) -> Answered {
    let query = Query::read(&request.into_parts().0, &["since", "after", "limit"])?;
    page(&office, &query, Feed::Journal(Journal::Audit, None), |entry| {
        entry.value.as_deref().and_then(|json| serde_json::from_slice(json).ok()).into_iter().collect()
    })
    .await
}

/// `GET /admin/usage`: model calls, oldest first, of one tenant or of all. An entry of the journal holds up to 64 of them.
pub(super) async fn calls(State(office): State<Arc<Office>>, request: Request) -> Answered {
    let query = Query::read(&request.into_parts().0, &["since", "after", "limit", "tenant"])?;
    let tenant = query.text("tenant").map(str::to_owned);
    let feed = Feed::Journal(Journal::Usage, tenant.as_deref().map(|tenant| Token::of_name(tenant).into()));
    page(&office, &query, feed, |entry| {
        let calls = entry.value.iter().flat_map(hear::messages::<Call>).map(|(call, _)| call);
        calls.filter(|call| tenant.as_deref().is_none_or(|tenant| *call.tenant == *tenant)).map(|call| show(&call)).collect()
    })
    .await
}

/// Entries stored at `since` (Unix milliseconds) or later and behind position `after`; each with its position and the time
/// at which it was stored, from which the next page begins.
async fn page(office: &Office, query: &Query, feed: Feed, show: impl Fn(&Entry) -> Vec<Value>) -> Answered {
    let since = query.number("since")?.map_or(Since::Start, |ms| Since::Time(Duration::from_millis(ms)));
    let (after, limit) = (query.number("after")?.unwrap_or(0), query.limit()?);
    let entries = read(office.gate.road.broker.as_ref(), &feed, since, after, limit).await.map_err(|error| unavailable(&error))?;
    let has_more = entries.last().is_some_and(|entry| entry.more);
    let next = entries.last().map(|entry| json!({ "since": millis(entry), "after": entry.sequence }));
    let data = entries.iter().flat_map(|entry| show(entry).into_iter().map(|value| stamped(entry, value)));
    let data: Vec<Value> = data.collect();
    Ok(Json(json!({ "data": data, "has_more": has_more, "next": next })).into_response())
}

async fn read(broker: &dyn Broker, feed: &Feed, since: Since, after: u64, limit: usize) -> Result<Vec<Entry>, BrokerError> {
    let mut follower = broker.follow(feed, since).await?;
    let mut entries = Vec::new();
    while entries.len() < limit
        && let Some(entry) = follower.next(WAIT).await?
    {
        let more = entry.more;
        if entry.sequence > after {
            entries.push(entry);
        }
        if !more && !entries.is_empty() {
            break;
        }
    }
    Ok(entries)
}

fn stamped(entry: &Entry, mut value: Value) -> Value {
    value["position"] = entry.sequence.into();
    value["stored_ms"] = millis(entry).into();
    value
}

fn millis(entry: &Entry) -> u64 {
    u64::try_from(entry.stored.as_millis()).unwrap_or(u64::MAX)
}

fn show(call: &Call) -> Value {
    let end = match call.end {
        ItemEnd::Answered => "answered",
        ItemEnd::Failed => "failed",
        ItemEnd::Cancelled => "cancelled",
    };
    json!({
        "at_ms": call.at_ms, "request": call.id.to_string(), "tenant": call.tenant, "key": call.key, "model": call.model,
        "operation": call.op.as_str(), "lane": call.lane.as_str(), "backend": call.backend, "input_tokens": call.input,
        "output_tokens": call.output, "nano_usd": call.nano_usd, "end": end, "ms": call.ms,
    })
}
