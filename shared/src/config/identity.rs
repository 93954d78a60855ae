//! core: who may call, as the file says it. What is made of it is in `identity/`.

use super::{Secret, Webhook};
use crate::identity::{Scope, TenantRecord};
use crate::quota::Quota;
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Clone, Debug, Serialize)]
pub struct Tenant {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Share of a contended model, relative to the other tenants'.
    pub weight: u32,
    #[serde(rename = "limits")]
    pub quota: Quota,
    pub keys: Vec<TenantKey>,
    /// Who is told when this tenant's deferred work has ended.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub webhooks: Vec<Webhook>,
}

impl Tenant {
    /// One that has this key and is limited in nothing.
    pub fn unlimited(name: &str, key: Secret) -> Self {
        let key = TenantKey { name: "1".to_owned(), secret: key, scope: Scope::default(), quota: Quota::default(), expires_at: None };
        Self { name: name.to_owned(), role: None, weight: 1, quota: Quota::default(), keys: vec![key], webhooks: Vec::new() }
    }

    /// What it is apart from its keys.
    pub fn record(&self) -> TenantRecord {
        TenantRecord { name: self.name.clone(), role: self.role.clone(), weight: self.weight, quota: self.quota.clone() }
    }
}

/// A key that the file gives, by reference or literally.
#[derive(Clone, Debug, Serialize)]
pub struct TenantKey {
    /// Unique within the tenant; in logs. Unless given, the key's place among the tenant's.
    pub name: String,
    #[serde(rename = "key")]
    pub secret: Secret,
    pub scope: Scope,
    /// Limits of this key alone, beside its tenant's.
    #[serde(rename = "limits")]
    pub quota: Quota,
    /// Seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
}

/// The secrets under which issued keys are hashed.
#[derive(Clone, Debug, Serialize)]
pub struct PepperConfig {
    /// The version for keys issued from now on; one of `values`.
    pub current: u32,
    pub values: BTreeMap<u32, Secret>,
}
