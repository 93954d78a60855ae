//! core: an issuer's public keys, from its JWK set (RFC 7517).

use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::sync::Arc;

/// An issuer has one key in use and a few that come or go.
const KEYS_MAX: usize = 64;

#[derive(Default)]
pub(super) struct KeySet {
    keys: Vec<PublicKey>,
}

struct PublicKey {
    id: Option<String>,
    /// `None`: any of its family.
    algorithm: Option<KeyAlgorithm>,
    key: Arc<DecodingKey>,
}

#[derive(Deserialize)]
struct JwkSet<'a> {
    /// Each for itself, so that one of an unknown kind takes no other with it.
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum KeySetError {
    #[error("it is no JWK set")]
    Malformed,
    #[error("there is no public key for signatures among its first {KEYS_MAX}")]
    NoKeys,
}

impl KeySet {
    /// # Errors
    /// No JSON of that form, or nothing of use in it.
    pub(super) fn parse(json: &[u8]) -> Result<Self, KeySetError> {
        let set: JwkSet<'_> = serde_json::from_slice(json).map_err(|_| KeySetError::Malformed)?;
        let keys: Vec<_> = set.keys.iter().take(KEYS_MAX).filter_map(|raw| PublicKey::parse(raw)).collect();
        if keys.is_empty() { Err(KeySetError::NoKeys) } else { Ok(Self { keys }) }
    }

    /// The key of this id or, for a token without one, the only key there is, if it is for this algorithm.
    pub(super) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<&Arc<DecodingKey>> {
        let fits = |key: &&PublicKey| key.is_for(algorithm);
        let found = match (id, &self.keys[..]) {
            (Some(id), keys) => keys.iter().filter(fits).find(|key| key.id.as_deref() == Some(id)),
            (None, [only]) => Some(only).filter(fits),
            (None, _) => None,
        };
        found.map(|key| &key.key)
    }
}

impl PublicKey {
    /// `None` for what does not verify signatures, and for secrets, which have no place in a public set.
    fn parse(raw: &RawValue) -> Option<Self> {
        let jwk: Jwk = serde_json::from_str(raw.get()).ok()?;
        let is_for_signatures = jwk.common.public_key_use.as_ref().is_none_or(|used| *used == PublicKeyUse::Signature);
        let is_secret = matches!(jwk.algorithm, AlgorithmParameters::OctetKey(_));
        if !is_for_signatures || is_secret {
            return None;
        }
        let key = Arc::new(DecodingKey::from_jwk(&jwk).ok()?);
        Some(Self { id: jwk.common.key_id, algorithm: jwk.common.key_algorithm, key })
    }

    fn is_for(&self, algorithm: Algorithm) -> bool {
        self.key.family() == algorithm.family() && self.algorithm.is_none_or(|own| own == algorithm.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(keys: &[&str]) -> Result<KeySet, KeySetError> {
        KeySet::parse(format!(r#"{{"keys":[{}]}}"#, keys.join(",")).as_bytes())
    }

    const ED: &str = r#"{"kty":"OKP","crv":"Ed25519","kid":"ed","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    const EC: &str = r#"{"kty":"EC","crv":"P-256","kid":"ec","alg":"ES256","x":"AA","y":"AA"}"#;

    #[test]
    fn a_key_is_found_by_its_id_for_its_own_algorithm_only() {
        let set = set(&[ED, EC, r#"{"kty":"new"}"#]).unwrap();
        assert!(set.find(Some("ed"), Algorithm::EdDSA).is_some());
        assert!(set.find(Some("ec"), Algorithm::ES256).is_some());
        for (id, algorithm) in [("ed", Algorithm::ES256), ("ec", Algorithm::ES384), ("ed", Algorithm::HS256), ("x", Algorithm::EdDSA)] {
            assert!(set.find(Some(id), algorithm).is_none(), "{id} {algorithm:?}");
        }
        assert!(set.find(None, Algorithm::EdDSA).is_none(), "there are two to choose from");
    }

    #[test]
    fn a_token_without_a_key_id_means_the_only_key() {
        assert!(set(&[ED]).unwrap().find(None, Algorithm::EdDSA).is_some());
    }

    #[test]
    fn secrets_and_keys_for_encryption_are_passed_over() {
        let secret = r#"{"kty":"oct","kid":"s","k":"AAAA"}"#;
        let encryption = ED.replace("\"kid\"", "\"use\":\"enc\",\"kid\"");
        assert_eq!(set(&[secret, &encryption]).err(), Some(KeySetError::NoKeys));
        assert_eq!(KeySet::parse(b"<html>").err(), Some(KeySetError::Malformed));
    }
}
