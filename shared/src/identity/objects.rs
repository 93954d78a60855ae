//! core: roles, tenants and keys as they are written: in the configuration file, and as JSON in the store.

use super::allowed::Allowed;
use super::key::KeyId;
use super::pattern::Pattern;
use crate::domain::{Lane, Operation};
use crate::quota::Quota;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The role of a tenant that names none. Unless the file defines it, it permits every call and no administration.
pub const DEFAULT_ROLE: &str = "default";

/// What several tenants may do alike.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Role {
    pub name: String,
    #[serde(default, skip_serializing_if = "Allowed::is_all")]
    pub models: Allowed<Pattern>,
    #[serde(default, skip_serializing_if = "Allowed::is_all")]
    pub endpoints: Allowed<Operation>,
    #[serde(default, skip_serializing_if = "Allowed::is_all")]
    pub lanes: Allowed<Lane>,
    #[serde(default)]
    pub admin: Admin,
    /// The limits of a tenant that has none of its own.
    #[serde(default, rename = "limits")]
    pub quota: Quota,
}

/// Rights in the administration. Each includes the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Admin {
    #[default]
    None,
    Read,
    Write,
}

/// Who is served and counted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantRecord {
    pub name: String,
    /// Absent: [`DEFAULT_ROLE`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Share of a contended model, relative to the other tenants'.
    #[serde(default = "one")]
    pub weight: u32,
    /// Where a limit is absent, the role's holds.
    #[serde(default, rename = "limits")]
    pub quota: Quota,
}

/// An issued key: all that is kept of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRecord {
    pub id: KeyId,
    /// For people: what the key is for.
    #[serde(default)]
    pub name: String,
    pub tenant: String,
    /// The one in force and, while a rotation overlaps, the one before.
    pub digests: Vec<Digest>,
    #[serde(default)]
    pub scope: Scope,
    /// Limits of this key alone, beside its tenant's.
    #[serde(default, rename = "limits")]
    pub quota: Quota,
    /// Seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
    #[serde(default)]
    pub blocked: bool,
    /// Seconds since 1970.
    pub created_at: u64,
}

/// What is kept of a key's text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Digest {
    /// The version of the pepper it was made with.
    pub pepper: u32,
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub hash: [u8; 32],
    /// Rotated out: valid until then, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
}

/// What a credential is for. It narrows its tenant's role and never widens it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scope {
    #[serde(skip_serializing_if = "Allowed::is_all")]
    pub models: Allowed<Pattern>,
    #[serde(skip_serializing_if = "Allowed::is_all")]
    pub endpoints: Allowed<Operation>,
    #[serde(skip_serializing_if = "Allowed::is_all")]
    pub lanes: Allowed<Lane>,
}

impl Role {
    /// What a tenant's role is unless it or the file says otherwise.
    pub fn built_in() -> Self {
        Self { name: DEFAULT_ROLE.to_owned(), ..Self::default() }
    }

    /// # Errors
    /// What is wrong, in words.
    pub fn check(&self) -> Result<(), String> {
        check_name(&self.name).map_err(|why| format!("name: {why}"))?;
        check_limits(&self.quota)
    }
}

impl TenantRecord {
    /// # Errors
    /// What is wrong, in words.
    pub fn check(&self) -> Result<(), String> {
        check_name(&self.name)?;
        if self.weight == 0 || self.weight > WEIGHT_MAX {
            return Err(format!("weight: from 1 to {WEIGHT_MAX}"));
        }
        check_limits(&self.quota)
    }
}

impl KeyRecord {
    /// # Errors
    /// What is wrong, in words.
    pub fn check(&self) -> Result<(), String> {
        check_name(&self.tenant).map_err(|why| format!("tenant: {why}"))?;
        if self.name.len() > NAME_LEN_MAX || self.name.chars().any(char::is_control) {
            return Err(format!("name: use up to {NAME_LEN_MAX} bytes of text"));
        }
        if self.digests.is_empty() || self.digests.len() > DIGESTS_MAX {
            return Err(format!("digests: from 1 to {DIGESTS_MAX}"));
        }
        check_limits(&self.quota)
    }
}

/// Names show in headers, logs and metric labels: visible, and short.
///
/// # Errors
/// What is wrong, in words.
pub fn check_name(name: &str) -> Result<(), String> {
    let is_sound = (1..=NAME_LEN_MAX).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic());
    if is_sound { Ok(()) } else { Err(format!("use 1 to {NAME_LEN_MAX} visible ASCII characters, without spaces")) }
}

/// Limits are counted in integers of a certain size; a burst stands beside its rate.
///
/// # Errors
/// What is wrong, in words.
pub fn check_limits(quota: &Quota) -> Result<(), String> {
    quota.check().map_err(|why| format!("limits.{why}"))
}

const NAME_LEN_MAX: usize = 128;
const WEIGHT_MAX: u32 = 10_000;
/// The secret in force, and those of rotations whose overlap has not ended. Each costs a wrong key one HMAC.
const DIGESTS_MAX: usize = 4;

const fn one() -> u32 {
    1
}

fn to_base64<S: Serializer>(hash: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&BASE64_URL_SAFE_NO_PAD.encode(hash))
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(String::deserialize(deserializer)?).ok();
    let hash = bytes.and_then(|bytes| bytes.try_into().ok());
    hash.ok_or_else(|| serde::de::Error::custom("a hash is 32 bytes in base64url without padding"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_record_reads_what_it_wrote() {
        let json = r#"{"id":"0123456789","name":"ci","tenant":"search",
            "digests":[{"pepper":1,"hash":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","until":9}],
            "scope":{"models":["gpt-*"],"lanes":["bulk"]},"limits":{"requests_per_minute":5},"blocked":true,"created_at":7}"#;
        let record: KeyRecord = serde_json::from_str(json).unwrap();
        assert_eq!(record.digests[0].hash, [0; 32]);
        assert_eq!((record.quota.requests_per_minute, record.blocked), (Some(5), true));
        let again = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<KeyRecord>(&again).unwrap(), record);
    }

    #[test]
    fn an_unknown_field_is_refused_in_every_object() {
        for json in [r#"{"name":"r","modles":[]}"#, r#"{"name":"r","limits":{"rpm":1}}"#] {
            assert!(serde_json::from_str::<Role>(json).is_err(), "{json}");
        }
        assert!(serde_json::from_str::<TenantRecord>(r#"{"name":"t","keys":[]}"#).is_err());
        assert!(serde_json::from_str::<Scope>(r#"{"admin":"write"}"#).is_err());
    }
}
