//! edge: certificates and keys from their PEM files, and how the calling side of TLS is set up from them.
//!
//! The one place where the configuration's words become what rustls takes, for every server that Tidemill calls. The
//! listening side is the ingress's (`ingress/src/tls.rs`), which reads its files with the functions here.

use crate::config::ClientTls;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

/// Bytes of a PEM file. A bundle of all public roots has a quarter of a MiB.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Why a file cannot serve. Names files, never what is in them.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{path}: cannot be read: {cause}")]
    Unreadable { path: PathBuf, cause: io::Error },
    #[error("{0}: larger than {FILE_BYTES_MAX} bytes, which no PEM file is")]
    TooLarge(PathBuf),
    #[error("{path}: {what}")]
    Unfit { path: PathBuf, what: String },
    #[error("server_name: `{0}` is no host name or address")]
    ServerName(String),
    /// Whoever is to use them says why not.
    #[error("{0}")]
    Refused(String),
}

impl TlsError {
    /// A file that was read and will not do.
    pub fn unfit(path: &Path, what: impl Into<String>) -> Self {
        Self::Unfit { path: path.to_owned(), what: what.into() }
    }
}

/// The provider of this process's cryptography.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));
    Arc::clone(&PROVIDER)
}

/// Reads a file of bounded size.
///
/// # Errors
/// `Unreadable`, `TooLarge`.
pub fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    match read {
        Ok(length) if length as u64 > FILE_BYTES_MAX => Err(TlsError::TooLarge(path.to_owned())),
        Ok(_) => Ok(bytes),
        Err(cause) => Err(TlsError::Unreadable { path: path.to_owned(), cause }),
    }
}

/// The certificates of a PEM file, in its order: at least one.
///
/// # Errors
/// `Unfit`. `path` names the file in it.
pub fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match chain {
        Ok(chain) if chain.is_empty() => Err(TlsError::unfit(path, "holds no certificate (-----BEGIN CERTIFICATE-----)")),
        Ok(chain) => Ok(chain),
        Err(error) => Err(TlsError::unfit(path, format!("is no PEM file: {error}"))),
    }
}

/// The first private key of a PEM file.
///
/// # Errors
/// `Unfit`. `path` names the file in it.
pub fn private_key(path: &Path, pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    // The parser's own words may repeat a line of the file.
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| TlsError::unfit(path, "holds no private key in PEM form (-----BEGIN PRIVATE KEY-----)"))
}

/// The certificates of a PEM file as those that may sign others.
///
/// # Errors
/// `Unfit`. `path` names the file in it.
pub fn roots(path: &Path, pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, pem)? {
        roots.add(certificate).map_err(|error| TlsError::unfit(path, format!("holds a certificate that is none: {error}")))?;
    }
    Ok(roots)
}

/// The calling side of TLS: whom to trust, and what to show. Without `tls`, the system's roots and nothing.
///
/// # Errors
/// A file that cannot be read, or is not what it should be.
pub fn client(tls: Option<&ClientTls>) -> Result<ClientConfig, TlsError> {
    let ca = tls.and_then(|tls| tls.ca.as_deref());
    let pair = tls.and_then(|tls| tls.cert.as_deref().zip(tls.key.as_deref()));
    let roots = match ca {
        Some(path) => roots(path, &read(path)?)?,
        None => system_roots(),
    };
    let config = builder().with_root_certificates(roots);
    let Some((cert, key)) = pair else { return Ok(config.with_no_client_auth()) };
    let (chain, private) = (certificates(cert, &read(cert)?)?, private_key(key, &read(key)?)?);
    config
        .with_client_auth_cert(chain, private)
        .map_err(|error| TlsError::unfit(cert, format!("does not go with {}: {error}", key.display())))
}

fn builder() -> ConfigBuilder<ClientConfig, WantsVerifier> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    builder.expect("the provider knows the default versions")
}

/// A machine without roots still calls servers in the clear, so their absence is no reason not to start.
fn system_roots() -> RootCertStore {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        tracing::warn!(errors = ?found.errors, "no certificate roots on this system: TLS to servers without a `ca` of their own will fail; install ca-certificates");
    }
    roots
}
