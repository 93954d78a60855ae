//! edge: issued keys. A key's text is in the answer to its creation and to each rotation, and nowhere else: what is kept is a digest.

use super::ask::{self, invalid};
use super::audit::{Action, Author};
use super::change::{Change, conflict};
use super::named::{deleted, not_found, read_only};
use super::{Answered, Office, view};
use crate::query::Query;
use axum::Extension;
use axum::extract::{Path, Request, State};
use http::StatusCode;
use serde::Deserialize;
use shared::error::{Code, Failure};
use shared::identity::{Key, KeyId, KeyRecord, Kind, Peppers, Scope, key};
use shared::quota::Quota;
use shared::{clock, entropy};
use std::sync::Arc;

/// Tries of a change that others get in the way of. A key is blocked whatever else happens to it.
const TRIES: usize = 5;

/// What may be said of a new key.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    tenant: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    scope: Scope,
    #[serde(default, rename = "limits")]
    quota: Quota,
    /// Seconds since 1970.
    expires_at: Option<u64>,
}

pub(super) async fn list(State(office): State<Arc<Office>>, request: Request) -> Answered {
    let query = Query::read(&request.into_parts().0, &["tenant", "after", "limit"])?;
    let directory = office.gate.directory();
    let wanted = |key: &&Arc<Key>| query.text("tenant").is_none_or(|tenant| *key.tenant == *tenant);
    view::page(directory.keys().filter(wanted).map(|key| (&*key.id, key)), &query, |key| view::of_key(key))
}

pub(super) async fn one(State(office): State<Arc<Office>>, Path(id): Path<String>) -> Answered {
    if let Some(key) = office.file_key(&id) {
        return Ok(view::answer(StatusCode::OK, view::of_key(&key), None));
    }
    let (record, revision) = office.key(&id).await?;
    Ok(view::answer(StatusCode::OK, view::of_record(&record), Some(revision)))
}

pub(super) async fn create(State(office): State<Arc<Office>>, Extension(who): Extension<Author>, request: Request) -> Answered {
    let (_, map) = ask::object(&office, request).await?;
    let wanted: Wanted = ask::fields(map)?;
    wanted.quota.check().map_err(invalid)?;
    let now = clock::unix_seconds();
    if wanted.expires_at.is_some_and(|end| end <= now) {
        return Err(invalid("the key would have expired already").param("expires_at").into());
    }
    office.tenant_exists(&wanted.tenant).await?;
    let issued = key::issue(&entropy::key());
    let record = KeyRecord {
        id: issued.id,
        name: wanted.name,
        tenant: wanted.tenant,
        digests: vec![issued.digest(office.peppers()?)],
        scope: wanted.scope,
        quota: wanted.quota,
        expires_at: wanted.expires_at,
        blocked: false,
        created_at: now,
    };
    let (shown, revision) = office.write_key(&who, Action::Create, None, &record).await?;
    Ok(view::answer(StatusCode::CREATED, with_text(shown, &issued), Some(revision)))
}

/// The key itself, this once.
pub(super) fn with_text(mut shown: serde_json::Value, issued: &key::Issued) -> serde_json::Value {
    shown["key"] = issued.expose().into();
    shown
}

pub(super) async fn block(State(office): State<Arc<Office>>, Extension(who): Extension<Author>, Path(id): Path<String>) -> Answered {
    set_blocked(&office, &who, &id, true).await
}

pub(super) async fn unblock(State(office): State<Arc<Office>>, Extension(who): Extension<Author>, Path(id): Path<String>) -> Answered {
    set_blocked(&office, &who, &id, false).await
}

async fn set_blocked(office: &Office, who: &Author, id: &str, blocked: bool) -> Answered {
    let action = if blocked { Action::Block } else { Action::Unblock };
    let (shown, revision) = office
        .change_key(who, action, id, |record| {
            record.blocked = blocked;
            Ok(())
        })
        .await?;
    Ok(view::answer(StatusCode::OK, shown, Some(revision)))
}

pub(super) async fn delete(State(office): State<Arc<Office>>, Extension(who): Extension<Author>, Path(id): Path<String>) -> Answered {
    let (record, revision) = office.key(&id).await?;
    let change = Change {
        who: &who,
        action: Action::Delete,
        kind: Kind::Key,
        name: record.id.as_str(),
        revision: Some(revision),
        before: Some(view::of_record(&record)),
        after: None,
        value: None,
    };
    change.make(&office).await?;
    Ok(deleted())
}

impl Office {
    pub(super) fn peppers(&self) -> Result<&Peppers, Failure> {
        let none = "Keys cannot be issued: the configuration has no `peppers`, under which they are hashed";
        self.peppers.as_ref().ok_or_else(|| Failure::new(Code::OperationNotSupported, none))
    }

    fn file_key(&self, id: &str) -> Option<Arc<Key>> {
        // Their ids hold a slash, which no issued key's does.
        let directory = self.gate.directory();
        let key = id.contains('/').then(|| directory.keys().find(|key| *key.id == *id).cloned());
        key.flatten()
    }

    /// An issued key as the store has it now, and its revision.
    ///
    /// # Errors
    /// `read_only` for one of the file, `not_found`, `broker_unavailable`.
    async fn key(&self, id: &str) -> Result<(KeyRecord, u64), Failure> {
        if self.file_key(id).is_some() {
            return Err(read_only(Kind::Key));
        }
        let id = KeyId::parse(id).ok_or_else(|| not_found(Kind::Key))?;
        let record = self.record(Kind::Key, id.as_str()).await?.ok_or_else(|| not_found(Kind::Key))?;
        let key = serde_json::from_slice(&record.value).map_err(|error| {
            tracing::error!(%error, key = %id, "a key of the store cannot be read");
            Failure::new(Code::Internal, "This key cannot be read: a newer release may have written it; see the log")
        })?;
        Ok((key, record.revision))
    }

    /// Changes what is there, whoever else changes it meanwhile. Returns it as it is shown, and its revision.
    pub(super) async fn change_key(
        &self,
        who: &Author,
        action: Action,
        id: &str,
        mut edit: impl FnMut(&mut KeyRecord) -> Result<(), Failure>,
    ) -> Result<(serde_json::Value, u64), Failure> {
        for _ in 0..TRIES {
            let (before, revision) = self.key(id).await?;
            let mut record = before.clone();
            edit(&mut record)?;
            match self.write_key(who, action, Some((&before, revision)), &record).await {
                Err(failure) if failure.code == Code::Conflict => {}
                written => return written,
            }
        }
        Err(conflict("Others keep changing this key: try again"))
    }

    async fn write_key(
        &self,
        who: &Author,
        action: Action,
        there: Option<(&KeyRecord, u64)>,
        record: &KeyRecord,
    ) -> Result<(serde_json::Value, u64), Failure> {
        record.check().map_err(invalid)?;
        let shown = view::of_record(record);
        let change = Change {
            who,
            action,
            kind: Kind::Key,
            name: record.id.as_str(),
            revision: there.map(|(_, revision)| revision),
            before: there.map(|(before, _)| view::of_record(before)),
            after: Some(shown.clone()),
            value: Some(serde_json::to_vec(record).expect("a record is plain data").into()),
        };
        let revision = change.make(self).await?;
        Ok((shown, revision))
    }
}
