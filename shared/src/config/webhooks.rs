//! core: whom to tell of what: the addresses that tenants have their events posted to, and where such an address may lead.

use super::EventKind;
use crate::global::is_global;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;
use std::net::IpAddr;
use url::{Host, Url};

/// Webhooks of one tenant: each event may be posted to each of them.
pub(super) const WEBHOOKS_MAX: usize = 8;

/// A signing secret's bytes, by the Standard Webhooks specification.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Where webhooks may lead, for all tenants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebhookPolicy {
    /// Addresses of this machine and of private networks, too: for targets in house. An address that a tenant may choose
    /// must not lead there.
    pub allow_private: bool,
    /// `http://`, too: what is posted can be read on the way.
    pub allow_http: bool,
    pub ports: Vec<u16>,
}

impl Default for WebhookPolicy {
    fn default() -> Self {
        Self { allow_private: false, allow_http: false, ports: vec![443] }
    }
}

impl WebhookPolicy {
    /// Whether a connection may be made there.
    pub fn allows(&self, address: IpAddr) -> bool {
        self.allow_private || is_global(address)
    }

    /// Reads a target.
    ///
    /// # Errors
    /// A sentence that begins with `url` and does not repeat it: it may hold a secret.
    pub fn target(&self, text: &str) -> Result<Url, String> {
        let url = Url::parse(text).map_err(|error| format!("url: {error}"))?;
        let is_http = url.scheme() == "http" && self.allow_http;
        if url.scheme() != "https" && !is_http {
            return Err("url: must begin with https:// (http:// needs `webhooks.allow_http`)".into());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("url: may hold no user name and no password".into());
        }
        let port = url.port_or_known_default().unwrap_or_default();
        if !self.ports.contains(&port) {
            return Err(format!("url: port {port} is not one of `webhooks.ports`"));
        }
        let literal = match url.host() {
            Some(Host::Ipv4(address)) => Some(IpAddr::from(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::from(address)),
            _ => None,
        };
        if literal.is_some_and(|address| !self.allows(address)) {
            return Err("url: its address is not one of the public internet's (see `webhooks.allow_private`)".into());
        }
        Ok(url)
    }
}

/// One address that a tenant has its events posted to.
#[derive(Clone, Debug, Serialize)]
pub struct Webhook {
    #[serde(serialize_with = "serialize_shown")]
    pub url: Url,
    pub secret: SigningSecret,
    pub events: Vec<EventKind>,
}

/// A target as it may be shown: its path and query are a secret with many.
pub fn shown(url: &Url) -> String {
    url.origin().ascii_serialization()
}

fn serialize_shown<S: Serializer>(url: &Url, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&shown(url))
}

/// What events are signed with. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningSecret(Box<[u8]>);

impl SigningSecret {
    /// Reads `whsec_` and base64.
    ///
    /// # Errors
    /// A sentence that does not repeat it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bytes = text.strip_prefix("whsec_").and_then(|base64| STANDARD.decode(base64).ok());
        let fit = bytes.filter(|bytes| SECRET_BYTES.contains(&bytes.len()));
        fit.map(|bytes| Self(bytes.into())).ok_or_else(|| "must be whsec_ and the base64 of 24 to 64 random bytes".into())
    }

    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl Serialize for SigningSecret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("[secret]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_public_encrypted_and_at_a_known_port_unless_allowed_otherwise() {
        let strict = WebhookPolicy::default();
        assert!(strict.target("https://hooks.example.com/a?token=1").is_ok());
        for (refused, why) in [
            ("http://hooks.example.com/", "allow_http"),
            ("ftp://hooks.example.com/", "https"),
            ("https://hooks.example.com:8443/", "8443"),
            ("https://u:canary@hooks.example.com/", "password"),
            ("https://127.0.0.1/", "public"),
            ("https://[::1]/", "public"),
            ("https://0x7f000001/", "public"),
            ("https://2130706433/", "public"),
            ("https://[::ffff:10.0.0.1]/", "public"),
            ("hooks.example.com", "url"),
        ] {
            let error = strict.target(refused).unwrap_err();
            assert!(error.contains(why) && !error.contains("canary"), "{refused}: {error}");
        }
        let open = WebhookPolicy { allow_private: true, allow_http: true, ports: vec![8080] };
        assert!(open.target("http://127.0.0.1:8080/").is_ok());
    }

    #[test]
    fn a_signing_secret_is_long_enough_and_shows_itself_to_nobody() {
        let secret = SigningSecret::parse(&format!("whsec_{}", STANDARD.encode([7; 24]))).unwrap();
        assert_eq!((secret.expose(), format!("{secret:?}").as_str()), (&[7_u8; 24][..], "[secret]"));
        for bad in ["whsec_c2hvcnQ=", "c2hvcnQ=", "whsec_?"] {
            assert!(!SigningSecret::parse(bad).unwrap_err().contains(bad));
        }
    }
}
