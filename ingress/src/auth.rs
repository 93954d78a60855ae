//! edge: who is calling: the one credential of a request's headers, a key or a token, looked up in the directory of the moment.

use crate::jwt::{Tokens, Verified, is_token};
use http::{HeaderMap, HeaderValue, header};
use shared::clock;
use shared::error::{Code, Failure};
use shared::identity::{Caller, LiveDirectory};
use std::sync::Arc;

const API_KEY: &str = "x-api-key";

pub(crate) struct Auth {
    directory: Arc<LiveDirectory>,
    /// `None`: no issuer is configured, and a token is a key like any other.
    tokens: Option<Tokens>,
}

impl Auth {
    pub(crate) const fn new(directory: Arc<LiveDirectory>, tokens: Option<Tokens>) -> Self {
        Self { directory, tokens }
    }

    pub(crate) fn directory(&self) -> &LiveDirectory {
        &self.directory
    }

    /// Whom a request's one credential belongs to.
    ///
    /// # Errors
    /// `multiple_credentials`, `missing_api_key`, and those of [`Directory::authenticate`], [`Tokens::verify`] and
    /// [`Directory::vouched`].
    pub(crate) async fn identify(&self, headers: &HeaderMap) -> Result<Arc<Caller>, Failure> {
        let credential = credential(headers)?;
        let now = clock::unix_seconds();
        match &self.tokens {
            Some(tokens) if is_token(credential) => {
                let token = verified(tokens, credential, now).await?;
                self.directory.load().vouched(&token.tenant, token.role.as_deref(), &token.scope)
            }
            _ => self.directory.load().authenticate(credential, now),
        }
        .map(Arc::new)
    }
}

async fn verified(tokens: &Tokens, token: &[u8], now: u64) -> Result<Arc<Verified>, Failure> {
    match tokens.seen(token, now) {
        Some(verified) => Ok(verified),
        // Boxed, so that the many requests with a key need not have room for it.
        None => Box::pin(tokens.verify(token, now)).await,
    }
}

/// The credential of a request: `Authorization: Bearer KEY` or `x-api-key: KEY`, one of them, once.
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
    use shared::config::parse;
    use shared::identity::Directory;

    fn auth() -> Auth {
        let yaml = "tenants: [{ name: a, keys: [sk-aaaa, sk-bbbb] }, { name: b, keys: [sk-cccc] }]";
        Auth::new(Arc::new(LiveDirectory::fixed(Directory::new(&parse(yaml, "f").unwrap(), [7; 32]))), None)
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[tokio::test]
    async fn a_key_leads_to_its_tenant_by_either_header() {
        let auth = auth();
        let cases = [("authorization", "Bearer sk-bbbb", "a"), ("authorization", "bearer  sk-cccc ", "b"), ("x-api-key", "sk-cccc", "b")];
        for (name, value, tenant) in cases {
            assert_eq!(&*auth.identify(&headers(&[(name, value)])).await.unwrap().tenant.name, tenant);
        }
    }

    #[tokio::test]
    async fn each_bad_credential_has_its_code() {
        let cases: [(&[(&str, &str)], Code); 9] = [
            (&[], Code::MissingApiKey),
            (&[("authorization", "")], Code::MissingApiKey),
            (&[("authorization", "Bearer ")], Code::MissingApiKey),
            (&[("authorization", "Basic c2stYWFhYQ==")], Code::MissingApiKey),
            (&[("x-api-key", "")], Code::MissingApiKey),
            (&[("authorization", "Bearer sk-dddd")], Code::InvalidApiKey),
            (&[("authorization", "Bearer tm_0123456789_sk-dddd")], Code::InvalidApiKey),
            (&[("authorization", "Bearer sk-aaaa"), ("x-api-key", "sk-aaaa")], Code::MultipleCredentials),
            (&[("authorization", "Bearer sk-aaaa"), ("authorization", "Bearer sk-aaaa")], Code::MultipleCredentials),
        ];
        for (pairs, code) in cases {
            let failure = auth().identify(&headers(pairs)).await.unwrap_err();
            assert_eq!(failure.code, code, "{pairs:?}");
            assert!(!failure.message.contains("sk-"), "a key is never repeated");
        }
    }
}
