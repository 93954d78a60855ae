//! core: what a token says before anybody has verified it: only good to find the key that may.

use super::invalid;
use jsonwebtoken::dangerous::insecure_decode_claims;
use jsonwebtoken::{Algorithm, decode_header};
use serde::Deserialize;
use shared::error::Failure;

/// What identity providers issue stays below half of it.
const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// Whether a credential has a token's form: three parts, of which the first is a JSON object in base64url.
pub(crate) fn is_token(credential: &[u8]) -> bool {
    credential.starts_with(b"eyJ") && credential.iter().filter(|byte| **byte == b'.').count() == 2
}

#[derive(Debug)]
pub(super) struct Unverified {
    pub(super) algorithm: Algorithm,
    /// Which of the issuer's keys it was signed with.
    pub(super) key_id: Option<String>,
    pub(super) issuer: String,
}

#[derive(Deserialize)]
struct Issued {
    iss: String,
}

impl Unverified {
    /// # Errors
    /// `invalid_token`; among others for `none`, which is no algorithm.
    pub(super) fn parse(token: &[u8]) -> Result<Self, Failure> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(invalid("The token is too long: use one with fewer claims"));
        }
        let header = decode_header(token).map_err(|_| malformed())?;
        if header.crit.is_some() {
            return Err(invalid("The token uses an extension that is not known here: use one without `crit`"));
        }
        let Issued { iss } = insecure_decode_claims(token).map_err(|_| malformed())?;
        Ok(Self { algorithm: header.alg, key_id: header.kid, issuer: iss })
    }
}

fn malformed() -> Failure {
    invalid("The token cannot be read: send a signed JWT with `alg` and `iss`")
}
