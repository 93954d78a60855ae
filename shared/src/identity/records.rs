//! core: how the store keeps the objects: as JSON, each under a key that tells its kind. Between what changed in the store
//! and what changes in a directory.

use super::directory::Change;
use super::key::KeyId;
use super::objects::{KeyRecord, Role, TenantRecord};
use crate::domain::Token;
use std::collections::HashMap;
use std::fmt;

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Role,
    Tenant,
    Key,
}

impl Kind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Role => "role",
            Self::Tenant => "tenant",
            Self::Key => "key",
        }
    }

    /// The record of an object, by its name or id. Names become tokens: they may hold what a subject would misread.
    pub fn record(self, name: &str) -> String {
        match self {
            Self::Role | Self::Tenant => format!("{self}.{}", Token::of_name(name)),
            Self::Key => format!("{self}.{name}"),
        }
    }

    fn of_record(record: &str) -> Option<(Self, &str)> {
        let (kind, name) = record.split_once('.')?;
        let kind = [Self::Role, Self::Tenant, Self::Key].into_iter().find(|known| known.as_str() == kind)?;
        Some((kind, name))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A record that is no object: written by a newer release, or by hand.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("its key is of no kind that this release knows")]
    Kind,
    #[error("its key is not that of the object in it")]
    Name,
    #[error("it is not what its key says: {0}")]
    Json(#[from] serde_json::Error),
}

/// Reads records as changes. A deletion tells the record's key only, so the names behind those are remembered: as many as
/// a directory holds.
#[derive(Debug, Default)]
pub(super) struct Reader {
    names: HashMap<Box<str>, String>,
}

impl Reader {
    /// What a write (or, without a value, a deletion) changes. `None`: nothing that was ever there.
    pub(super) fn read(&mut self, record: &str, value: Option<&[u8]>) -> Result<Option<Change>, Unreadable> {
        let (kind, name) = Kind::of_record(record).ok_or(Unreadable::Kind)?;
        match value {
            Some(json) => self.put(kind, record, json).map(Some),
            None => Ok(self.dropped(kind, record, name)),
        }
    }

    fn put(&mut self, kind: Kind, record: &str, json: &[u8]) -> Result<Change, Unreadable> {
        let (change, name) = match kind {
            Kind::Role => {
                let role: Role = serde_json::from_slice(json)?;
                let name = role.name.clone();
                (Change::PutRole(role), name)
            }
            Kind::Tenant => {
                let tenant: TenantRecord = serde_json::from_slice(json)?;
                let name = tenant.name.clone();
                (Change::PutTenant(tenant), name)
            }
            Kind::Key => {
                let key: KeyRecord = serde_json::from_slice(json)?;
                let name = key.id.to_string();
                (Change::PutKey(key), name)
            }
        };
        if kind.record(&name) != record {
            return Err(Unreadable::Name);
        }
        if kind != Kind::Key {
            self.names.insert(record.into(), name);
        }
        Ok(change)
    }

    fn dropped(&mut self, kind: Kind, record: &str, name: &str) -> Option<Change> {
        match kind {
            Kind::Role => self.names.remove(record).map(Change::DropRole),
            Kind::Tenant => self.names.remove(record).map(Change::DropTenant),
            Kind::Key => KeyId::parse(name).map(Change::DropKey),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deletion_is_of_what_was_written_under_the_same_key() {
        let (mut reader, record) = (Reader::default(), Kind::Tenant.record("a.b >*"));
        assert!(reader.read(&record, None).unwrap().is_none(), "never there");
        let put = reader.read(&record, Some(br#"{"name":"a.b >*"}"#)).unwrap();
        assert!(matches!(put, Some(Change::PutTenant(tenant)) if tenant.name == "a.b >*"));
        let dropped = reader.read(&record, None).unwrap();
        assert!(matches!(dropped, Some(Change::DropTenant(name)) if name == "a.b >*"));
        assert!(matches!(reader.read("key.0123456789", None).unwrap(), Some(Change::DropKey(id)) if id.as_str() == "0123456789"));
    }

    #[test]
    fn a_record_of_another_kind_or_name_is_no_object() {
        let mut reader = Reader::default();
        for record in ["tenants.x", "tenant", "role"] {
            assert!(matches!(reader.read(record, Some(b"{}")), Err(Unreadable::Kind)), "{record}");
        }
        assert!(matches!(reader.read(&Kind::Role.record("a"), Some(br#"{"name":"b"}"#)), Err(Unreadable::Name)));
        assert!(matches!(reader.read(&Kind::Role.record("a"), Some(b"{}")), Err(Unreadable::Json(_))));
    }
}
