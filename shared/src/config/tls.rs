//! core: what the configuration says about TLS: of the ingress's own listener, and of the servers that Tidemill calls.
//!
//! Only paths: `tls.rs` reads the files, when they are used, because a role need not have the files of another.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// TLS of the ingress: with it the listener speaks https and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerTls {
    /// PEM: the certificate, then those between it and its root.
    pub cert: PathBuf,
    /// PEM: the certificate's private key.
    pub key: PathBuf,
    /// PEM: who may have signed a client's certificate. Absent: clients are not asked for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<PathBuf>,
    /// Goes with `client_ca`; absent: required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_auth: Option<ClientAuth>,
}

/// What becomes of a client without a certificate. One whose certificate is not right is refused either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// It is refused.
    #[default]
    Required,
    /// It is let in.
    Optional,
}

/// TLS to a server: a backend, NATS or Redis.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientTls {
    /// PEM: who may have signed the server's certificate. Absent: the system's roots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// PEM: the certificate to show, then those between it and its root. Goes with `key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    /// PEM: its private key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// The name that the server's certificate must bear instead of the address's host. For backends only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
}
