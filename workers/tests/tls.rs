//! The `openai` backend over TLS, against a peer that does what real ones do: it shows a certificate and may ask for one.

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use shared::config::{self, ClientTls, Target};
use shared::error::Code;
use shared::task::{self, Guarded};
use shared::tls;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use workers::backend::{Backend, BuildError, EmbedCall, http};

const EMBEDDED: &[u8] = br#"{"data":[{"index":0,"embedding":[1]}]}"#;

/// An authority, and files of what it signed.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority =
            Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap(), folder: TempDir::new().unwrap() };
        std::fs::write(authority.ca(), authority.issuer.pem()).unwrap();
        authority
    }

    fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Signs a certificate; where it and its key are.
    fn sign(&self, name: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        let [cert_path, key_path] = ["cert", "key"].map(|what| self.folder.path().join(format!("{name}-{what}.pem")));
        std::fs::write(&cert_path, cert.pem()).unwrap();
        std::fs::write(&key_path, key.serialize_pem()).unwrap();
        (cert_path, key_path)
    }

    /// Trust in this authority, and a certificate of it.
    fn client(&self) -> ClientTls {
        let (cert, key) = self.sign("worker");
        ClientTls { ca: Some(self.ca()), cert: Some(cert), key: Some(key), server_name: None }
    }
}

fn read<T>(path: &Path, parse: impl Fn(&Path, &[u8]) -> Result<T, tls::TlsError>) -> T {
    parse(path, &std::fs::read(path).unwrap()).unwrap()
}

/// A server of one embedding.
struct Peer {
    url: String,
    /// The version of each request.
    asked: mpsc::UnboundedReceiver<Version>,
    _accepting: Guarded,
}

impl Peer {
    /// Shows a certificate for `name`; lets in only who shows one of the same authority.
    async fn start(authority: &Authority, name: &str, protocols: &[&[u8]]) -> Self {
        let (cert, key) = authority.sign(name);
        let roots = Arc::new(read(&authority.ca(), tls::roots));
        let clients = WebPkiClientVerifier::builder_with_provider(roots, tls::provider()).build().unwrap();
        let key: PrivateKeyDer<'static> = read(&key, tls::private_key);
        let mut config = ServerConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients)
            .with_single_cert(read(&cert, tls::certificates), key)
            .unwrap();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/v1", listener.local_addr().unwrap());
        let (note, asked) = mpsc::unbounded_channel();
        let accepting = task::spawn_guarded("peer", accept(listener, TlsAcceptor::from(Arc::new(config)), note));
        Self { url, asked, _accepting: accepting }
    }
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, note: mpsc::UnboundedSender<Version>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let Ok(stream) = tls.accept(stream).await else { continue };
        let note = note.clone();
        let answer = service_fn(move |request: Request<Incoming>| {
            let _ = note.send(request.version());
            let mut response = Response::new(Full::new(Bytes::from_static(EMBEDDED)));
            response.headers_mut().insert("content-type", "application/json".parse().unwrap());
            async { Ok::<_, Infallible>(response) }
        });
        task::spawn("peer's connection", async move {
            let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

fn backend(url: &str, tls: Option<ClientTls>) -> Result<Backend, BuildError> {
    let target = Target::OpenAi { url: url.to_owned(), model: "m".into(), key: None, tls, stream_usage: true };
    let timeout = Duration::from_secs(10);
    let config = config::Backend { name: "b".into(), target, concurrency: 1, tokens_max: 1, per_worker: false, timeout };
    Backend::new(&config, &mut http::Clients::default())
}

async fn embed(url: &str, tls: Option<ClientTls>) -> Result<Vec<Vec<f32>>, Code> {
    let inputs = [Bytes::from_static(b"\"a\"")];
    let call = EmbedCall { inputs: &inputs, count: 1, params: "", traceparent: None };
    let embedded = backend(url, tls).expect("files that can be used").embed(call).await;
    embedded.map(|embedded| embedded.vectors).map_err(|error| error.failure.code)
}

#[tokio::test]
async fn a_backend_is_called_with_a_certificate_in_either_protocol() {
    let authority = Authority::new();
    for (protocols, version) in [(vec![b"h2".as_slice(), b"http/1.1"], Version::HTTP_2), (vec![b"http/1.1".as_slice()], Version::HTTP_11)] {
        let mut peer = Peer::start(&authority, "127.0.0.1", &protocols).await;
        assert_eq!(embed(&peer.url, Some(authority.client())).await, Ok(vec![vec![1.0]]));
        assert_eq!(peer.asked.recv().await, Some(version));
    }
}

#[tokio::test]
async fn a_peer_that_is_not_trusted_or_does_not_trust_us_is_not_asked() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let mut peer = Peer::start(&authority, "127.0.0.1", &[b"http/1.1"]).await;
    let trusted = authority.client();
    for (what, tls) in [
        ("only the system's roots", None),
        ("another authority", Some(ClientTls { ca: Some(stranger.ca()), ..trusted.clone() })),
        ("no certificate of ours", Some(ClientTls { cert: None, key: None, ..trusted.clone() })),
        ("a stranger's certificate", Some(ClientTls { ca: Some(authority.ca()), ..stranger.client() })),
        ("another name", Some(ClientTls { server_name: Some("model.internal".into()), ..trusted.clone() })),
    ] {
        assert_eq!(embed(&peer.url, tls).await, Err(Code::BackendUnreachable), "{what}");
    }
    assert!(peer.asked.try_recv().is_err(), "no request was sent to any");
}

#[tokio::test]
async fn a_certificate_may_bear_another_name_than_the_address() {
    let authority = Authority::new();
    let peer = Peer::start(&authority, "model.internal", &[b"http/1.1"]).await;
    assert_eq!(embed(&peer.url, Some(authority.client())).await, Err(Code::BackendUnreachable));
    let named = ClientTls { server_name: Some("model.internal".into()), ..authority.client() };
    assert_eq!(embed(&peer.url, Some(named)).await, Ok(vec![vec![1.0]]));
}

#[test]
fn files_that_cannot_be_used_are_refused_with_backend_and_file() {
    let (authority, other) = (Authority::new(), Authority::new());
    let whole = authority.client();
    let refused = |tls: ClientTls| backend("https://h/v1", Some(tls)).err().expect("refused").to_string();
    let missing = refused(ClientTls { ca: Some("/nowhere/ca.pem".into()), ..whole.clone() });
    assert!(missing.starts_with("tls of backend `b`: /nowhere/ca.pem: cannot be read"), "{missing}");
    let mismatched = refused(ClientTls { key: other.client().key, ..whole.clone() });
    assert!(mismatched.contains("does not go with"), "{mismatched}");
    let swapped = refused(ClientTls { cert: whole.key.clone(), key: whole.cert.clone(), ..whole.clone() });
    assert!(swapped.contains("holds no certificate"), "{swapped}");
    let unnamed = refused(ClientTls { server_name: Some("no name".into()), ..whole });
    assert!(unnamed.contains("server_name"), "{unnamed}");
}
