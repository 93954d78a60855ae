//! core: whose tokens are accepted, and what they say about their bearers.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// An issuer of JWTs.
#[derive(Clone, Debug, Serialize)]
pub struct Issuer {
    /// What its tokens must say in `iss`.
    pub issuer: String,
    /// What they must say in `aud`.
    pub audience: String,
    pub jwks: JwksAt,
    /// What they may be signed with.
    pub algorithms: Vec<SignatureAlgorithm>,
    pub claims: ClaimNames,
    /// How far its clock may be from ours, in seconds.
    pub leeway_s: u64,
}

/// Where its keys are, as a JWK set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum JwksAt {
    /// `https://`, or `http://` on this machine.
    Url(String),
    File(PathBuf),
}

/// Signatures whose keys are public. With any other, who can verify a token can also make one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SignatureAlgorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    #[serde(rename = "EdDSA")]
    EdDsa,
}

/// How its tokens name what is known here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClaimNames {
    pub tenant: Naming,
    /// Absent, or not in a token: the tenant's role.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<Naming>,
    /// The claim with the words that narrow the role.
    pub scopes: String,
}

/// A name that a claim holds, or the same for all tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Naming {
    Claim(String),
    Fixed(String),
}

impl Default for ClaimNames {
    fn default() -> Self {
        Self { tenant: Naming::Claim("tenant".to_owned()), role: None, scopes: "scope".to_owned() }
    }
}
