//! core: changes of the store's objects. The file's come first: what the store says of them is ignored.

use super::{Directory, Source};
use crate::identity::caller::Key;
use crate::identity::key::KeyId;
use crate::identity::objects::{DEFAULT_ROLE, KeyRecord, Role, TenantRecord};
use std::sync::Arc;

/// Bounds of what every replica holds in memory; tenants and roles may label metrics besides.
const ROLES_MAX: usize = 1_000;
const TENANTS_MAX: usize = 100_000;
const KEYS_MAX: usize = 1_000_000;

/// One object of the store has come, changed, or gone.
#[derive(Clone, Debug)]
pub enum Change {
    PutRole(Role),
    DropRole(String),
    PutTenant(TenantRecord),
    DropTenant(String),
    PutKey(KeyRecord),
    DropKey(KeyId),
}

/// Why a change had no effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ignored {
    #[error("the {what} `{name}` is the configuration file's: what the store says of it is ignored; change the file")]
    OfTheFile { what: &'static str, name: String },
    #[error("the {what} `{name}` of the store is ignored: {why}")]
    Unsound { what: &'static str, name: String, why: String },
    #[error("a {what} of the store is ignored: there are {max} already")]
    TooMany { what: &'static str, max: usize },
}

impl Directory {
    /// A copy with one change; this one stays as it is.
    ///
    /// # Errors
    /// Why there is nothing to change.
    pub fn with(&self, change: Change) -> Result<Self, Ignored> {
        let mut copy = self.clone();
        copy.apply(change).map(|()| copy)
    }

    /// Changes this one. For many changes at once, to a copy that nobody uses yet: each shard is then copied once at most.
    ///
    /// # Errors
    /// Why it had no effect.
    pub fn apply(&mut self, change: Change) -> Result<(), Ignored> {
        match change {
            Change::PutRole(role) => self.put_role(role),
            Change::DropRole(name) => self.drop_role(&name),
            Change::PutTenant(record) => self.put_tenant(record),
            Change::DropTenant(name) => self.drop_tenant(&name),
            Change::PutKey(record) => self.put_key(record),
            Change::DropKey(id) => {
                self.keys.remove(&id);
                Ok(())
            }
        }
    }

    fn put_role(&mut self, role: Role) -> Result<(), Ignored> {
        const WHAT: &str = "role";
        of_the_store(WHAT, &role.name, self.roles.get(&*role.name).map(|(source, _)| *source))?;
        role.check().map_err(|why| unsound(WHAT, &role.name, why))?;
        if self.roles.len() >= ROLES_MAX && !self.roles.contains_key(&*role.name) {
            return Err(Ignored::TooMany { what: WHAT, max: ROLES_MAX });
        }
        let name = role.name.clone();
        Arc::make_mut(&mut self.roles).insert(name.as_str().into(), (Source::Store, Arc::new(role)));
        self.recast(&name);
        Ok(())
    }

    fn drop_role(&mut self, name: &str) -> Result<(), Ignored> {
        of_the_store("role", name, self.roles.get(name).map(|(source, _)| *source))?;
        Arc::make_mut(&mut self.roles).remove(name);
        self.recast(name);
        Ok(())
    }

    /// Gives all tenants of a role what it now says. Takes a walk over all tenants: roles change rarely, and a request
    /// then finds everything in its tenant.
    fn recast(&mut self, role: &str) {
        let is_theirs = |record: &TenantRecord| record.role.as_deref().unwrap_or(DEFAULT_ROLE) == role;
        let theirs: Vec<_> = self.tenants.values().filter(|tenant| is_theirs(&tenant.record)).cloned().collect();
        for tenant in theirs {
            self.enter(tenant.record.clone(), tenant.source);
        }
    }

    fn put_tenant(&mut self, record: TenantRecord) -> Result<(), Ignored> {
        const WHAT: &str = "tenant";
        let known = self.tenant(&record.name);
        of_the_store(WHAT, &record.name, known.map(|tenant| tenant.source))?;
        record.check().map_err(|why| unsound(WHAT, &record.name, why))?;
        if self.tenants.len() >= TENANTS_MAX && known.is_none() {
            return Err(Ignored::TooMany { what: WHAT, max: TENANTS_MAX });
        }
        self.enter(record, Source::Store);
        Ok(())
    }

    fn drop_tenant(&mut self, name: &str) -> Result<(), Ignored> {
        of_the_store("tenant", name, self.tenant(name).map(|tenant| tenant.source))?;
        self.tenants.remove(name);
        Ok(())
    }

    fn put_key(&mut self, record: KeyRecord) -> Result<(), Ignored> {
        const WHAT: &str = "key";
        record.check().map_err(|why| unsound(WHAT, record.id.as_str(), why))?;
        if self.keys.len() >= KEYS_MAX && self.key(record.id).is_none() {
            return Err(Ignored::TooMany { what: WHAT, max: KEYS_MAX });
        }
        let key = Key {
            id: record.id.as_str().into(),
            name: record.name.into(),
            tenant: self.name_of(&record.tenant),
            scope: record.scope,
            quota: self.quota_of(&record.quota),
            expires_at: record.expires_at,
            blocked: record.blocked,
            created_at: record.created_at,
            source: Source::Store,
            digests: record.digests.into(),
        };
        self.keys.insert(record.id, Arc::new(key));
        Ok(())
    }
}

fn of_the_store(what: &'static str, name: &str, source: Option<Source>) -> Result<(), Ignored> {
    if source == Some(Source::File) { Err(Ignored::OfTheFile { what, name: name.to_owned() }) } else { Ok(()) }
}

fn unsound(what: &'static str, name: &str, why: String) -> Ignored {
    // What is no name may be anything, of any length.
    Ignored::Unsound { what, name: name.chars().filter(char::is_ascii_graphic).take(128).collect(), why }
}
