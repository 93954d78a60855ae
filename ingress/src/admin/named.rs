//! edge: tenants and roles: objects that have a name and are written whole.

use super::ask::{self, Expected, invalid};
use super::audit::{Action, Author};
use super::change::{Change, conflict, unavailable};
use super::{Answered, Office, view};
use crate::query::Query;
use axum::Extension;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use shared::broker::{Bucket, Record};
use shared::error::{Code, Failure};
use shared::identity::{DEFAULT_ROLE, Directory, Kind, Role, Source, TenantRecord};
use std::sync::Arc;

/// An object that is told by its name.
pub(super) trait Named: Serialize + DeserializeOwned + Send + Sync + 'static {
    const KIND: Kind;

    fn all(directory: &Directory) -> impl Iterator<Item = (Source, &str, &Self)>;
    fn find<'a>(directory: &'a Directory, name: &str) -> Option<(Source, &'a Self)>;
    /// What is wrong with it, in words.
    fn check(&self, directory: &Directory) -> Result<(), String>;
    /// The role it names.
    fn role(&self) -> Option<&str>;
    /// Who would be left without it.
    fn users(directory: &Directory, name: &str) -> usize;
}

impl Named for TenantRecord {
    const KIND: Kind = Kind::Tenant;

    fn all(directory: &Directory) -> impl Iterator<Item = (Source, &str, &Self)> {
        directory.tenants().map(|tenant| (tenant.source, &*tenant.name, &tenant.record))
    }

    fn find<'a>(directory: &'a Directory, name: &str) -> Option<(Source, &'a Self)> {
        directory.tenant(name).map(|tenant| (tenant.source, &tenant.record))
    }

    fn check(&self, directory: &Directory) -> Result<(), String> {
        TenantRecord::check(self)?;
        let role = directory.role(self.role.as_deref().unwrap_or(DEFAULT_ROLE));
        role.map_or_else(|| self.quota.clone(), |role| self.quota.or(&role.quota)).check()
    }

    fn role(&self) -> Option<&str> {
        self.role.as_deref()
    }

    fn users(directory: &Directory, name: &str) -> usize {
        directory.keys().filter(|key| *key.tenant == *name).count()
    }
}

impl Named for Role {
    const KIND: Kind = Kind::Role;

    fn all(directory: &Directory) -> impl Iterator<Item = (Source, &str, &Self)> {
        directory.roles().map(|(source, role)| (source, role.name.as_str(), &**role))
    }

    fn find<'a>(directory: &'a Directory, name: &str) -> Option<(Source, &'a Self)> {
        directory.roles().find(|(_, role)| role.name == name).map(|(source, role)| (source, &**role))
    }

    fn check(&self, _: &Directory) -> Result<(), String> {
        Role::check(self)?;
        self.quota.check()
    }

    fn role(&self) -> Option<&str> {
        None
    }

    fn users(directory: &Directory, name: &str) -> usize {
        directory.tenants().filter(|tenant| tenant.record.role.as_deref() == Some(name)).count()
    }
}

pub(super) async fn list<T: Named>(State(office): State<Arc<Office>>, request: Request) -> Answered {
    let query = Query::read(&request.into_parts().0, &["after", "limit"])?;
    let directory = office.gate.directory();
    let all = T::all(&directory).map(|(source, name, object)| (name, (source, object)));
    view::page(all, &query, |(source, object)| view::of(object, source))
}

pub(super) async fn one<T: Named>(State(office): State<Arc<Office>>, Path(name): Path<String>) -> Answered {
    if let Some((Source::File, object)) = T::find(&office.gate.directory(), &name) {
        return Ok(view::answer(StatusCode::OK, view::of(object, Source::File), None));
    }
    let record = office.record(T::KIND, &name).await?.ok_or_else(|| not_found(T::KIND))?;
    Ok(view::answer(StatusCode::OK, view::of(&stored::<T>(&record)?, Source::Store), Some(record.revision)))
}

pub(super) async fn put<T: Named>(
    State(office): State<Arc<Office>>,
    Extension(who): Extension<Author>,
    Path(name): Path<String>,
    request: Request,
) -> Answered {
    let expected = Expected::read(request.headers())?;
    let (_, mut map) = ask::object(&office, request).await?;
    if map.get("name").is_some_and(|given| given.as_str() != Some(&name)) {
        return Err(invalid("the name in the body is another than that in the path").param("name").into());
    }
    map.insert("name".into(), name.as_str().into());
    let object: T = ask::fields(map)?;
    office.writable::<T>(&name)?;
    object.check(&office.gate.directory()).map_err(invalid)?;
    office.role_exists(object.role()).await?;
    let there = office.record(T::KIND, &name).await?;
    let revision = revision_for(expected, there.as_ref())?;
    let after = view::of(&object, Source::Store);
    let change = Change {
        who: &who,
        action: if revision.is_some() { Action::Update } else { Action::Create },
        kind: T::KIND,
        name: &name,
        revision,
        before: there.as_ref().map(shown::<T>).transpose()?,
        after: Some(after.clone()),
        value: Some(serde_json::to_vec(&object).expect("objects are plain data").into()),
    };
    let status = if revision.is_some() { StatusCode::OK } else { StatusCode::CREATED };
    let revision = change.make(&office).await?;
    Ok(view::answer(status, after, Some(revision)))
}

pub(super) async fn delete<T: Named>(
    State(office): State<Arc<Office>>,
    Extension(who): Extension<Author>,
    Path(name): Path<String>,
    request: Request,
) -> Answered {
    let expected = Expected::read(request.headers())?;
    office.writable::<T>(&name)?;
    let users = T::users(&office.gate.directory(), &name);
    if users > 0 {
        let what = if T::KIND == Kind::Role { "tenants have this role" } else { "keys are this tenant's" };
        return Err(conflict(&format!("{users} {what}: change or delete them first")).into());
    }
    let there = office.record(T::KIND, &name).await?.ok_or_else(|| not_found(T::KIND))?;
    let expected = if expected == Expected::Unsaid { Expected::Any } else { expected };
    let change = Change {
        who: &who,
        action: Action::Delete,
        kind: T::KIND,
        name: &name,
        revision: revision_for(expected, Some(&there))?,
        before: Some(shown::<T>(&there)?),
        after: None,
        value: None,
    };
    change.make(&office).await?;
    Ok(deleted())
}

/// The revision that a write is to replace; `None`: there is nothing yet.
fn revision_for(expected: Expected, there: Option<&Record>) -> Result<Option<u64>, Failure> {
    match (expected, there.map(|record| record.revision)) {
        (Expected::Unsaid, None) => Ok(None),
        (Expected::Any, Some(revision)) => Ok(Some(revision)),
        (Expected::Revision(known), Some(revision)) if known == revision => Ok(Some(revision)),
        (Expected::Unsaid, Some(revision)) => {
            Err(conflict(&format!("This object is there already, at revision {revision}: send If-Match: \"{revision}\" to replace it")))
        }
        (Expected::Revision(_), Some(revision)) => Err(conflict(&format!("This object has changed: it is at revision {revision}"))),
        (_, None) => Err(conflict("This object is not there: leave If-Match out to create it")),
    }
}

fn stored<T: Named>(record: &Record) -> Result<T, Failure> {
    serde_json::from_slice(&record.value).map_err(|error| {
        tracing::error!(%error, kind = %T::KIND, "a record of the store cannot be read");
        Failure::new(Code::Internal, "This object cannot be read: a newer release may have written it; see the log")
    })
}

/// As it stands in the audit journal.
fn shown<T: Named>(record: &Record) -> Result<Value, Failure> {
    Ok(view::of(&stored::<T>(record)?, Source::Store))
}

pub(super) fn not_found(kind: Kind) -> Failure {
    Failure::new(Code::NotFound, format!("There is no such {kind}: see the list"))
}

pub(super) fn read_only(kind: Kind) -> Failure {
    Failure::new(Code::ReadOnly, format!("This {kind} is the configuration file's: change it there"))
}

pub(super) fn deleted() -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

impl Office {
    /// What the store holds of an object now: the directory may be milliseconds behind.
    pub(super) async fn record(&self, kind: Kind, name: &str) -> Result<Option<Record>, Failure> {
        let record = self.gate.road.broker.record_get(Bucket::Identity, &kind.record(name)).await;
        record.map_err(|error| unavailable(&error))
    }

    fn writable<T: Named>(&self, name: &str) -> Result<(), Failure> {
        let source = T::find(&self.gate.directory(), name).map(|(source, _)| source);
        if source == Some(Source::File) { Err(read_only(T::KIND)) } else { Ok(()) }
    }

    async fn role_exists(&self, role: Option<&str>) -> Result<(), Failure> {
        let Some(role) = role else { return Ok(()) };
        let is_there = self.gate.directory().role(role).is_some() || self.record(Kind::Role, role).await?.is_some();
        if is_there { Ok(()) } else { Err(invalid("there is no role of this name").param("role")) }
    }

    /// A tenant that is there.
    pub(super) async fn tenant_exists(&self, tenant: &str) -> Result<(), Failure> {
        let is_there = self.gate.directory().tenant(tenant).is_some() || self.record(Kind::Tenant, tenant).await?.is_some();
        if is_there { Ok(()) } else { Err(invalid("there is no tenant of this name").param("tenant")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn a_write_replaces_only_what_its_author_has_seen() {
        let there = Record { value: Bytes::new(), revision: 7 };
        let cases = [
            (Expected::Unsaid, None, Some(None)),
            (Expected::Unsaid, Some(&there), None),
            (Expected::Any, Some(&there), Some(Some(7))),
            (Expected::Any, None, None),
            (Expected::Revision(7), Some(&there), Some(Some(7))),
            (Expected::Revision(6), Some(&there), None),
            (Expected::Revision(7), None, None),
        ];
        for (expected, there, allowed) in cases {
            assert_eq!(revision_for(expected, there).ok(), allowed, "{expected:?} {there:?}");
        }
    }
}
