//! edge: tokens of other issuers (JWT, RFC 7519) in place of keys. In the order in which a token meets them: `cache.rs`
//! (seen before), `unverified.rs` (whose it claims to be), `issuer.rs` with `source.rs` (that issuer's keys), `keyset.rs`
//! (the one it was signed with), `claims.rs` (what it says).

mod cache;
mod claims;
mod issuer;
mod keyset;
mod source;
mod unverified;

pub(crate) use claims::Verified;
pub use source::SourceError;
pub(crate) use unverified::is_token;

use cache::Cache;
use issuer::Issuer;
use shared::config;
use shared::error::{Code, Failure};
use std::sync::Arc;
use unverified::Unverified;

/// All issuers whose tokens are accepted.
pub(crate) struct Tokens {
    issuers: Vec<Issuer>,
    cache: Cache,
}

impl Tokens {
    /// Begins to fetch the issuers' keys. `secret` is random and lives no longer than the process.
    ///
    /// # Errors
    /// A source that cannot be asked at all.
    pub(crate) fn start(issuers: &[config::Issuer], secret: [u8; 32]) -> Result<Self, SourceError> {
        let issuers = issuers.iter().map(Issuer::start).collect::<Result<_, _>>()?;
        Ok(Self { issuers, cache: Cache::new(secret) })
    }

    /// What a token says, if it was verified before and nothing has changed since. `now` is in seconds since 1970.
    pub(crate) fn seen(&self, token: &[u8], now: u64) -> Option<Arc<Verified>> {
        self.cache.get(token, now, |issuer| self.issuers[issuer].generation())
    }

    /// What a token says, verified. Waits for its issuer's keys where those at hand do not have the one it names.
    ///
    /// # Errors
    /// `invalid_token`, `token_expired`, `issuer_unavailable`.
    pub(crate) async fn verify(&self, token: &[u8], now: u64) -> Result<Arc<Verified>, Failure> {
        let unverified = Unverified::parse(token)?;
        let index = self.issuers.iter().position(|issuer| issuer.is_named(&unverified.issuer));
        let index = index.ok_or_else(|| invalid("The issuer of the token is not known here: use a token of one that is"))?;
        let issuer = &self.issuers[index];
        let (key, generation) = issuer.key(&unverified).await?;
        let verified = Arc::new(issuer.claims().read(token, &unverified, &key, now)?);
        self.cache.insert(token, index, generation, Arc::clone(&verified), now);
        Ok(verified)
    }
}

fn invalid(message: &str) -> Failure {
    Failure::new(Code::InvalidToken, message)
}

#[cfg(test)]
mod tests;
