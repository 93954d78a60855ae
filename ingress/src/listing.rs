//! edge: OpenAI's paging: `limit`, `after`, `order`, over what has been read whole.

use crate::query::Query;
use axum::Json;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use shared::domain::Token;
use shared::error::{Code, Failure};

/// Entries of a page unless it is asked for another number, and at most.
const PAGE: usize = 20;
const PAGE_MAX: usize = 10_000;

pub(crate) struct Paging {
    limit: usize,
    after: Option<String>,
    ascending: bool,
}

impl Paging {
    /// The paging of a request, and its query, which may also hold `others`.
    ///
    /// # Errors
    /// `invalid_value`.
    pub(crate) fn read(request: &Request, others: &[&str]) -> Result<(Self, Query), Failure> {
        let known = [&["limit", "after", "order"], others].concat();
        let query = Query::of(request.uri(), &known)?;
        let limit = query.number::<usize>("limit")?.unwrap_or(PAGE).clamp(1, PAGE_MAX);
        let ascending = match query.text("order") {
            None | Some("desc") => false,
            Some("asc") => true,
            Some(_) => return Err(Failure::new(Code::InvalidValue, "`order` must be asc or desc").param("order")),
        };
        let after = query.text("after").filter(|after| !after.is_empty()).map(str::to_owned);
        Ok((Self { limit, after, ascending }, query))
    }
}

pub(crate) struct Page<T> {
    entries: Vec<(T, Token)>,
    has_more: bool,
}

impl<T> Page<T> {
    /// The page of `all` that is asked for, by time and id.
    ///
    /// # Errors
    /// `invalid_value` for an `after` that is not among them.
    pub(crate) fn cut(all: Vec<T>, paging: &Paging, place: impl Fn(&T) -> (u64, Token)) -> Result<Self, Failure> {
        let mut placed: Vec<((u64, Token), T)> = all.into_iter().map(|entry| (place(&entry), entry)).collect();
        placed.sort_unstable_by(|(a, _), (b, _)| if paging.ascending { a.cmp(b) } else { b.cmp(a) });
        let start = match &paging.after {
            None => 0,
            Some(after) => {
                let found = placed.iter().position(|((_, id), _)| id.as_str() == after);
                found.ok_or_else(|| Failure::new(Code::InvalidValue, "`after` names nothing that is here").param("after"))? + 1
            }
        };
        let has_more = placed.len() > start + paging.limit;
        let entries = placed.into_iter().skip(start).take(paging.limit).map(|((_, id), entry)| (entry, id)).collect();
        Ok(Self { entries, has_more })
    }

    pub(crate) fn respond(&self, show: impl Fn(&T) -> serde_json::Result<Value>) -> Response {
        let data: Vec<Value> = self.entries.iter().filter_map(|(entry, _)| show(entry).ok()).collect();
        let (first, last) = (self.entries.first().map(|(_, id)| id), self.entries.last().map(|(_, id)| id));
        Json(json!({ "object": "list", "data": data, "first_id": first, "last_id": last, "has_more": self.has_more })).into_response()
    }
}
