//! core: who is calling. Keys are held as keyed hashes only, looked up by a part of the hash and compared in constant time.

use http::{HeaderMap, HeaderValue, header};
use shared::config::Tenant;
use shared::error::{Code, Failure};
use std::collections::HashMap;
use subtle::ConstantTimeEq;

const API_KEY: &str = "x-api-key";

/// An index into the configured tenants.
pub(crate) type TenantIndex = usize;

type Digest = [u8; 32];

/// The keys of all tenants, hashed under a secret that lives no longer than the process, so that neither memory nor
/// timing tells one.
pub(crate) struct Keys {
    secret: [u8; 32],
    by_prefix: HashMap<u64, Vec<(Digest, TenantIndex)>>,
}

impl Keys {
    pub(crate) fn new(tenants: &[Tenant], secret: [u8; 32]) -> Self {
        let mut keys = Self { secret, by_prefix: HashMap::new() };
        for (index, tenant) in tenants.iter().enumerate() {
            for key in &tenant.keys {
                let digest = keys.digest(key.expose().as_bytes());
                keys.by_prefix.entry(prefix(&digest)).or_default().push((digest, index));
            }
        }
        keys
    }

    /// The tenant that a request's one credential belongs to.
    ///
    /// # Errors
    /// `multiple_credentials`, `missing_api_key` or `invalid_api_key`.
    pub(crate) fn identify(&self, headers: &HeaderMap) -> Result<TenantIndex, Failure> {
        let key = credential(headers)?;
        let digest = self.digest(key);
        let candidates = self.by_prefix.get(&prefix(&digest)).map_or(&[][..], Vec::as_slice);
        let found = candidates.iter().find(|(known, _)| bool::from(known.ct_eq(&digest)));
        found.map(|(_, tenant)| *tenant).ok_or_else(|| Failure::new(Code::InvalidApiKey, "This API key is not known here: check it"))
    }

    fn digest(&self, key: &[u8]) -> Digest {
        *blake3::keyed_hash(&self.secret, key).as_bytes()
    }
}

fn prefix(digest: &Digest) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *digest;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// The key of a request: `Authorization: Bearer KEY` or `x-api-key: KEY`, one of them, once.
fn credential(headers: &HeaderMap) -> Result<&[u8], Failure> {
    let bearers = headers.get_all(header::AUTHORIZATION).iter().map(bearer);
    let keys = headers.get_all(API_KEY).iter().map(|value| Some(value.as_bytes()));
    let mut all = bearers.chain(keys);
    match (all.next(), all.next()) {
        (_, Some(_)) => Err(Failure::new(Code::MultipleCredentials, "Send one credential: Authorization or x-api-key, once")),
        (Some(Some(key)), None) if !key.is_empty() => Ok(key),
        _ => Err(Failure::new(Code::MissingApiKey, "Send an API key in the header Authorization: Bearer KEY")),
    }
}

fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, key) = value.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| key.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::config::Secret;

    fn keys() -> Keys {
        let tenant = |name: &str, keys: &[&str]| Tenant {
            name: name.into(),
            weight: 1,
            keys: keys.iter().map(|k| Secret::literal(k).unwrap()).collect(),
        };
        Keys::new(&[tenant("a", &["sk-aaaa", "sk-bbbb"]), tenant("b", &["sk-cccc"])], [7; 32])
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_key_leads_to_its_tenant_by_either_header() {
        let keys = keys();
        assert_eq!(keys.identify(&headers(&[("authorization", "Bearer sk-bbbb")])), Ok(0));
        assert_eq!(keys.identify(&headers(&[("authorization", "bearer  sk-cccc ")])), Ok(1));
        assert_eq!(keys.identify(&headers(&[("x-api-key", "sk-cccc")])), Ok(1));
    }

    #[test]
    fn each_bad_credential_has_its_code() {
        let cases: [(&[(&str, &str)], Code); 8] = [
            (&[], Code::MissingApiKey),
            (&[("authorization", "")], Code::MissingApiKey),
            (&[("authorization", "Bearer ")], Code::MissingApiKey),
            (&[("authorization", "Basic c2stYWFhYQ==")], Code::MissingApiKey),
            (&[("x-api-key", "")], Code::MissingApiKey),
            (&[("authorization", "Bearer sk-dddd")], Code::InvalidApiKey),
            (&[("authorization", "Bearer sk-aaaa"), ("x-api-key", "sk-aaaa")], Code::MultipleCredentials),
            (&[("authorization", "Bearer sk-aaaa"), ("authorization", "Bearer sk-aaaa")], Code::MultipleCredentials),
        ];
        for (pairs, code) in cases {
            let failure = keys().identify(&headers(pairs)).unwrap_err();
            assert_eq!(failure.code, code, "{pairs:?}");
            assert!(!failure.message.contains("sk-"), "a key is never repeated");
        }
    }
}
