//! Promise: keys, tenants and roles are administered without a restart, every ingress hears of it at once, and who did what
//! is on record.

use crate::harness::{KEY, KEY_ADMIN, Mill, PEPPER, RawConnection, SOON, administer, chat, prompt, report, until};
use loadtest::client::Client;
use loadtest::clock::Stopwatch;
use serde_json::{Value, json};
use std::time::Duration;

/// Keys that are blocked to see how fast.
const BLOCKED: usize = 60;

/// Far above what a busy machine needs; the figure itself is reported.
const HEARD_WITHIN: Duration = Duration::from_secs(5);

async fn cli_json(admin: &str, args: &[&str]) -> Value {
    let out = administer(admin, args).await;
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{args:?} printed {out}: {error}"))
}

/// A request that the load generator's client does not know; status and body.
async fn send(admin: &str, method: &str, path: &str, key: &str, more: &str, body: &Value) -> (u16, Value) {
    let body = body.to_string();
    let head =
        format!("{method} {path} HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {key}\r\n{more}content-length: {}\r\n\r\n", body.len());
    let mut connection = RawConnection::open(admin).await;
    connection.send(format!("{head}{body}").as_bytes()).await;
    let answer = connection.answer(SOON).await.expect("an answer");
    (answer.status, serde_json::from_str(&answer.body).unwrap_or_default())
}

async fn put(admin: &str, path: &str, more: &str, body: Value) -> (u16, Value) {
    send(admin, "PUT", path, KEY_ADMIN, more, &body).await
}

/// The code that a call with this key ends with; empty when it is answered.
async fn call(base: &str, key: &str) -> String {
    let answer = Client::new(base, key).post("/v1/chat/completions", chat("chat", &prompt("tide"))).await.expect("an answer");
    if answer.status == 200 { String::new() } else { answer.code() }
}

async fn all_say(bases: &[String], key: &str, code: &str) {
    for base in bases {
        until(&format!("{base} says `{code}`"), HEARD_WITHIN, async || call(base, key).await == code).await;
    }
}

/// Asks an ingress until it refuses a key; how long after `began` that was. The model list needs no worker.
async fn refused_after(base: &str, key: &str, began: &Stopwatch) -> Duration {
    let client = Client::new(base, key);
    while client.get("/v1/models").await.expect("an answer").code() != "key_blocked" {
        assert!(began.elapsed() < HEARD_WITHIN, "a blocked key is still accepted");
    }
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_issued_used_rotated_and_blocked_on_every_ingress() {
    let mut mill = Mill::cluster(2, 1, 1).admin().start().await;
    let (admin, bases) = (mill.admin(0).await, [mill.ingress(0).to_owned(), mill.ingress(1).to_owned()]);

    let created =
        cli_json(&admin, &["keys", "create", "--tenant", "first", "--name", "ci", "--models", "chat", "--expires", "30d", "--json"]).await;
    let (id, key) = (created["id"].as_str().unwrap().to_owned(), created["key"].as_str().unwrap().to_owned());
    all_say(&bases, &key, "").await;

    let rotated = administer(&admin, &["keys", "rotate", &id, "--overlap", "1h"]).await;
    assert_ne!(rotated, key);
    all_say(&bases, &rotated, "").await;
    all_say(&bases, &key, "").await;
    let last = administer(&admin, &["keys", "rotate", &id, "--overlap", "0s"]).await;
    all_say(&bases, &last, "").await;
    for old in [&key, &rotated] {
        all_say(&bases, old, "invalid_api_key").await;
    }

    administer(&admin, &["keys", "block", &id]).await;
    all_say(&bases, &last, "key_blocked").await;
    let listed = administer(&admin, &["keys", "list", "--tenant", "first"]).await;
    assert!(listed.contains(&id) && listed.contains("blocked"), "{listed}");

    let changes = administer(&admin, &["audit", "export"]).await;
    let actions: Vec<Value> = changes.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let made: Vec<_> = actions.iter().filter(|change| change["stage"] == "made").map(|change| change["action"].as_str().unwrap()).collect();
    assert_eq!(made, ["create", "rotate", "rotate", "block"]);
    assert!(actions.iter().all(|change| change["who"]["tenant"] == "ops" && change["who"]["from"].is_string() && change["name"] == *id));

    let used = async || administer(&admin, &["audit", "export", "--calls", "--tenant", "first"]).await;
    until("the calls are on record", SOON, async || used().await.contains(&id)).await;
    for (secret, what) in
        [(&*key, "a key"), (&rotated, "a key"), (&last, "a key"), (KEY, "a key"), (PEPPER, "the pepper"), ("xylocanary", "a prompt")]
    {
        assert!(!format!("{changes}{listed}{}", used().await).contains(secret), "{what} is on record");
    }
    assert!(!changes.contains("digest") && !changes.contains("hash"), "{changes}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_key_is_refused_on_both_ingresses_in_milliseconds() {
    let mut mill = Mill::cluster(2, 1, 1).admin().start().await;
    let (admin, bases) = (mill.admin(0).await, [mill.ingress(0).to_owned(), mill.ingress(1).to_owned()]);
    let office = Client::new(&admin, KEY_ADMIN);
    let mut spans = Vec::with_capacity(2 * BLOCKED);
    for _ in 0..BLOCKED {
        let created = office.post("/admin/keys", json!({ "tenant": "first" }).to_string()).await.unwrap().json();
        let (id, key) = (created["id"].as_str().unwrap(), created["key"].as_str().unwrap());
        for base in &bases {
            until("the key is known", HEARD_WITHIN, async || Client::new(base, key).get("/v1/models").await.unwrap().status == 200).await;
        }
        let blocked = office.post(&format!("/admin/keys/{id}/block"), "").await.unwrap();
        let began = Stopwatch::start();
        assert_eq!(blocked.status, 200, "{}", blocked.text());
        let (one, other) = tokio::join!(refused_after(&bases[0], key, &began), refused_after(&bases[1], key, &began));
        spans.extend([one, other]);
    }
    spans.sort_unstable();
    let at = |share: usize| spans[(spans.len() - 1) * share / 100];
    report(
        "key-block",
        &format!("a blocked key is refused after the answer to the block: p50 {:?}, p99 {:?}, max {:?}", at(50), at(99), at(100)),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_made_by_who_may_and_has_seen_what_it_replaces() {
    let mut mill = Mill::up().admin().start().await;
    let (admin, base) = (mill.admin(0).await, [mill.ingress(0).to_owned()]);

    for (key, code) in [(KEY, 403), ("sk-nobodys", 401)] {
        assert_eq!(send(&admin, "GET", "/admin/tenants", key, "", &json!({})).await.0, code);
    }
    assert_eq!(put(&admin, "/admin/tenants/first", "", json!({ "weight": 2 })).await.1["error"]["code"], "read_only");

    let (status, role) = put(&admin, "/admin/roles/narrow", "", json!({ "models": ["chat"] })).await;
    assert_eq!(status, 201, "{role}");
    let (status, tenant) = put(&admin, "/admin/tenants/shop%20one", "", json!({ "role": "narrow" })).await;
    assert_eq!(status, 400, "a name with a space is none: {tenant}");
    let (status, tenant) = put(&admin, "/admin/tenants/shop", "", json!({ "role": "narrow" })).await;
    assert_eq!(status, 201, "{tenant}");
    assert_eq!(put(&admin, "/admin/tenants/shop", "", json!({})).await.0, 409, "it is there already");

    let created = cli_json(&admin, &["keys", "create", "--tenant", "shop", "--json"]).await;
    let key = created["key"].as_str().unwrap();
    all_say(&base, key, "").await;
    let seen = format!("if-match: \"{}\"\r\n", role["revision"]);
    let (status, changed) = put(&admin, "/admin/roles/narrow", &seen, json!({ "models": ["embed"] })).await;
    assert_eq!(status, 200, "{changed}");
    all_say(&base, key, "model_not_found").await;
    let (status, conflict) = put(&admin, "/admin/roles/narrow", &seen, json!({ "models": ["*"] })).await;
    assert_eq!((status, &conflict["error"]["code"]), (409, &json!("conflict")));
    assert_eq!(send(&admin, "DELETE", "/admin/roles/narrow", KEY_ADMIN, "", &json!({})).await.0, 409, "a tenant has it");

    let (_, audit) = send(&admin, "GET", "/admin/audit", KEY_ADMIN, "", &json!({})).await;
    let update = audit["data"].as_array().unwrap().iter().find(|entry| entry["action"] == "update").unwrap();
    assert_eq!((&update["before"]["models"], &update["after"]["models"]), (&json!(["chat"]), &json!(["embed"])));

    until("the usage is summed", SOON, async || {
        let (_, limits) = send(&admin, "GET", "/admin/limits/shop", KEY_ADMIN, "", &json!({})).await;
        limits["used"]["month"]["calls"].as_u64().is_some_and(|calls| calls >= 1)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_of_a_tenants_limits_is_shown_as_the_ledger_has_it() {
    let mut mill = Mill::cluster(1, 1, 1).admin().quota("{ requests_per_minute: 60, tokens_per_day: 100000 }").start().await;
    let (admin, base) = (mill.admin(0).await, mill.ingress(0).to_owned());
    for _ in 0..3 {
        assert_eq!(call(&base, KEY).await, "");
    }
    let live = async || send(&admin, "GET", "/admin/limits/first", KEY_ADMIN, "", &json!({})).await.1["live"].take();
    until("the calls are settled", SOON, async || live().await[0]["tenant"]["open"] == 0).await;
    let shown = live().await;
    let (ledgers, tenant) = (shown.as_array().expect("a list").len(), &shown[0]["tenant"]);
    assert_eq!((ledgers, &tenant["requests"]["limit"], &tenant["tokens"]), (1, &json!(60), &Value::Null), "{shown}");
    assert!(tenant["requests"]["remaining"].as_u64().is_some_and(|left| (57..60).contains(&left)), "{shown}");
    assert!(tenant["settled"]["day"]["tokens"].as_u64().is_some_and(|tokens| tokens > 0), "{shown}");
    assert_eq!(tenant["reserved"]["tokens"], 0, "{shown}");
    let (_, unlimited) = send(&admin, "GET", "/admin/limits/second", KEY_ADMIN, "", &json!({})).await;
    assert_eq!(unlimited["live"], json!([]), "who has no limits is not counted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhooks_are_looked_at_and_driven_by_who_may() {
    let mut mill = Mill::up().admin().start().await;
    let admin = mill.admin(0).await;
    let ask = async |method, path, key| send(&admin, method, path, key, "", &json!({})).await;
    assert_eq!(ask("GET", "/admin/webhooks", KEY_ADMIN).await, (200, json!({ "data": [] })));
    assert_eq!(ask("GET", "/admin/webhooks?tennant=first", KEY_ADMIN).await.0, 400);
    let (status, refused) = ask("POST", "/admin/webhooks/evt_none/redeliver", KEY_ADMIN).await;
    assert_eq!((status, &refused["error"]["code"]), (404, &json!("not_found")));
    assert_eq!(ask("GET", "/admin/webhooks", KEY).await.0, 403);
}
