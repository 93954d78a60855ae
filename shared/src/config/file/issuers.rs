//! edge: the file's `issuers`, and their conversion.

use super::Reader;
use crate::config::{ClaimNames, ConfigError, Issuer, JwksAt, SignatureAlgorithm};
use serde::Deserialize;
use serde_saphyr::Spanned;
use std::collections::HashSet;
use std::net::IpAddr;
use std::path::PathBuf;

/// Each has a task that keeps its keys.
const ISSUERS_MAX: usize = 16;
const LEEWAY_S: u64 = 60;
/// A clock further off than this is to be mended.
const LEEWAY_S_MAX: u64 = 600;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileIssuer {
    issuer: Spanned<String>,
    audience: String,
    jwks_url: Option<Spanned<String>>,
    jwks_file: Option<PathBuf>,
    algorithms: Vec<SignatureAlgorithm>,
    #[serde(default)]
    claims: ClaimNames,
    leeway_s: Option<u64>,
}

impl Reader<'_> {
    pub(super) fn issuers(&self, files: Vec<FileIssuer>) -> Result<Vec<Issuer>, ConfigError> {
        let mut names = HashSet::new();
        let mut issuers = Vec::with_capacity(files.len());
        for file in files {
            if !names.insert(file.issuer.value.clone()) {
                return Err(self.at(&file.issuer, "issuers[].issuer: it is there twice"));
            }
            if issuers.len() == ISSUERS_MAX {
                return Err(self.at(&file.issuer, format!("issuers: more than {ISSUERS_MAX}")));
            }
            issuers.push(self.issuer(file)?);
        }
        Ok(issuers)
    }

    fn issuer(&self, file: FileIssuer) -> Result<Issuer, ConfigError> {
        let FileIssuer { issuer, audience, jwks_url, jwks_file, algorithms, claims, leeway_s } = file;
        if issuer.value.is_empty() || audience.is_empty() || algorithms.is_empty() {
            return Err(self.at(&issuer, "issuers[]: issuer, audience and algorithms must not be empty"));
        }
        let leeway_s = leeway_s.unwrap_or(LEEWAY_S);
        if leeway_s > LEEWAY_S_MAX {
            return Err(self.at(&issuer, format!("issuers[].leeway_s: at most {LEEWAY_S_MAX}")));
        }
        let jwks = match (jwks_url, jwks_file) {
            (Some(url), None) if is_private(&url.value) => JwksAt::Url(url.value),
            (Some(url), None) => {
                return Err(self.at(&url, "issuers[].jwks_url: use https://; http:// only for this machine itself"));
            }
            (None, Some(path)) => JwksAt::File(path),
            _ => return Err(self.at(&issuer, "issuers[]: say jwks_url or jwks_file, one of them")),
        };
        Ok(Issuer { issuer: issuer.value, audience, jwks, algorithms, claims, leeway_s })
    }
}

/// Whether nobody on the way can change what comes from there.
fn is_private(url: &str) -> bool {
    let (is_https, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (_, Some(rest)) => (false, rest),
        _ => return false,
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.is_empty() || authority.contains('@') || !url.bytes().all(|b| b.is_ascii_graphic()) {
        return false;
    }
    is_https || is_loopback(authority)
}

fn is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Naming, parse};

    fn issuer(fields: &str) -> Result<Issuer, ConfigError> {
        let yaml = format!("issuers:\n- issuer: https://id\n  audience: mill\n  algorithms: [ RS256, EdDSA ]\n  {fields}\n");
        parse(&yaml, "f").map(|config| config.issuers[0].clone())
    }

    #[test]
    fn an_issuer_says_where_its_keys_are_and_what_its_claims_mean() {
        let plain = issuer("jwks_url: https://id/keys").unwrap();
        assert_eq!((plain.jwks, plain.leeway_s), (JwksAt::Url("https://id/keys".into()), 60));
        assert_eq!(plain.claims, ClaimNames::default());
        let told = issuer("jwks_file: keys.json\n  claims: { tenant: { fixed: search }, role: { claim: role }, scopes: scp }").unwrap();
        assert_eq!((told.claims.tenant, told.claims.role), (Naming::Fixed("search".into()), Some(Naming::Claim("role".into()))));
    }

    #[test]
    fn keys_that_somebody_on_the_way_could_change_are_refused() {
        for good in ["http://127.0.0.1:9/k", "http://localhost/k", "http://[::1]:9/k", "https://id:8443/k?x=1"] {
            assert!(issuer(&format!("jwks_url: '{good}'")).is_ok(), "{good}");
        }
        for bad in ["http://id/k", "http://127.0.0.1@id/k", "http://localhost.id/k", "ftp://id/k", "https://", "https://a b/"] {
            let error = issuer(&format!("jwks_url: '{bad}'")).unwrap_err();
            assert!(error.line == 5 && error.what.contains("jwks_url"), "{bad}: {error}");
        }
    }

    #[test]
    fn what_an_issuer_lacks_or_may_not_have_is_refused() {
        assert!(issuer("leeway_s: 5").unwrap_err().what.contains("jwks_url or jwks_file"));
        assert!(issuer("jwks_file: k\n  leeway_s: 9000").unwrap_err().what.contains("leeway_s"));
        for algorithm in ["none", "HS256"] {
            let yaml = format!("issuers:\n- issuer: i\n  audience: a\n  jwks_file: k\n  algorithms: [ {algorithm} ]\n");
            assert!(parse(&yaml, "f").unwrap_err().what.contains(algorithm), "{algorithm}");
        }
    }
}
