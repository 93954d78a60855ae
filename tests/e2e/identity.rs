//! Promise: a caller may do what their role and their credential permit, and nothing else; and no credential is ever logged.

mod issuer;

use crate::harness::{AUTHORITY, Authority, KEY, Mill, SOON, chat, embed, prompt, until};
use issuer::{Issuer, claims, forged, with};
use loadtest::client::{Answer, Client};
use serde_json::json;
use shared::clock::unix_seconds;
use std::time::Duration;

const CHAT: &str = "/v1/chat/completions";
const EMBEDDINGS: &str = "/v1/embeddings";

/// Longer than the pause between two fetches of an issuer's keys.
const NEXT_FETCH: Duration = Duration::from_secs(60);

const ROLES: &str = "roles:\n  - { name: free, models: [ chat, 'emb*' ], endpoints: [ chat ], lanes: [ interactive ] }\n";
const TRIAL: &str = "{ name: trial, role: free, keys: [
      sk-e2e-canary-trial,
      { key: sk-e2e-canary-wide, name: wide, models: [ '*' ], endpoints: [ chat, embeddings ] },
      { key: sk-e2e-canary-slim, name: slim, models: [ narrow, embed ] },
      { key: sk-e2e-canary-late, name: late, lanes: [ async, bulk ] },
      { key: sk-e2e-canary-old, name: old, expires_at: 1700000000 } ] }";

async fn ask(client: &Client, path: &str, body: String) -> Answer {
    client.post(path, body).await.expect("an answer")
}

async fn outcome(client: &Client, model: &str) -> (u16, String) {
    let answer = ask(client, CHAT, chat(model, &prompt("may I"))).await;
    (answer.status, answer.json()["error"]["code"].as_str().unwrap_or_default().to_owned())
}

async fn models(client: &Client) -> Vec<String> {
    let list = client.get("/v1/models").await.expect("an answer").json();
    list["data"].as_array().expect("a list").iter().map(|model| model["id"].as_str().expect("a name").to_owned()).collect()
}

fn refusal(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_role_says_which_models_endpoints_and_lanes_there_are_and_a_key_only_narrows_it() {
    let mill = Mill::up().sections(ROLES).tenant(TRIAL).start().await;
    let client = |key: &str| mill.client_of(0, key);
    let trial = client("sk-e2e-canary-trial");
    assert_eq!(outcome(&trial, "chat").await, refusal(200, ""));
    assert_eq!(models(&trial).await, ["chat", "embed"]);
    assert_eq!(models(&client(KEY)).await, ["chat", "narrow", "embed"], "without a role, all");

    let (hidden, absent) = (ask(&trial, CHAT, chat("narrow", "x")).await, ask(&trial, CHAT, chat("nobody", "x")).await);
    assert_eq!((hidden.status, hidden.text()), (404, absent.text()), "a model of others is like one that is not there");
    let (hidden, absent) = (trial.get("/v1/models/narrow").await.unwrap(), trial.get("/v1/models/nobody").await.unwrap());
    assert_eq!((hidden.status, hidden.text()), (404, absent.text()));

    let refused = ask(&trial, EMBEDDINGS, embed("embed", "x")).await;
    assert_eq!((refused.status, refused.json()["error"]["code"].as_str()), (403, Some("permission_denied")));
    assert_eq!(refused.headers["x-should-retry"], "false");

    let wide = client("sk-e2e-canary-wide");
    assert_eq!(models(&wide).await, ["chat", "embed"], "a key does not widen");
    assert_eq!(ask(&wide, EMBEDDINGS, embed("embed", "x")).await.status, 403);
    let slim = client("sk-e2e-canary-slim");
    assert_eq!(models(&slim).await, ["embed"]);
    assert_eq!(outcome(&slim, "chat").await, refusal(404, "model_not_found"));
    assert_eq!(outcome(&client("sk-e2e-canary-late"), "chat").await, refusal(403, "permission_denied"));
    assert_eq!(outcome(&client("sk-e2e-canary-old"), "chat").await, refusal(401, "key_expired"));
    assert_eq!(outcome(&client("tm_0123456789_sk-e2e-canary-mistyped"), "chat").await, refusal(401, "invalid_api_key"));

    until("the log names the key by its id", SOON, async || mill.has_logged(&["\"tenant\":\"trial\"", "\"key\":\"trial/slim\""])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_token_speaks_for_a_tenant_in_a_role_and_a_scope() {
    let issuer = Issuer::start("id").await;
    let mill = Mill::up().sections(ROLES).sections(&format!("issuers:\n{}", issuer.entry())).start().await;
    let bearer = |token: &str| mill.client_of(0, token);
    let good = bearer(&issuer.sign(&claims()));
    for _ in 0..2 {
        assert_eq!(outcome(&good, "chat").await, refusal(200, ""));
    }
    assert_eq!(models(&good).await, ["chat", "narrow", "embed"]);
    assert_eq!(models(&bearer(&issuer.sign(&with("role", json!("free"))))).await, ["chat", "embed"]);
    assert_eq!(models(&bearer(&issuer.sign(&with("scope", json!("openid models:narrow"))))).await, ["narrow"]);

    let now = unix_seconds();
    let cases = [
        (with("aud", json!("other")), 401, "invalid_token"),
        (with("iss", json!("https://other")), 401, "invalid_token"),
        (with("exp", json!(now - 3_600)), 401, "token_expired"),
        (with("nbf", json!(now + 3_600)), 401, "invalid_token"),
        (with("tenant", json!("nobody")), 403, "permission_denied"),
        (with("role", json!("nothing")), 403, "permission_denied"),
        (with("scope", json!("endpoints:embeddings")), 403, "permission_denied"),
    ];
    for (claims, status, code) in cases {
        assert_eq!(outcome(&bearer(&issuer.sign(&claims)), "chat").await, refusal(status, code), "{claims}");
    }
    for token in forged(&issuer) {
        assert_eq!(outcome(&bearer(&token), "chat").await, refusal(401, "invalid_token"), "{token}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_issuers_keys_come_over_https_from_who_shows_a_certificate_that_is_trusted() {
    let trusted = Issuer::start_secure("trusted", &AUTHORITY.server()).await;
    let posing = Issuer::start_secure("posing", &Authority::new().server()).await;
    let mill = Mill::up().sections(&format!("issuers:\n{}{}", trusted.entry(), posing.entry())).start().await;
    let bearer = |issuer: &Issuer| mill.client_of(0, &issuer.sign(&claims()));
    assert_eq!(outcome(&bearer(&trusted), "chat").await, refusal(200, ""));
    assert_eq!(outcome(&bearer(&posing), "chat").await, refusal(503, "issuer_unavailable"));
    assert_eq!((trusted.fetches(), posing.fetches()), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_issuer_is_asked_once_in_a_while_and_may_be_away_or_change_its_keys() {
    let (away, mut rotating) = (Issuer::start("away").await, Issuer::start("rotating").await);
    let mill = Mill::up().sections(&format!("issuers:\n{}{}", away.entry(), rotating.entry())).start().await;
    let bearer = |token: &str| mill.client_of(0, token);
    let old = bearer(&rotating.sign(&claims()));
    assert_eq!(outcome(&old, "chat").await, refusal(200, ""));
    let strangers = away.strangers(100);
    let asks = strangers.iter().map(|token| async { outcome(&bearer(token), "chat").await });
    let flood = futures::future::join_all(asks).await;
    assert!(flood.iter().all(|outcome| *outcome == refusal(401, "invalid_token")), "{flood:?}");
    assert_eq!(away.fetches(), 1, "the one at the start");

    away.go_away();
    rotating.rotate("second");
    let new = bearer(&rotating.sign(&claims()));
    assert_eq!(outcome(&new, "chat").await, refusal(401, "invalid_token"));
    until("both issuers are asked again", NEXT_FETCH, async || {
        outcome(&bearer(&strangers[0]), "chat").await;
        outcome(&new, "chat").await.0 == 200 && away.fetches() == 2
    })
    .await;
    assert_eq!(outcome(&old, "chat").await, refusal(401, "invalid_token"), "its key is withdrawn");
    assert_eq!(outcome(&bearer(&away.sign(&claims())), "chat").await, refusal(200, ""), "by the last good keys");
    assert_eq!((away.fetches(), rotating.fetches()), (2, 2));
}
