//! edge: the file's `tenants` with their keys, and their conversion.

use super::webhooks::FileWebhook;
use super::{Reader, literal_key};
use crate::config::{ConfigError, Secret, Tenant, TenantKey, WebhookPolicy};
use crate::domain::{Lane, Operation};
use crate::identity::{Allowed, DEFAULT_ROLE, Pattern, Role, Scope, check_limits, check_name};
use crate::quota::Quota;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_saphyr::Spanned;
use std::collections::HashSet;
use std::fmt;

/// A bound of what every replica holds in memory and every metric may be labelled with.
const TENANTS_MAX: usize = 100_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileTenant {
    name: Spanned<String>,
    role: Option<String>,
    #[serde(default = "one")]
    weight: u32,
    #[serde(default)]
    limits: Quota,
    #[serde(default)]
    keys: Vec<Spanned<FileKey>>,
    #[serde(default)]
    webhooks: Vec<Spanned<FileWebhook>>,
}

/// A reference alone, or one with what it is for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFields {
    key: String,
    name: Option<String>,
    #[serde(default)]
    models: Allowed<Pattern>,
    #[serde(default)]
    endpoints: Allowed<Operation>,
    #[serde(default)]
    lanes: Allowed<Lane>,
    #[serde(default)]
    limits: Quota,
    expires_at: Option<u64>,
}

struct FileKey(KeyFields);

const fn one() -> u32 {
    1
}

impl Reader<'_> {
    pub(super) fn tenants(
        &self,
        files: Vec<FileTenant>,
        roles: &[Role],
        policy: &WebhookPolicy,
        warnings: &mut Vec<String>,
    ) -> Result<Vec<Tenant>, ConfigError> {
        let mut names = HashSet::new();
        let mut secrets = HashSet::new();
        let mut tenants = Vec::with_capacity(files.len());
        for file in files {
            let name = self.name(&file.name, "tenants[].name")?;
            if !names.insert(name.clone()) {
                return Err(self.at(&file.name, format!("tenants[].name: `{name}` is there twice")));
            }
            if tenants.len() == TENANTS_MAX {
                return Err(self.at(&file.name, format!("tenants: more than {TENANTS_MAX}")));
            }
            let keys = self.keys(&name, file.keys, &mut secrets, warnings)?;
            let webhooks = self.webhooks(&name, file.webhooks, policy, warnings)?;
            let tenant = Tenant { name, role: file.role, weight: file.weight, quota: file.limits, keys, webhooks };
            tenant.record().check().map_err(|why| self.at(&file.name, format!("tenants[] `{}`: {why}", tenant.name)))?;
            warnings.extend(absent_role(&tenant, roles));
            tenants.push(tenant);
        }
        Ok(tenants)
    }

    fn keys(
        &self,
        tenant: &str,
        files: Vec<Spanned<FileKey>>,
        secrets: &mut HashSet<String>,
        warnings: &mut Vec<String>,
    ) -> Result<Vec<TenantKey>, ConfigError> {
        let mut names = HashSet::new();
        let mut keys = Vec::with_capacity(files.len());
        for (place, file) in files.into_iter().enumerate() {
            let refused = |why: String| self.error(file.referenced.line(), format!("tenants[].keys of `{tenant}`: {why}"));
            let KeyFields { key, name, models, endpoints, lanes, limits, expires_at } = file.value.0;
            let secret = Secret::resolve(&key).map_err(refused)?;
            if !secrets.insert(secret.expose().to_owned()) {
                return Err(refused("this key is there twice".to_owned()));
            }
            let name = name.unwrap_or_else(|| (place + 1).to_string());
            check_name(&name).map_err(|why| refused(format!("name: {why}")))?;
            check_limits(&limits).map_err(refused)?;
            if !names.insert(name.clone()) {
                return Err(refused(format!("the name `{name}` is there twice")));
            }
            if Secret::is_literal(&key) {
                warnings.push(literal_key(&format!("tenant `{tenant}`")));
            }
            keys.push(TenantKey { name, secret, scope: Scope { models, endpoints, lanes }, quota: limits, expires_at });
        }
        Ok(keys)
    }
}

/// A role may also be one of the store's, so its absence here is no error.
fn absent_role(tenant: &Tenant, roles: &[Role]) -> Option<String> {
    let role = tenant.role.as_deref().filter(|role| *role != DEFAULT_ROLE && !roles.iter().any(|known| known.name == *role))?;
    Some(format!(
        "tenant `{}` has the role `{role}`, which is not in this file: until the store has it, the tenant may do nothing",
        tenant.name
    ))
}

impl From<String> for FileKey {
    fn from(key: String) -> Self {
        let all = Scope::default();
        let (models, endpoints, lanes) = (all.models, all.endpoints, all.lanes);
        Self(KeyFields { key, name: None, models, endpoints, lanes, limits: Quota::default(), expires_at: None })
    }
}

// By hand, because what is derived for "a string or a map" repeats the value in its errors, and this one is a key.
impl<'de> Deserialize<'de> for FileKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KeyVisitor)
    }
}

struct KeyVisitor;

impl<'de> Visitor<'de> for KeyVisitor {
    type Value = FileKey;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("env:NAME, file:PATH, a key, or a map with `key`")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<FileKey, E> {
        Ok(text.to_owned().into())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<FileKey, A::Error> {
        KeyFields::deserialize(MapAccessDeserializer::new(map)).map(FileKey)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<FileKey, E> {
        Err(unquoted())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<FileKey, E> {
        Err(unquoted())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<FileKey, E> {
        Err(unquoted())
    }
}

fn unquoted<E: Error>() -> E {
    E::custom("keys: one that looks like a number must stand in quotes")
}

#[cfg(test)]
mod tests {
    use crate::config::parse;
    use crate::identity::Admin;

    #[test]
    fn a_key_is_a_reference_alone_or_one_with_what_it_is_for() {
        let yaml = "
roles:
  - { name: free, models: [ 'gpt-*' ], admin: read, limits: { requests_per_minute: 60 } }
tenants:
  - name: search
    role: free
    limits: { concurrency: 2 }
    keys:
      - sk-plain-1
      - { key: sk-named-1, name: ci, models: [ gpt-4o ], endpoints: [ chat ], lanes: [ bulk ], limits: { requests_per_minute: 5 }, expires_at: 1800000000 }
      - '12345678'
";
        let config = parse(yaml, "f").unwrap();
        assert_eq!((config.roles[0].admin, config.roles[0].quota.requests_per_minute), (Admin::Read, Some(60)));
        let keys = &config.tenants[0].keys;
        assert_eq!(keys.iter().map(|key| key.name.as_str()).collect::<Vec<_>>(), ["1", "ci", "3"]);
        assert!(keys[1].scope.models.matches("gpt-4o") && !keys[1].scope.models.matches("gpt-4"));
        assert_eq!((keys[1].expires_at, keys[1].quota.requests_per_minute), (Some(1_800_000_000), Some(5)));
        assert_eq!(keys[2].secret.expose(), "12345678");
    }

    #[test]
    fn what_is_wrong_with_tenants_roles_and_peppers_is_named_with_its_line_and_no_key() {
        let cases = [
            ("tenants:\n- name: t\n  keys:\n  - { key: sk-canary-1, nmae: x }\n", 4, "nmae"),
            ("tenants:\n- name: t\n  keys:\n  - 1234567890\n", 4, "quotes"),
            ("tenants:\n- name: t\n  keys:\n  - { key: sk-canary-1, name: x }\n  - { key: sk-canary-2, name: x }\n", 5, "twice"),
            ("tenants:\n- name: t\n  keys:\n  - { key: sk-canary-1, models: [ 'a*b' ] }\n", 4, "models"),
            ("tenants:\n- name: t\n  weight: 0\n", 2, "weight"),
            ("roles:\n- name: r\n- name: r\n", 3, "twice"),
            ("roles:\n- name: r\n  lanes: [ fast ]\n", 3, "lanes"),
            ("peppers: { current: 2, values: { 1: 'env:PATH' } }\n", 1, "peppers.current"),
            ("peppers: { current: 1, values: { 1: canary-of-thirty-two-characters-12 } }\n", 1, "env:NAME"),
        ];
        for (yaml, line, word) in cases {
            let error = parse(yaml, "f").unwrap_err();
            assert_eq!(error.line, line, "{yaml}\n{error}");
            assert!(error.what.contains(word) && !error.what.contains("canary") && !error.what.contains("1234567890"), "{error}");
        }
    }

    #[test]
    fn a_role_that_the_file_lacks_is_warned_of() {
        let config = parse("tenants: [{ name: t, role: paid }, { name: u, role: default }]", "f").unwrap();
        assert_eq!(config.warnings.len(), 1);
        assert!(config.warnings[0].contains("paid"));
    }
}
