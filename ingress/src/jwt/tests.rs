//! A whole token's way, with keys of every family: what is accepted, what is not, and how often an issuer is asked.

mod pair;

use super::*;
use pair::{Pair, hs256, unsigned};
use serde_json::{Value, json};
use shared::config::{ClaimNames, JwksAt, Naming, SignatureAlgorithm};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

const NOW: u64 = 1_000_000;

/// Tokens of one issuer, whose keys are in a file.
struct Stand {
    tokens: Tokens,
    file: PathBuf,
    _folder: TempDir,
}

impl Stand {
    fn start(keys: &[&Pair]) -> Self {
        Self::with_algorithms(vec![SignatureAlgorithm::EdDsa, SignatureAlgorithm::ES256], keys)
    }

    fn allowing(algorithm: SignatureAlgorithm, keys: &[&Pair]) -> Self {
        Self::with_algorithms(vec![algorithm], keys)
    }

    fn with_algorithms(algorithms: Vec<SignatureAlgorithm>, keys: &[&Pair]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("jwks.json");
        let issuer = config::Issuer {
            issuer: "https://id".into(),
            audience: "mill".into(),
            jwks: JwksAt::File(file.clone()),
            algorithms,
            claims: ClaimNames { role: Some(Naming::Claim("role".into())), ..ClaimNames::default() },
            leeway_s: 60,
        };
        publish(&file, keys);
        Self { tokens: Tokens::start(&[issuer], [7; 32]).unwrap(), file, _folder: folder }
    }

    async fn verify(&self, token: &str) -> Result<Arc<Verified>, Code> {
        self.tokens.verify(token.as_bytes(), NOW).await.map_err(|failure| failure.code)
    }

    fn attempts(&self) -> u64 {
        self.tokens.issuers[0].attempts()
    }
}

fn publish(file: &Path, keys: &[&Pair]) {
    let keys: Vec<Value> = keys.iter().map(|pair| pair.public()).collect();
    std::fs::write(file, json!({ "keys": keys }).to_string()).unwrap();
}

fn claims() -> Value {
    json!({ "iss": "https://id", "aud": "mill", "exp": NOW + 100, "tenant": "search", "role": "paid", "scope": "models:m" })
}

fn with(name: &str, value: &Value) -> Value {
    let mut claims = claims();
    claims[name] = value.clone();
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

#[tokio::test(start_paused = true)]
async fn a_good_token_names_tenant_role_and_scope_and_is_remembered() {
    let (ed, ec) = (Pair::ed("ed"), Pair::ec("ec"));
    let stand = Stand::start(&[&ed, &ec]);
    for pair in [&ed, &ec] {
        let token = pair.sign(&with("aud", &json!(["other", "mill"])));
        assert!(is_token(token.as_bytes()) && stand.tokens.seen(token.as_bytes(), NOW).is_none());
        let verified = stand.verify(&token).await.unwrap();
        assert_eq!((&*verified.tenant, verified.role.as_deref()), ("search", Some("paid")));
        assert!(verified.scope.models.matches("m") && !verified.scope.models.matches("n"));
        assert!(stand.tokens.seen(token.as_bytes(), NOW + 159).is_some());
        assert!(stand.tokens.seen(token.as_bytes(), NOW + 160).is_none(), "it has expired, the leeway too");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_does_not_say_what_it_must_is_refused() {
    let ed = Pair::ed("ed");
    let stand = Stand::start(&[&ed]);
    let cases = [
        (with("iss", &json!("https://other")), Code::InvalidToken),
        (without("iss"), Code::InvalidToken),
        (with("aud", &json!("other")), Code::InvalidToken),
        (with("aud", &json!("mill other")), Code::InvalidToken),
        (without("aud"), Code::InvalidToken),
        (with("exp", &json!(NOW - 60)), Code::TokenExpired),
        (without("exp"), Code::InvalidToken),
        (with("exp", &json!("never")), Code::InvalidToken),
        (with("nbf", &json!(NOW + 61)), Code::InvalidToken),
        (with("nbf", &json!("soon")), Code::InvalidToken),
        (without("tenant"), Code::InvalidToken),
    ];
    for (claims, code) in cases {
        assert_eq!(stand.verify(&ed.sign(&claims)).await, Err(code), "{claims}");
    }
    for claims in [with("exp", &json!(NOW - 59)), with("exp", &json!(NOW as f64 + 0.5)), with("nbf", &json!(NOW + 60)), without("role")] {
        assert!(stand.verify(&ed.sign(&claims)).await.is_ok(), "{claims}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_forged_token_is_refused_whatever_it_calls_its_algorithm() {
    let (ed, forger) = (Pair::ed("ed"), Pair::ed("ed"));
    let stand = Stand::start(&[&ed]);
    let good = ed.sign(&claims());
    let (message, signature) = good.rsplit_once('.').unwrap();
    let (public, header) = (ed.public(), json!({ "alg": "EdDSA", "kid": "ed" }));
    let cases = [
        hs256(public.to_string().as_bytes(), "ed", &claims()),
        hs256(public["x"].as_str().unwrap().as_bytes(), "ed", &claims()),
        forger.sign(&claims()),
        format!("{}.", unsigned(&json!({ "alg": "none", "kid": "ed" }), &claims())),
        format!("{}.{signature}", unsigned(&json!({ "alg": "none", "kid": "ed" }), &claims())),
        format!("{message}."),
        format!("{}.{signature}", unsigned(&header, &with("tenant", &json!("other")))),
        ed.sign_as(&json!({ "alg": "ES256", "kid": "ed" }), &claims()),
        ed.sign_as(&json!({ "alg": "EdDSA", "kid": "ed", "crit": ["exp"] }), &claims()),
        forger.sign_as(&json!({ "alg": "EdDSA", "jwk": forger.public() }), &claims()),
        format!("{good}{}", "A".repeat(9_000)),
    ];
    for token in cases {
        assert_eq!(stand.verify(&token).await, Err(Code::InvalidToken), "{token}");
    }
    assert!(stand.verify(&good).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_algorithm_that_is_not_on_the_list_is_refused_though_its_key_is_the_issuers() {
    let (rsa, ed) = (Pair::rsa("rsa"), Pair::ed("ed"));
    let stand = Stand::start(&[&rsa, &ed]);
    assert_eq!(stand.verify(&rsa.sign(&claims())).await, Err(Code::InvalidToken));
    let allowing = Stand::allowing(SignatureAlgorithm::RS256, &[&rsa, &ed]);
    assert!(allowing.verify(&rsa.sign(&claims())).await.is_ok());
    assert_eq!(allowing.verify(&ed.sign(&claims())).await, Err(Code::InvalidToken));
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_unknown_keys_asks_the_issuer_once_in_half_a_minute() {
    let ed = Pair::ed("ed");
    let stand = Stand::start(&[&ed]);
    assert!(stand.verify(&ed.sign(&claims())).await.is_ok());
    assert_eq!(stand.attempts(), 1);
    tokio::time::sleep(Duration::from_secs(31)).await;
    let strangers: Vec<String> = (0..100).map(|n| Pair::ed(&format!("stranger-{n}")).sign(&claims())).collect();
    let flood = futures::future::join_all(strangers.iter().map(|token| stand.verify(token))).await;
    assert!(flood.iter().all(|verified| *verified == Err(Code::InvalidToken)));
    assert_eq!(stand.attempts(), 2, "they shared one fetch");
    tokio::time::sleep(Duration::from_secs(29)).await;
    assert_eq!(stand.verify(&strangers[0]).await, Err(Code::InvalidToken));
    assert_eq!(stand.attempts(), 2);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(stand.verify(&strangers[0]).await, Err(Code::InvalidToken));
    assert_eq!(stand.attempts(), 3);
}

#[tokio::test(start_paused = true)]
async fn rotated_keys_are_found_and_withdrawn_ones_forgotten() {
    let (old, new) = (Pair::ed("old"), Pair::ed("new"));
    let stand = Stand::start(&[&old]);
    let token = old.sign(&claims());
    assert!(stand.verify(&token).await.is_ok());
    publish(&stand.file, &[&new]);
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert!(stand.verify(&new.sign(&claims())).await.is_ok());
    assert!(stand.tokens.seen(token.as_bytes(), NOW).is_none(), "it was verified by keys that are gone");
    assert_eq!(stand.verify(&token).await, Err(Code::InvalidToken));
}

#[tokio::test(start_paused = true)]
async fn the_last_good_keys_stay_when_the_issuer_is_away_and_a_withdrawn_key_goes_by_itself() {
    let (old, new) = (Pair::ed("old"), Pair::ed("new"));
    let stand = Stand::start(&[&old]);
    let token = old.sign(&claims());
    assert!(stand.verify(&token).await.is_ok());
    for away in ["<html>", r#"{"keys":[]}"#] {
        std::fs::write(&stand.file, away).unwrap();
        tokio::time::sleep(Duration::from_secs(400)).await;
        assert!(stand.tokens.seen(token.as_bytes(), NOW).is_some());
    }
    assert!(stand.attempts() > 2, "it was asked in vain");
    publish(&stand.file, &[&new]);
    tokio::time::sleep(Duration::from_secs(400)).await;
    assert!(stand.tokens.seen(token.as_bytes(), NOW).is_none());
}

#[tokio::test(start_paused = true)]
async fn an_issuer_that_was_never_reached_is_told_apart_and_asked_again() {
    let ed = Pair::ed("ed");
    let stand = Stand::start(&[&ed]);
    std::fs::remove_file(&stand.file).unwrap();
    assert_eq!(stand.verify(&ed.sign(&claims())).await, Err(Code::IssuerUnavailable));
    publish(&stand.file, &[&ed]);
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert!(stand.verify(&ed.sign(&claims())).await.is_ok());
}
