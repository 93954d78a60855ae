//! edge: webhooks that wait or were given up, and having one delivered again.

use super::audit::{Action, Author};
use super::change::{Deed, unavailable};
use super::{Answered, Office};
use crate::query::Query;
use crate::webhooks::Delivery;
use axum::extract::{Path, Request, State};
use axum::response::IntoResponse;
use axum::{Extension, Json};
use http::StatusCode;
use serde_json::{Value, json};
use shared::config::shown;
use shared::domain::Token;
use shared::error::{Code, Failure};
use std::sync::Arc;
use url::Url;

/// What the audit journal calls them, each by its event.
const KIND: &str = "webhook";

/// `GET /admin/webhooks`: of one tenant or of all.
pub(super) async fn list(State(office): State<Arc<Office>>, request: Request) -> Answered {
    let query = Query::read(&request.into_parts().0, &["tenant", "limit"])?;
    let deliveries = office.gate.webhooks.list(query.text("tenant"), query.limit()?).await.map_err(|error| unavailable(&error))?;
    let data: Vec<Value> = deliveries.iter().map(show).collect();
    Ok(Json(json!({ "data": data })).into_response())
}

/// `POST /admin/webhooks/{event}/redeliver`
pub(super) async fn redeliver(State(office): State<Arc<Office>>, Extension(who): Extension<Author>, Path(event): Path<String>) -> Answered {
    let event = Token::parse(&event).map_err(|_| not_found())?; // What is none goes on no record: it may be of any length.
    let deed = Deed { who: &who, action: Action::Redeliver, kind: KIND, name: event.as_str(), before: None, after: None };
    let renewed = deed.done(office.gate.broker(), office.renew(&event)).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "event": event, "deliveries": renewed }))).into_response())
}

impl Office {
    /// # Errors
    /// `not_found`, `broker_unavailable`.
    async fn renew(&self, event: &Token) -> Result<usize, Failure> {
        let renewed = self.gate.webhooks.redeliver(event.as_str()).await.map_err(|error| unavailable(&error))?;
        if renewed == 0 { Err(not_found()) } else { Ok(renewed) }
    }
}

fn not_found() -> Failure {
    Failure::new(Code::NotFound, "No webhook of this event waits or was given up: GET /admin/webhooks lists those that are")
}

fn show(delivery: &Delivery) -> Value {
    let url = Url::parse(&delivery.url).map(|url| shown(&url)).unwrap_or_default();
    let state = if delivery.given_up_ms.is_some() { "given_up" } else { "pending" };
    json!({
        "event": delivery.event, "type": delivery.kind, "tenant": delivery.tenant, "url": url, "state": state,
        "attempts": delivery.attempts, "since_ms": delivery.since_ms, "next_ms": delivery.next_ms,
        "given_up_ms": delivery.given_up_ms, "last": delivery.last,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_is_shown_without_what_may_be_secret_of_its_target() {
        let delivery = Delivery {
            tenant: "t".into(),
            event: "evt_1".into(),
            kind: "job.failed".into(),
            url: "https://h.example/canary?canary".into(),
            body: "{}".into(),
            since_ms: 1,
            attempts: 2,
            next_ms: 3,
            taken_until_ms: 0,
            by: "ingress".into(),
            last: Some("the target answered 500".into()),
            given_up_ms: None,
        };
        let shown = show(&delivery);
        assert_eq!((&shown["url"], &shown["state"]), (&json!("https://h.example"), &json!("pending")));
        assert_eq!(show(&Delivery { given_up_ms: Some(4), ..delivery })["state"], "given_up");
    }
}
