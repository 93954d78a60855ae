//! A redis-server that speaks TLS and wants a certificate from whoever calls.

use super::PATIENT;
use super::races::ask;
use super::server::RedisServer;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use shared::config::ClientTls;
use shared::quota::Decision;
use shared::quota::redis::{Away, RedisLedger};
use std::path::Path;
use tempfile::TempDir;

/// Files of an authority, of a server and of a client, in one folder.
fn certificates() -> TempDir {
    let folder = TempDir::new().unwrap();
    let write = |name: &str, pem: String| std::fs::write(folder.path().join(name), pem).unwrap();
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // OpenSSL takes a certificate whose issuer is called as its subject to be signed by itself.
    params.distinguished_name.push(DnType::CommonName, "the authority of a test");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    write("ca.pem", authority.pem());
    for name in ["server", "client"] {
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
        write(&format!("{name}.pem"), cert.pem());
        write(&format!("{name}-key.pem"), key.serialize_pem());
    }
    folder
}

fn client(files: &Path) -> ClientTls {
    let [ca, cert, key] = ["ca.pem", "client.pem", "client-key.pem"].map(|name| Some(files.join(name)));
    ClientTls { ca, cert, key, server_name: None }
}

async fn connect(server: &RedisServer, files: &ClientTls) -> Result<RedisLedger, Away> {
    let ledger = RedisLedger::open(&server.url(), PATIENT).unwrap().secured(files).unwrap();
    ledger.connect().await.map(|()| ledger)
}

#[tokio::test]
async fn a_redis_that_wants_a_certificate_is_shown_ours() {
    let files = certificates();
    let server = RedisServer::start_tls(files.path()).await;
    let ledger = connect(&server, &client(files.path())).await.unwrap();
    let decisions = ledger.reserve(&[ask("tenant", r#"{"concurrency":1}"#, 1), ask("tenant", r#"{"concurrency":1}"#, 1)]).await.unwrap();
    assert!(matches!(decisions[..], [Decision::Granted(_), Decision::Refused(_)]), "{decisions:?}");
}

#[tokio::test]
async fn a_redis_that_is_not_trusted_or_does_not_trust_us_is_away() {
    let (files, strangers) = (certificates(), certificates());
    let server = RedisServer::start_tls(files.path()).await;
    let ours = client(files.path());
    let untrusted = connect(&server, &ClientTls { ca: client(strangers.path()).ca, ..ours.clone() }).await.err().unwrap();
    assert!(untrusted.to_string().contains("invalid peer certificate"), "{untrusted}");
    assert!(connect(&server, &ClientTls { cert: None, key: None, ..ours }).await.is_err(), "it wants a certificate");
}

#[tokio::test]
async fn a_redis_that_speaks_no_tls_is_away_where_tls_is_asked_for() {
    let (files, server) = (certificates(), RedisServer::start().await);
    let ledger = RedisLedger::open(&server.url().replace("redis://", "rediss://"), PATIENT).unwrap();
    assert!(ledger.secured(&client(files.path())).unwrap().connect().await.is_err(), "not in the clear");
}

#[tokio::test]
async fn a_file_that_will_not_do_is_named() {
    let files = certificates();
    let ours = client(files.path());
    let secured =
        |tls: ClientTls| RedisLedger::open("rediss://127.0.0.1:1", PATIENT).unwrap().secured(&tls).err().map(|error| error.to_string());
    let absent = secured(ClientTls { ca: Some("/nowhere/ca.pem".into()), ..ours.clone() }).unwrap();
    assert!(absent.starts_with("/nowhere/ca.pem: cannot be read"), "{absent}");
    let another = secured(ClientTls { key: Some(files.path().join("server-key.pem")), ..ours }).unwrap();
    assert!(another.contains("does not go with"), "{another}");
}
