//! core: who a request comes from, and what they may do: their role's rights, narrowed by their credential's scope.

use super::directory::Source;
use super::objects::{Admin, Digest, Role, Scope, TenantRecord};
use crate::domain::{Lane, Operation};
use crate::error::{Code, Failure};
use crate::quota::Quota;
use std::sync::Arc;

/// A tenant with what its role adds.
#[derive(Clone, Debug)]
pub struct Tenant {
    pub name: Arc<str>,
    /// `None`: it names a role that is not there, and may do nothing.
    pub role: Option<Arc<Role>>,
    /// Its own limits and, where it has none, its role's.
    pub quota: Arc<Quota>,
    /// As it was written.
    pub record: TenantRecord,
    pub source: Source,
}

/// A key without its text.
#[derive(Clone, Debug)]
pub struct Key {
    /// Safe to log: of an issued key its id, of one in the file `TENANT/NAME` or `TENANT/PLACE`.
    pub id: Arc<str>,
    pub name: Box<str>,
    pub tenant: Arc<str>,
    pub scope: Scope,
    pub quota: Arc<Quota>,
    /// Seconds since 1970.
    pub expires_at: Option<u64>,
    pub blocked: bool,
    /// Seconds since 1970; zero for a key of the file.
    pub created_at: u64,
    pub source: Source,
    pub(super) digests: Box<[Digest]>,
}

/// Who a request comes from.
#[derive(Clone, Debug)]
pub struct Caller {
    pub tenant: Arc<Tenant>,
    /// The tenant's role, or the one that a token names.
    pub role: Arc<Role>,
    /// `None`: they came with a token.
    pub key: Option<Arc<Key>>,
    /// What a token narrows its role to.
    pub(super) token_scope: Option<Arc<Scope>>,
}

impl Caller {
    /// Whether they may call this endpoint and wait in this lane.
    ///
    /// # Errors
    /// `permission_denied`.
    pub fn may_call(&self, op: Operation, lane: Lane) -> Result<(), Failure> {
        if !self.role.endpoints.has(&op) || !self.scope().is_none_or(|scope| scope.endpoints.has(&op)) {
            let message = format!("Your key or role does not permit /v1/{}: use one that does", op.path());
            return Err(Failure::new(Code::PermissionDenied, message));
        }
        if !self.role.lanes.has(&lane) || !self.scope().is_none_or(|scope| scope.lanes.has(&lane)) {
            let message = format!("Your key or role does not permit {} requests: use one that does", lane.as_str());
            return Err(Failure::new(Code::PermissionDenied, message));
        }
        Ok(())
    }

    /// Whether this model is there for them. One that is not must be answered like one that does not exist.
    pub fn may_use(&self, model: &str) -> bool {
        self.role.models.matches(model) && self.scope().is_none_or(|scope| scope.models.matches(model))
    }

    /// What their credential narrows their role to, for work that is done later.
    pub fn narrowed_to(&self) -> Option<Scope> {
        self.scope().cloned()
    }

    /// Their role's rights in the administration. A credential that is narrowed in anything has none: what it may not do
    /// itself, it could give itself there.
    pub fn admin(&self) -> Admin {
        if self.scope().is_some_and(|scope| *scope != Scope::default()) { Admin::None } else { self.role.admin }
    }

    fn scope(&self) -> Option<&Scope> {
        self.key.as_ref().map(|key| &key.scope).or(self.token_scope.as_deref())
    }
}
