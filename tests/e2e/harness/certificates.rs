//! edge: an authority of our own, and the certificates it signs for this run.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ServerConfig};
use std::path::Path;
use std::sync::{Arc, LazyLock};

/// A certificate and its key, as PEM.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) cert: String,
    pub(crate) key: String,
}

/// Who signs, for servers and clients alike.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// The one that every client of the harness trusts.
pub(crate) static AUTHORITY: LazyLock<Authority> = LazyLock::new(Authority::new);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new([]).expect("no names to be wrong");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // A name of its own: a certificate whose issuer is called as its subject looks self-signed to some.
        params.distinguished_name.push(DnType::CommonName, "the authority of a test");
        Self(CertifiedIssuer::self_signed(params, new_key()).expect("an authority can be made"))
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for what listens on this machine.
    pub(crate) fn server(&self) -> Pair {
        self.sign(named(), ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// One that was valid once.
    pub(crate) fn expired_server(&self) -> Pair {
        let mut params = named();
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
        self.sign(params, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A certificate for who calls.
    pub(crate) fn client(&self) -> Pair {
        self.sign(named(), ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign(&self, mut params: CertificateParams, usage: ExtendedKeyUsagePurpose) -> Pair {
        params.extended_key_usages = vec![usage];
        let key = new_key();
        let cert = params.signed_by(&key, &self.0).expect("a certificate can be signed").pem();
        Pair { cert, key: key.serialize_pem() }
    }
}

impl Pair {
    /// Writes `cert.pem` and `key.pem`.
    pub(crate) fn write(&self, folder: &Path) {
        self.write_as(folder, "");
    }

    /// Writes them with `prefix` before their names.
    pub(crate) fn write_as(&self, folder: &Path, prefix: &str) {
        for (file, pem) in [("cert.pem", &self.cert), ("key.pem", &self.key)] {
            std::fs::write(folder.join(format!("{prefix}{file}")), pem).expect("the folder is writable");
        }
    }

    fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("our own PEM")
    }

    pub(crate) fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.cert.as_bytes()).expect("our own PEM")
    }
}

/// A client that trusts [`AUTHORITY`] and shows `identity` when asked.
pub(crate) fn client_config(identity: Option<&Pair>) -> Arc<ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(AUTHORITY.pem().as_bytes()).expect("our own PEM")).expect("our own authority");
    let config = ClientConfig::builder_with_provider(shared::tls::provider()).with_safe_default_protocol_versions();
    let config = config.expect("default versions").with_root_certificates(roots);
    Arc::new(match identity {
        None => config.with_no_client_auth(),
        Some(pair) => config.with_client_auth_cert(vec![pair.der()], pair.private_key()).expect("a pair of our own"),
    })
}

/// A server that shows `identity` and asks nobody for theirs.
pub(crate) fn server_config(identity: &Pair) -> Arc<ServerConfig> {
    let config = ServerConfig::builder_with_provider(shared::tls::provider()).with_safe_default_protocol_versions();
    let config = config.expect("default versions").with_no_client_auth();
    Arc::new(config.with_single_cert(vec![identity.der()], identity.private_key()).expect("a pair of our own"))
}

fn named() -> CertificateParams {
    CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("names that can stand in a certificate")
}

fn new_key() -> KeyPair {
    KeyPair::generate().expect("a key can be made")
}
