//! edge: how commands call a server: over http, or over https as the arguments say.

use super::out::Failed;
use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::ServerName;
use shared::config::ClientTls;
use std::path::PathBuf;

/// Whom to trust over https, and what to show.
#[derive(Debug, clap::Args)]
pub(crate) struct Tls {
    /// PEM: who may have signed the server's certificate. Default: the system's roots.
    #[arg(long, global = true, value_name = "FILE", env = "TIDEMILL_TLS_CA")]
    tls_ca: Option<PathBuf>,
    /// PEM: the certificate to show, for a server that asks for one. Goes with --tls-key.
    #[arg(long, global = true, value_name = "FILE", env = "TIDEMILL_TLS_CERT")]
    tls_cert: Option<PathBuf>,
    /// PEM: the certificate's private key.
    #[arg(long, global = true, value_name = "FILE", env = "TIDEMILL_TLS_KEY")]
    tls_key: Option<PathBuf>,
    /// The name that the server's certificate must bear instead of the URL's host, such as for a call to 127.0.0.1.
    #[arg(long, global = true, value_name = "NAME")]
    tls_name: Option<String>,
}

pub(crate) type Pool = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// A client for http and https.
///
/// # Errors
/// A file that cannot be read, or is not what it should be.
pub(crate) fn pool(tls: &Tls) -> Result<Pool, Failed> {
    if tls.tls_cert.is_some() != tls.tls_key.is_some() {
        return Err(Failed::refused("--tls-cert and --tls-key go together"));
    }
    let files = ClientTls { ca: tls.tls_ca.clone(), cert: tls.tls_cert.clone(), key: tls.tls_key.clone(), server_name: None };
    let config = shared::tls::client(Some(&files)).map_err(Failed::refused)?;
    let mut connector = HttpsConnectorBuilder::new().with_tls_config(config).https_or_http();
    if let Some(name) = &tls.tls_name {
        let name = ServerName::try_from(name.clone()).map_err(|_| Failed::refused("--tls-name: no host name or address"))?;
        connector = connector.with_server_name_resolver(FixedServerNameResolver::new(name));
    }
    Ok(Client::builder(TokioExecutor::new()).build(connector.enable_http1().build()))
}
