//! core: objects as the administration shows them, and as they stand in the audit journal: never a secret, never a digest.

use super::Answered;
use crate::query::Query;
use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::{Value, json};
use shared::identity::{Key, KeyRecord, Source};

/// An object with where it is written.
pub(super) fn of(object: &impl Serialize, source: Source) -> Value {
    let mut value = serde_json::to_value(object).expect("objects are plain data");
    value["source"] = serde_json::to_value(source).expect("a word");
    value
}

/// A key without its digests.
pub(super) fn of_record(record: &KeyRecord) -> Value {
    let mut value = of(record, Source::Store);
    if let Some(fields) = value.as_object_mut() {
        fields.remove("digests");
    }
    if let Some(until) = record.digests.iter().filter_map(|digest| digest.until).max() {
        value["overlap_until"] = until.into();
    }
    value
}

/// A key as the directory knows it.
pub(super) fn of_key(key: &Key) -> Value {
    json!({
        "id": *key.id, "name": *key.name, "tenant": *key.tenant, "scope": key.scope, "limits": *key.quota,
        "expires_at": key.expires_at, "blocked": key.blocked, "created_at": key.created_at, "source": key.source,
    })
}

/// One object; the store's with its revision, which a change sends back as `If-Match`.
pub(super) fn answer(status: StatusCode, mut value: Value, revision: Option<u64>) -> Response {
    let Some(revision) = revision else { return (status, Json(value)).into_response() };
    value["revision"] = revision.into();
    let etag = HeaderValue::try_from(format!("\"{revision}\"")).expect("a number");
    (status, [(header::ETAG, etag)], Json(value)).into_response()
}

/// A page of a list, in the order of names; `after` in the query gives the next. Only what is on it is shown, because there
/// may be a million.
pub(super) fn page<T>(entries: impl Iterator<Item = (impl AsRef<str>, T)>, query: &Query, show: impl Fn(T) -> Value) -> Answered {
    let (limit, after) = (query.limit()?, query.text("after"));
    let mut entries: Vec<_> = entries.filter(|(name, _)| after.is_none_or(|after| name.as_ref() > after)).collect();
    entries.sort_unstable_by(|(a, _), (b, _)| a.as_ref().cmp(b.as_ref()));
    let has_more = entries.len() > limit;
    let data: Vec<Value> = entries.into_iter().take(limit).map(|(_, object)| show(object)).collect();
    Ok(Json(json!({ "data": data, "has_more": has_more })).into_response())
}
