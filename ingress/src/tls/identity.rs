//! edge: what the listener shows and whom it asks, made from the configured files.

use super::validity::Validity;
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use shared::config::{ClientAuth, ServerTls};
use shared::tls::{self, TlsError};
use std::path::Path;
use std::sync::Arc;

/// In the order of preference; a client without ALPN speaks HTTP/1.1, or HTTP/2 if it begins so.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The files as they are.
pub(super) struct Files {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

/// Tells whether files have changed. Theirs, and not their times': a copy may keep an old one.
pub(super) type Fingerprint = blake3::Hash;

impl Files {
    pub(super) fn read(paths: &ServerTls) -> Result<Self, TlsError> {
        let client_ca = paths.client_ca.as_deref().map(tls::read).transpose()?;
        Ok(Self { cert: tls::read(&paths.cert)?, key: tls::read(&paths.key)?, client_ca })
    }

    pub(super) fn fingerprint(&self) -> Fingerprint {
        let mut hasher = blake3::Hasher::new();
        for part in [&self.cert, &self.key, self.client_ca.as_ref().unwrap_or(&Vec::new())] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        hasher.finalize()
    }
}

/// A certificate with its key that can be shown.
pub(super) struct Identity {
    pub(super) config: Arc<ServerConfig>,
    pub(super) expires_at_unix: u64,
}

impl Identity {
    /// `paths` names the files in errors.
    ///
    /// # Errors
    /// Files that do not go together, a certificate that is not valid at `now_unix`.
    pub(super) fn new(paths: &ServerTls, files: &Files, now_unix: u64) -> Result<Self, TlsError> {
        let chain = tls::certificates(&paths.cert, &files.cert)?;
        let key = tls::private_key(&paths.key, &files.key)?;
        let validity = Validity::of(&chain[0]).ok_or_else(|| TlsError::unfit(&paths.cert, "holds a certificate that cannot be read"))?;
        current(&paths.cert, &validity, now_unix)?;
        let builder = ServerConfig::builder_with_provider(tls::provider()).with_safe_default_protocol_versions();
        let builder = builder.expect("the provider knows the default versions");
        let builder = match (&paths.client_ca, &files.client_ca) {
            (Some(path), Some(pem)) => builder.with_client_cert_verifier(verifier(path, pem, paths.client_auth.unwrap_or_default())?),
            _ => builder.with_no_client_auth(),
        };
        let config = builder.with_single_cert(chain, key);
        let mut config =
            config.map_err(|error| TlsError::unfit(&paths.cert, format!("does not go with {}: {error}", paths.key.display())))?;
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        Ok(Self { config: Arc::new(config), expires_at_unix: validity.not_after })
    }
}

fn current(cert: &Path, validity: &Validity, now_unix: u64) -> Result<(), TlsError> {
    if now_unix > validity.not_after {
        return Err(TlsError::unfit(cert, "has expired: renew it"));
    }
    if now_unix < validity.not_before {
        return Err(TlsError::unfit(cert, "is not valid yet: wait, or set this machine's clock"));
    }
    Ok(())
}

fn verifier(path: &Path, pem: &[u8], auth: ClientAuth) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let roots = tls::roots(path, pem)?;
    let asked = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), tls::provider());
    let asked = match auth {
        ClientAuth::Required => asked,
        ClientAuth::Optional => asked.allow_unauthenticated(),
    };
    asked.build().map_err(|error| TlsError::unfit(path, error.to_string()))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};
    use std::path::PathBuf;

    pub(in crate::tls) const IN_2031: u64 = 1_925_000_000;

    /// A certificate that holds from 2030 on, and its key.
    pub(in crate::tls) fn pair(until_year: i32) -> (Vec<u8>, Vec<u8>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(2030, 1, 1), date_time_ymd(until_year, 1, 1));
        (params.self_signed(&key).unwrap().pem().into_bytes(), key.serialize_pem().into_bytes())
    }

    pub(in crate::tls) fn paths() -> ServerTls {
        ServerTls { cert: PathBuf::from("c.pem"), key: PathBuf::from("k.pem"), client_ca: None, client_auth: None }
    }

    pub(in crate::tls) fn files((cert, key): &(Vec<u8>, Vec<u8>)) -> Files {
        Files { cert: cert.clone(), key: key.clone(), client_ca: None }
    }

    fn made(cert: &[u8], key: &[u8], now_unix: u64) -> Result<Identity, String> {
        let files = files(&(cert.to_vec(), key.to_vec()));
        Identity::new(&paths(), &files, now_unix).map_err(|error| error.to_string())
    }

    #[test]
    fn a_pair_that_cannot_serve_is_refused_with_its_file_and_why() {
        let ((cert, key), (other, _)) = (pair(2040), pair(2040));
        assert_eq!(made(&cert, &key, IN_2031).unwrap().expires_at_unix, 2_208_988_800);
        let refused = |cert: &[u8], key: &[u8], at| made(cert, key, at).err().expect("refused");
        assert!(refused(&other, &key, IN_2031).starts_with("c.pem: does not go with k.pem"));
        assert!(refused(&cert, &key, 2_208_988_801).contains("has expired"));
        assert!(refused(&cert, &key, 1_600_000_000).contains("not valid yet"));
        assert!(refused(b"", &key, IN_2031).contains("c.pem: holds no certificate"));
        assert!(refused(&cert, b"nothing", IN_2031).contains("k.pem: holds no private key"));
    }

    #[test]
    fn a_fingerprint_tells_files_apart_and_where_they_end() {
        let of = |cert: &[u8], key: &[u8]| Files { cert: cert.to_vec(), key: key.to_vec(), client_ca: None }.fingerprint();
        assert_eq!(of(b"a", b"b"), of(b"a", b"b"));
        assert_ne!(of(b"ab", b""), of(b"a", b"b"));
    }
}
