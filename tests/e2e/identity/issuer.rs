//! edge: an issuer of tokens: its key, and a small server of its JWK set that counts who asks.

use crate::harness::{Pair, TlsListener};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::serve::Listener;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use shared::clock::unix_seconds;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;

pub(super) struct Issuer {
    name: String,
    key: Key,
    jwks_url: String,
    page: Arc<Mutex<Page>>,
}

struct Key {
    id: String,
    public: Vec<u8>,
    private: EncodingKey,
}

struct Page {
    /// `None`: it fails.
    jwks: Option<Value>,
    fetches: u32,
}

impl Issuer {
    pub(super) async fn start(name: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        Self::serve(name, "http", listener)
    }

    /// One whose JWK set is served over https.
    pub(super) async fn start_secure(name: &str, pair: &Pair) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        Self::serve(name, "https", TlsListener::new(listener, pair))
    }

    fn serve<L: Listener<Addr = SocketAddr>>(name: &str, scheme: &str, listener: L) -> Self {
        let key = Key::new("first");
        let page = Arc::new(Mutex::new(Page { jwks: Some(key.jwks()), fetches: 0 }));
        let jwks_url = format!("{scheme}://{}/jwks", listener.local_addr().expect("an address"));
        let router = Router::new().route("/jwks", get(jwks)).with_state(Arc::clone(&page));
        shared::task::spawn("issuer", async { axum::serve(listener, router).await.expect("it serves") });
        Self { name: format!("https://{name}.example"), key, jwks_url, page }
    }

    /// What the configuration says of it, in its section `issuers`.
    pub(super) fn entry(&self) -> String {
        let Self { name, jwks_url, .. } = self;
        format!(
            "  - issuer: {name}\n    audience: mill\n    jwks_url: {jwks_url}\n    algorithms: [ EdDSA ]\n    claims: {{ role: {{ claim: role }} }}\n"
        )
    }

    /// A token of its own, unless the claims say of whom it is.
    pub(super) fn sign(&self, claims: &Value) -> String {
        self.key.sign(&self.named(claims))
    }

    fn named(&self, claims: &Value) -> Value {
        let mut claims = claims.clone();
        claims.as_object_mut().expect("a map").entry("iss").or_insert_with(|| self.name.clone().into());
        claims
    }

    /// Tokens whose keys it does not have.
    pub(super) fn strangers(&self, count: usize) -> Vec<String> {
        (0..count).map(|n| Key::new(&format!("stranger-{n}")).sign(&self.named(&claims()))).collect()
    }

    pub(super) fn fetches(&self) -> u32 {
        self.page.lock().expect("nobody panics with it").fetches
    }

    pub(super) fn go_away(&self) {
        self.page.lock().expect("nobody panics with it").jwks = None;
    }

    /// Has a new key alone.
    pub(super) fn rotate(&mut self, key_id: &str) {
        self.key = Key::new(key_id);
        self.page.lock().expect("nobody panics with it").jwks = Some(self.key.jwks());
    }
}

impl Key {
    fn new(id: &str) -> Self {
        let pair = Ed25519KeyPair::generate().expect("a key pair");
        let private = pair.to_pkcs8().expect("a document");
        Self { id: id.to_owned(), public: pair.public_key().as_ref().to_vec(), private: EncodingKey::from_ed_der(private.as_ref()) }
    }

    fn jwks(&self) -> Value {
        json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": self.id, "x": BASE64.encode(&self.public) }] })
    }

    fn sign(&self, claims: &Value) -> String {
        encode(&self.header(Algorithm::EdDSA), claims, &self.private).expect("a token")
    }

    fn header(&self, algorithm: Algorithm) -> Header {
        Header { kid: Some(self.id.clone()), ..Header::new(algorithm) }
    }
}

async fn jwks(State(page): State<Arc<Mutex<Page>>>) -> Result<String, StatusCode> {
    let mut page = page.lock().expect("nobody panics with it");
    page.fetches += 1;
    page.jwks.as_ref().map(Value::to_string).ok_or(StatusCode::SERVICE_UNAVAILABLE)
}

pub(super) fn claims() -> Value {
    json!({ "aud": "mill", "exp": unix_seconds() + 3_600, "tenant": "first" })
}

pub(super) fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

/// Tokens that somebody makes who knows the public key only.
pub(super) fn forged(issuer: &Issuer) -> Vec<String> {
    let (key, claims) = (&issuer.key, issuer.named(&claims()));
    let hmac = |secret: &[u8]| encode(&key.header(Algorithm::HS256), &claims, &EncodingKey::from_secret(secret)).expect("a token");
    let good = key.sign(&claims);
    let signature = good.rsplit('.').next().expect("three parts");
    let none = [json!({ "alg": "none", "kid": key.id }), claims.clone()].map(|part| BASE64.encode(part.to_string())).join(".");
    vec![
        hmac(&key.public),
        hmac(BASE64.encode(&key.public).as_bytes()),
        hmac(key.jwks().to_string().as_bytes()),
        format!("{none}."),
        format!("{none}.{signature}"),
        Key::new(&key.id).sign(&claims),
    ]
}
