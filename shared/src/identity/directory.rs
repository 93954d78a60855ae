//! core: everybody who may call, as one immutable snapshot. The file's objects are compiled at the start; the store's come and go by
//! [`Change`]s. A changed copy shares nearly all with the snapshot before it, so one change costs microseconds among a
//! million keys (`shards.rs`).
//!
//! Objects refer to each other by name and may come in any order: a key whose tenant is not there is nobody's key, and a
//! tenant whose role is not there may do nothing.

mod change;

pub use change::{Change, Ignored};

use super::caller::{Caller, Key, Tenant};
use super::key::{self, KeyId};
use super::literal::LiteralKeys;
use super::objects::{DEFAULT_ROLE, Role, Scope, TenantRecord};
use super::pepper::Peppers;
use super::shards::Shards;
use crate::config::{self, Config};
use crate::error::{Code, Failure};
use crate::quota::Quota;
use foldhash::HashMap;
use serde::Serialize;
use std::sync::Arc;

/// Where an object is written. The file's are read-only for everybody else, and come before the store's of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    File,
    Store,
}

type Roles = HashMap<Box<str>, (Source, Arc<Role>)>;

#[derive(Clone)]
pub struct Directory {
    roles: Arc<Roles>,
    tenants: Shards<Arc<str>, Arc<Tenant>>,
    keys: Shards<KeyId, Arc<Key>>,
    literals: Arc<LiteralKeys>,
    /// The limits of the file's keys that have any, by the key's id.
    literal_quotas: Arc<HashMap<Arc<str>, Arc<Quota>>>,
    peppers: Option<Arc<Peppers>>,
    /// What all keys without limits share.
    unlimited: Arc<Quota>,
}

impl Directory {
    /// The file's objects. `secret` is random and lives no longer than the process.
    pub fn new(config: &Config, secret: [u8; 32]) -> Self {
        let mut roles = Roles::default();
        for role in std::iter::once(&Role::built_in()).chain(&config.roles) {
            roles.insert(role.name.as_str().into(), (Source::File, Arc::new(role.clone())));
        }
        let mut directory = Self {
            roles: Arc::new(roles),
            tenants: Shards::default(),
            keys: Shards::default(),
            literals: Arc::new(LiteralKeys::new(secret)),
            literal_quotas: Arc::default(),
            peppers: config.peppers.as_ref().map(|peppers| Arc::new(Peppers::new(peppers))),
            unlimited: Arc::default(),
        };
        let mut literals = LiteralKeys::new(secret);
        let mut literal_quotas = HashMap::default();
        for tenant in &config.tenants {
            directory.enter(tenant.record(), Source::File);
            for key in &tenant.keys {
                let compiled = directory.of_file(&tenant.name, key);
                if !compiled.quota.is_unlimited() {
                    literal_quotas.insert(Arc::clone(&compiled.id), Arc::clone(&compiled.quota));
                }
                literals.insert(key.secret.expose().as_bytes(), compiled);
            }
        }
        directory.literals = Arc::new(literals);
        directory.literal_quotas = Arc::new(literal_quotas);
        directory
    }

    /// Who sent a credential that is no token. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// `invalid_api_key`, `key_expired`, `key_blocked`, `permission_denied`.
    pub fn authenticate(&self, credential: &[u8], now: u64) -> Result<Caller, Failure> {
        let key = if key::is_issued(credential) { self.issued(credential, now)? } else { self.literals.find(credential) };
        let key = in_force(key.ok_or_else(nobodys)?, now)?;
        let tenant = self.tenant(&key.tenant).ok_or_else(nobodys)?;
        let role = tenant.role.as_ref().ok_or_else(no_role)?;
        Ok(Caller { tenant: Arc::clone(tenant), role: Arc::clone(role), key: Some(Arc::clone(key)), token_scope: None })
    }

    /// Whom a verified token speaks for: a tenant, in a role of its own or the tenant's, within a scope.
    ///
    /// # Errors
    /// `permission_denied` where tenant or role are not here.
    pub fn vouched(&self, tenant: &str, role: Option<&str>, scope: &Arc<Scope>) -> Result<Caller, Failure> {
        let tenant = self
            .tenant(tenant)
            .ok_or_else(|| Failure::new(Code::PermissionDenied, "The tenant that your token names is not known here: ask the operator"))?;
        let role = role.map_or(tenant.role.as_ref(), |name| self.role(name)).ok_or_else(no_role)?;
        Ok(Caller { tenant: Arc::clone(tenant), role: Arc::clone(role), key: None, token_scope: Some(Arc::clone(scope)) })
    }

    /// Who left work here to be done later, with the rights that they have now: who came with a key, those of the key and of its
    /// tenant's role; who came with a token, those of the `role` and the `scope` that it gave them. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// `permission_denied` where tenant, role or key are not here any more; `key_blocked`, `key_expired`.
    pub fn acting(&self, tenant: &str, role: &str, key: Option<&str>, scope: Option<Arc<Scope>>, now: u64) -> Result<Caller, Failure> {
        let gone = || Failure::new(Code::PermissionDenied, "The tenant that left this work is not here any more: ask the operator");
        let tenant = self.tenant(tenant).ok_or_else(gone)?;
        let key = key.map(|id| self.key_in_force(id, now)).transpose()?;
        let role = if key.is_some() { tenant.role.as_ref() } else { self.role(role) }.ok_or_else(no_role)?;
        Ok(Caller { tenant: Arc::clone(tenant), role: Arc::clone(role), key: key.cloned(), token_scope: scope })
    }

    pub fn tenant(&self, name: &str) -> Option<&Arc<Tenant>> {
        self.tenants.get(name)
    }

    pub fn role(&self, name: &str) -> Option<&Arc<Role>> {
        self.roles.get(name).map(|(_, role)| role)
    }

    pub fn key(&self, id: KeyId) -> Option<&Arc<Key>> {
        self.keys.get(&id)
    }

    /// The limits of a key by itself, by the id that it has in logs and envelopes. `None`: it has none, or is not here.
    pub fn quota_of_key(&self, id: &str) -> Option<&Arc<Quota>> {
        let issued = KeyId::parse(id).and_then(|id| self.key(id)).map(|key| &key.quota);
        issued.or_else(|| self.literal_quotas.get(id)).filter(|quota| !quota.is_unlimited())
    }

    pub fn tenants(&self) -> impl Iterator<Item = &Arc<Tenant>> {
        self.tenants.values()
    }

    pub fn roles(&self) -> impl Iterator<Item = (Source, &Arc<Role>)> {
        self.roles.values().map(|(source, role)| (*source, role))
    }

    /// Those issued and those of the file.
    pub fn keys(&self) -> impl Iterator<Item = &Arc<Key>> {
        self.keys.values().chain(self.literals.iter())
    }

    /// The key of an id as logs and records have it: an issued one, or one of the file, whose ids outlive a restart.
    fn key_in_force(&self, id: &str, now: u64) -> Result<&Arc<Key>, Failure> {
        let issued = KeyId::parse(id).and_then(|id| self.key(id));
        let key = issued.or_else(|| self.literals.iter().find(|key| *key.id == *id));
        in_force(key.ok_or_else(deleted)?, now)
    }

    /// The issued key of this text, if its secret is right.
    fn issued(&self, credential: &[u8], now: u64) -> Result<Option<&Arc<Key>>, Failure> {
        let (Some(id), Some(peppers)) = (key::id_of(credential), &self.peppers) else { return Ok(None) };
        let key = self.keys.get(&id);
        let Some(digest) = peppers.find(credential, key.map_or(&[], |key| &key.digests)) else { return Ok(None) };
        if digest.until.is_some_and(|end| end <= now) { Err(expired()) } else { Ok(key) }
    }

    /// Puts a tenant in, with what its role adds.
    fn enter(&mut self, record: TenantRecord, source: Source) {
        let name: Arc<str> = self.tenant(&record.name).map_or_else(|| record.name.as_str().into(), |tenant| Arc::clone(&tenant.name));
        let role = self.role(record.role.as_deref().unwrap_or(DEFAULT_ROLE)).cloned();
        let quota = Arc::new(role.as_ref().map_or_else(|| record.quota.clone(), |role| record.quota.or(&role.quota)));
        self.tenants.insert(Arc::clone(&name), Arc::new(Tenant { name, role, quota, record, source }));
    }

    fn of_file(&self, tenant: &str, key: &config::TenantKey) -> Key {
        Key {
            id: format!("{tenant}/{}", key.name).into(),
            name: key.name.as_str().into(),
            tenant: self.name_of(tenant),
            scope: key.scope.clone(),
            quota: self.quota_of(&key.quota),
            expires_at: key.expires_at,
            blocked: false,
            created_at: 0,
            source: Source::File,
            digests: Box::default(),
        }
    }

    /// The tenant's own copy of its name, if it is here: a tenant of many keys need not keep many.
    fn name_of(&self, tenant: &str) -> Arc<str> {
        self.tenant(tenant).map_or_else(|| tenant.into(), |tenant| Arc::clone(&tenant.name))
    }

    fn quota_of(&self, quota: &Quota) -> Arc<Quota> {
        if *quota == *self.unlimited { Arc::clone(&self.unlimited) } else { Arc::new(quota.clone()) }
    }
}

/// A key, unless it is blocked or has expired.
fn in_force(key: &Arc<Key>, now: u64) -> Result<&Arc<Key>, Failure> {
    if key.blocked {
        return Err(blocked());
    }
    if key.expires_at.is_some_and(|end| end <= now) { Err(expired()) } else { Ok(key) }
}

fn nobodys() -> Failure {
    Failure::new(Code::InvalidApiKey, "This API key is not known here: check it")
}

fn blocked() -> Failure {
    Failure::new(Code::KeyBlocked, "This API key is blocked: ask whoever gave it to you")
}

fn expired() -> Failure {
    Failure::new(Code::KeyExpired, "This API key has expired: use its successor, or ask for a new one")
}

fn deleted() -> Failure {
    Failure::new(Code::PermissionDenied, "The API key that left this work is not here any more: submit it again with another one")
}

fn no_role() -> Failure {
    Failure::new(Code::PermissionDenied, "Your role is not defined here: ask the operator")
}

#[cfg(test)]
mod tests;
