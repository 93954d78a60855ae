//! edge: dead letters, the jobs that failed for good: looked at, run again, or put away.

use super::audit::{Action, Author};
use super::change::{Deed, unavailable};
use super::{Answered, Office, view};
use crate::jobs::redrive;
use crate::query::Query;
use axum::extract::{Path, Request, State};
use axum::response::IntoResponse;
use axum::{Extension, Json};
use http::StatusCode;
use serde_json::{Value, json};
use shared::broker::BrokerError;
use shared::error::{Code, Failure};
use shared::jobs::{self, DeadLetter};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// A full journal takes seconds to be read; whoever asks should still be there.
const READ_WITHIN: Duration = Duration::from_secs(20);

/// What the audit journal calls them.
const KIND: &str = "dead-letter";

/// `GET /admin/dead-letters`, by job; of one tenant or of all.
pub(super) async fn list(State(office): State<Arc<Office>>, request: Request) -> Answered {
    let query = Query::read(&request.into_parts().0, &["tenant", "limit", "after"])?;
    let letters = office.letters(query.text("tenant")).await?;
    view::page(letters.iter().map(|letter| (letter.job.as_str(), letter)), &query, show)
}

pub(super) async fn one(State(office): State<Arc<Office>>, Path(id): Path<String>) -> Answered {
    Ok(Json(show(&office.letter(&id).await?)).into_response())
}

/// Runs the request again, as a new job that names the dead one.
pub(super) async fn redrive(State(office): State<Arc<Office>>, Extension(who): Extension<Author>, Path(id): Path<String>) -> Answered {
    let letter = office.letter(&id).await?;
    let job = office.settle(&who, Action::Redrive, &letter, redrive::redrive(&office.gate, &letter)).await?;
    Ok((StatusCode::CREATED, Json(json!({ "job": job.id, "redrive_of": letter.job, "status": job.state }))).into_response())
}

/// Puts a letter away. The job's record stays as long as any.
pub(super) async fn purge(State(office): State<Arc<Office>>, Extension(who): Extension<Author>, Path(id): Path<String>) -> Answered {
    let letter = office.letter(&id).await?;
    office.settle(&who, Action::Delete, &letter, async { Ok(()) }).await?;
    Ok(Json(json!({ "job": letter.job, "deleted": true })).into_response())
}

impl Office {
    /// # Errors
    /// `broker_unavailable`.
    async fn letters(&self, tenant: Option<&str>) -> Result<Vec<DeadLetter>, Failure> {
        let read = timeout(READ_WITHIN, jobs::letters(self.gate.broker(), tenant)).await;
        let slow = |_| BrokerError::Unavailable("the dead letters were not read in time".into());
        read.map_err(slow).and_then(|letters| letters).map_err(|error| unavailable(&error))
    }

    /// # Errors
    /// `not_found`, `broker_unavailable`.
    async fn letter(&self, id: &str) -> Result<DeadLetter, Failure> {
        let found = self.letters(None).await?.into_iter().find(|letter| letter.job.as_str() == id);
        found.ok_or_else(|| Failure::new(Code::NotFound, "There is no dead letter of this job: none was, or somebody has dealt with it"))
    }

    /// Does something about a letter, on record, and lists it no longer.
    async fn settle<T>(
        &self,
        who: &Author,
        action: Action,
        letter: &DeadLetter,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let before = show(letter);
        let deed = Deed { who, action, kind: KIND, name: letter.job.as_str(), before: Some(&before), after: None };
        let settled = async {
            let done = work.await?;
            jobs::settle(self.gate.broker(), letter).await.map_err(|error| unavailable(&error))?;
            Ok(done)
        };
        deed.done(self.gate.broker(), settled).await
    }
}

fn show(letter: &DeadLetter) -> Value {
    serde_json::to_value(letter).expect("letters are plain data")
}
