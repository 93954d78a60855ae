//! Who is told that deferred work has ended, and what the administration may do about it.

use crate::dead_letters::Office;
use crate::harness::{CHAT, CHAT_BODY, Stand, soon};
use http::StatusCode;
use serde_json::json;
use shared::broker::{Broker, Bucket};
use shared::clock;
use shared::config::{SigningSecret, Webhook};
use shared::domain::Token;
use shared::jobs::{self, Batch, File, Job};

const SECRET: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

/// The record of a job that the first tenant asks for.
async fn job(stand: &Stand) -> Job {
    let headers = [("authorization", "Bearer sk-test-1"), ("content-type", "application/json"), ("prefer", "respond-async")];
    let answer = stand.http.send("POST", CHAT, &headers, CHAT_BODY).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.body);
    jobs::all::<Job>(stand.broker.as_ref(), "one").await.unwrap().remove(0).value
}

/// The record of a batch that the first tenant asks for.
async fn batch(stand: &Stand) -> Batch {
    let file = json!({
        "id": "file-1", "tenant": "one", "name": "f", "purpose": "batch", "bytes": 1, "lines": 1, "parts": 0, "created_ms": 0,
    });
    jobs::create(stand.broker.as_ref(), &serde_json::from_value::<File>(file).unwrap()).await.unwrap();
    let body = json!({ "input_file_id": "file-1", "endpoint": CHAT, "completion_window": "24h" });
    let answer = stand.http.post("/v1/batches", body.to_string()).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    jobs::all::<Batch>(stand.broker.as_ref(), "one").await.unwrap().remove(0).value
}

#[tokio::test]
async fn what_is_asked_for_while_nobody_wants_to_hear_is_never_told() {
    let stand = Stand::start().await;
    assert!(job(&stand).await.notified, "a webhook that comes later is told of a job");
    assert!(batch(&stand).await.notified, "a webhook that comes later is told of a batch");
}

#[tokio::test]
async fn what_is_asked_for_by_who_wants_to_hear_is_still_to_be_told() {
    let (url, secret) = ("https://hooks.example.com/".parse().unwrap(), SigningSecret::parse(SECRET).unwrap());
    let stand = Stand::with(|config| config.tenants[0].webhooks.push(Webhook { url, secret, events: Vec::new() })).await;
    assert!(!job(&stand).await.notified);
}

#[tokio::test]
async fn a_job_that_is_run_again_while_nobody_wants_to_hear_is_never_told() {
    let office = Office::open().await;
    let dead = office.dead("hi").await;
    let (_, redriven) = office.redrive(&dead).await;
    let again = Token::parse(redriven["job"].as_str().unwrap()).unwrap();
    assert!(jobs::get::<Job>(office.stand.broker.as_ref(), "one", &again).await.unwrap().unwrap().value.notified);
}

#[tokio::test]
async fn an_event_that_is_delivered_again_is_on_record() {
    let office = Office::open().await;
    let given_up = json!({
        "tenant": "one", "event": "evt_1", "kind": "job.failed", "url": "https://hooks.example.com/", "body": "{}", "since_ms": 1,
        "attempts": 1, "next_ms": 1, "taken_until_ms": 0, "by": "ingress-1", "last": null, "given_up_ms": clock::unix_ms(),
    });
    let key = format!("{}.evt_1.0123456789ab", Token::of_name("one"));
    office.stand.broker.record_create(Bucket::Hooks, &key, given_up.to_string().into()).await.unwrap();
    soon(async { while office.ask("GET", "/admin/webhooks").await.1["data"] == json!([]) {} }).await;

    let (status, answer) = office.ask("POST", "/admin/webhooks/evt_1/redeliver").await;
    assert_eq!((status, &answer["deliveries"]), (202, &json!(1)), "{answer}");
    let (status, answer) = office.ask("POST", "/admin/webhooks/evt_none/redeliver").await;
    assert_eq!((status, &answer["error"]["code"]), (404, &json!("not_found")), "{answer}");
    let of = |stage| ["webhook", "redeliver", stage];
    assert_eq!(office.deeds().await, [of("intent"), of("made"), of("intent"), of("refused")]);
}
