//! A nats-server that wants TLS, and a certificate from whoever calls.

use super::{SOON, options, program};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use shared::broker::nats::{NatsBroker, Options};
use shared::broker::{Address, Broker, BrokerError};
use shared::config::ClientTls;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

/// Files of an authority, of a server and of a client, in one folder.
fn certificates() -> TempDir {
    let folder = TempDir::new().unwrap();
    let write = |name: &str, pem: String| std::fs::write(folder.path().join(name), pem).unwrap();
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
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

/// A server with JetStream that verifies its clients' certificates; it ends with its handle.
async fn start(files: &Path) -> (Child, String) {
    let mut command = Command::new(program());
    command.args(["--addr", "127.0.0.1", "--port", "-1", "--jetstream", "--tlsverify"]);
    command.arg("--tlscert").arg(files.join("server.pem")).arg("--tlskey").arg(files.join("server-key.pem"));
    command.arg("--tlscacert").arg(files.join("ca.pem")).arg("--store_dir").arg(files.join("store"));
    command.arg("--ports_file_dir").arg(files).arg("--log").arg(files.join("log"));
    let server = command.kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let url = async {
        loop {
            if let Some(port) = port(files) {
                return format!("nats://127.0.0.1:{port}");
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    let url = timeout(SOON, url).await.expect("the server names its port");
    (server, url)
}

fn port(files: &Path) -> Option<u16> {
    let file = std::fs::read_dir(files).ok()?.flatten().find(|entry| entry.path().extension().is_some_and(|e| e == "ports"))?;
    let ports: serde_json::Value = serde_json::from_slice(&std::fs::read(file.path()).ok()?).ok()?;
    ports["nats"][0].as_str()?.rsplit(':').next()?.parse().ok()
}

async fn connect(url: &str, tls: ClientTls) -> Result<std::sync::Arc<NatsBroker>, BrokerError> {
    NatsBroker::connect(url, Options { tls: Some(tls), ..options() }).await
}

#[tokio::test]
async fn a_server_that_wants_a_certificate_is_shown_ours() {
    let files = certificates();
    let (_server, url) = start(files.path()).await;
    let broker = connect(&url, client(files.path())).await.unwrap();
    let mut heard = broker.listen(&Address::Cancels).await.unwrap();
    broker.post(&Address::Cancels, super::bytes("over tls")).await.unwrap();
    assert_eq!(timeout(SOON, heard.next()).await.unwrap().unwrap(), "over tls");
}

#[tokio::test]
async fn a_server_that_is_not_trusted_or_does_not_trust_us_is_refused() {
    let (files, strangers) = (certificates(), certificates());
    let (_server, url) = start(files.path()).await;
    let ours = client(files.path());
    for (why, tls) in [
        ("invalid peer certificate", ClientTls { ca: client(strangers.path()).ca, ..ours.clone() }),
        ("CertificateRequired", ClientTls { cert: None, key: None, ..ours.clone() }),
        ("/nowhere/ca.pem: cannot be read", ClientTls { ca: Some("/nowhere/ca.pem".into()), ..ours.clone() }),
    ] {
        let refused = connect(&url, tls).await;
        assert!(matches!(&refused, Err(BrokerError::Unfit(said)) if said.contains(why)), "{why}: {refused:?}");
    }
}

#[tokio::test]
async fn a_server_without_tls_is_refused_where_tls_is_asked_for() {
    let (server, _folder) = super::start().await;
    let files = certificates();
    let refused = connect(server.url(), client(files.path())).await;
    assert!(matches!(refused, Err(BrokerError::Unfit(_))), "not in the clear, and without waiting for better: {refused:?}");
    server.stop().await;
}
