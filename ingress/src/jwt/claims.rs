//! core: what a token must say to be accepted, and what it says of its bearer.

use super::invalid;
use super::unverified::Unverified;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde_json::{Map, Value};
use shared::config::{self, ClaimNames, Naming, SignatureAlgorithm};
use shared::domain::{Lane, Operation};
use shared::error::{Code, Failure};
use shared::identity::{Allowed, Pattern, Scope, Word};
use std::sync::Arc;

/// Whom a token speaks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Verified {
    pub(crate) tenant: Box<str>,
    /// `None`: the tenant's.
    pub(crate) role: Option<Box<str>>,
    pub(crate) scope: Arc<Scope>,
    /// The last second of its validity, since 1970, with the leeway.
    pub(super) until: u64,
}

/// An issuer's rules.
pub(super) struct ClaimRules {
    pub(super) issuer: Box<str>,
    audience: Box<str>,
    algorithms: Vec<Algorithm>,
    names: ClaimNames,
    leeway_s: u64,
}

type Claims = Map<String, Value>;

impl ClaimRules {
    pub(super) fn new(config: &config::Issuer) -> Self {
        Self {
            issuer: config.issuer.as_str().into(),
            audience: config.audience.as_str().into(),
            algorithms: config.algorithms.iter().copied().map(algorithm).collect(),
            names: config.claims.clone(),
            leeway_s: config.leeway_s,
        }
    }

    /// Whether this issuer signs so.
    pub(super) fn allow(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    /// Verifies a token's signature, then what it says. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// `invalid_token`, `token_expired`.
    pub(super) fn read(&self, token: &[u8], unverified: &Unverified, key: &DecodingKey, now: u64) -> Result<Verified, Failure> {
        let mut signature_only = Validation::new(unverified.algorithm);
        // Its clock is the system's; ours is an argument. So times, and the rest with them, are checked below.
        signature_only.validate_exp = false;
        signature_only.validate_aud = false;
        signature_only.required_spec_claims.clear();
        let decoded = decode::<Claims>(token, key, &signature_only);
        let claims = decoded.map_err(|_| invalid("The token was not signed with its issuer's key: ask for a new one"))?.claims;
        let until = self.check(&claims, now)?;
        let tenant = named(&claims, &self.names.tenant);
        let tenant = tenant.ok_or_else(|| invalid("The token does not name a tenant: ask its issuer for that claim"))?;
        let role = self.names.role.as_ref().and_then(|naming| named(&claims, naming)).map(Box::from);
        let scope = Arc::new(scope(&claims, &self.names.scopes));
        Ok(Verified { tenant: tenant.into(), role, scope, until })
    }

    /// `iss`, `aud` and `exp` must be there and right, `nbf` right where it is there. Returns the last second of validity.
    fn check(&self, claims: &Claims, now: u64) -> Result<u64, Failure> {
        if claims.get("iss").and_then(Value::as_str) != Some(&self.issuer) {
            return Err(invalid("The token is of another issuer than it said"));
        }
        if !words(claims.get("aud"), false).any(|audience| audience == &*self.audience) {
            return Err(invalid("The token is for another audience: ask for one for this server"));
        }
        let end = seconds(claims, "exp").ok_or_else(|| invalid("The token does not say when it expires: ask for one with `exp`"))?;
        let until = end.saturating_add(self.leeway_s);
        if until <= now {
            return Err(Failure::new(Code::TokenExpired, "The token has expired: ask its issuer for a new one"));
        }
        let begin = if claims.contains_key("nbf") { seconds(claims, "nbf") } else { Some(0) };
        if begin.is_none_or(|begin| begin > now.saturating_add(self.leeway_s)) {
            return Err(invalid("The token is not valid yet: wait until the time in its `nbf`"));
        }
        Ok(until)
    }
}

/// A time of RFC 7519: seconds since 1970, which may have a fraction.
fn seconds(claims: &Claims, name: &str) -> Option<u64> {
    let value = claims.get(name)?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a fraction of a second is not needed; a cast saturates")]
    value.as_u64().or_else(|| value.as_f64().filter(|s| *s >= 0.0).map(|s| s as u64))
}

fn named<'a>(claims: &'a Claims, naming: &'a Naming) -> Option<&'a str> {
    match naming {
        Naming::Fixed(name) => Some(name),
        // Some issuers write a single role as a list of one.
        Naming::Claim(claim) => match claims.get(claim)? {
            Value::String(name) => Some(name),
            Value::Array(list) => list.first().filter(|_| list.len() == 1)?.as_str(),
            _ => None,
        },
    }
}

/// The strings of a claim: a list of them, or one, which may hold several words.
fn words(claim: Option<&Value>, split: bool) -> impl Iterator<Item = &str> {
    let (one, list) = match claim {
        Some(Value::String(text)) => (Some(text.as_str()), &[][..]),
        Some(Value::Array(list)) => (None, &list[..]),
        _ => (None, &[][..]),
    };
    one.into_iter().flat_map(move |text| text.splitn(if split { usize::MAX } else { 1 }, ' ')).chain(list.iter().filter_map(Value::as_str))
}

/// What the words `models:PATTERN`, `endpoints:NAME` and `lanes:NAME` narrow the role to. Others mean something elsewhere.
fn scope(claims: &Claims, name: &str) -> Scope {
    let words = || words(claims.get(name), true);
    Scope {
        models: allowed::<Pattern>(words(), "models:"),
        endpoints: allowed::<Operation>(words(), "endpoints:"),
        lanes: allowed::<Lane>(words(), "lanes:"),
    }
}

/// All where no word begins so. A word that does and means nothing here still narrows: to nothing, if it is the only one.
fn allowed<'a, T: Word>(words: impl Iterator<Item = &'a str>, prefix: &str) -> Allowed<T> {
    let mut these = words.filter_map(|word| word.strip_prefix(prefix)).map(T::of_word).peekable();
    if these.peek().is_none() { Allowed::All } else { Allowed::These(these.flatten().collect()) }
}

const fn algorithm(of: SignatureAlgorithm) -> Algorithm {
    match of {
        SignatureAlgorithm::RS256 => Algorithm::RS256,
        SignatureAlgorithm::RS384 => Algorithm::RS384,
        SignatureAlgorithm::RS512 => Algorithm::RS512,
        SignatureAlgorithm::PS256 => Algorithm::PS256,
        SignatureAlgorithm::PS384 => Algorithm::PS384,
        SignatureAlgorithm::PS512 => Algorithm::PS512,
        SignatureAlgorithm::ES256 => Algorithm::ES256,
        SignatureAlgorithm::ES384 => Algorithm::ES384,
        SignatureAlgorithm::EdDsa => Algorithm::EdDSA,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn scope_of(claim: &Value) -> Scope {
        let claims = json!({ "scope": claim });
        scope(claims.as_object().unwrap(), "scope")
    }

    #[test]
    fn scopes_are_words_or_a_list_of_them_and_others_words_are_not_ours() {
        for claim in [json!("openid models:gpt-* models:m lanes:bulk"), json!(["models:gpt-*", "models:m", "lanes:bulk", "email"])] {
            let scope = scope_of(&claim);
            assert!(scope.models.matches("gpt-4o") && scope.models.matches("m") && !scope.models.matches("n"));
            assert!(scope.lanes.has(&Lane::Bulk) && !scope.lanes.has(&Lane::Interactive));
            assert!(scope.endpoints.is_all());
        }
        assert_eq!(scope_of(&json!("openid")), Scope::default());
        assert_eq!(scope_of(&json!(5)), Scope::default());
    }

    #[test]
    fn a_scope_that_means_nothing_here_permits_nothing() {
        let scope = scope_of(&json!("endpoints:images lanes:"));
        assert!(Operation::ALL.iter().all(|op| !scope.endpoints.has(op)));
        assert!(Lane::ALL.iter().all(|lane| !scope.lanes.has(lane)));
    }

    #[test]
    fn a_claim_names_one_thing_or_nothing() {
        let claims = json!({ "a": "x", "b": ["y"], "c": ["y", "z"], "d": 5 });
        let name = |claim: &str| named(claims.as_object().unwrap(), &Naming::Claim(claim.into())).map(str::to_owned);
        assert_eq!([name("a"), name("b"), name("c"), name("d"), name("e")], [Some("x".into()), Some("y".into()), None, None, None]);
    }
}
