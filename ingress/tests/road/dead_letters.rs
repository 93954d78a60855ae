//! A job that failed for good is a dead letter until somebody has dealt with it.

use crate::harness::{CHAT, Http, Stand};
use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;
use shared::broker::{Broker, Journal, LaneFilter, Store};
use shared::config::{Admin, Secret, Tenant};
use shared::domain::{Lane, Token};
use shared::entropy;
use shared::error::{Code, Failure};
use shared::identity::{self, Role};
use shared::jobs::{self, Commit, Outcome};
use shared::wire::{Envelope, JobRef, Usage, decode};
use std::net::SocketAddr;
use std::time::Duration;

const KEY_ADMIN: &str = "sk-test-ops";
const CANARY: &str = "xylocanary";
const LETTERS: &str = "/admin/dead-letters";

pub(crate) struct Office {
    pub(crate) stand: Stand,
    admin: Http,
}

impl Office {
    pub(crate) async fn open() -> Self {
        let stand = Stand::with(|config| {
            config.admin = Some(Admin { listen: SocketAddr::from(([127, 0, 0, 1], 0)) });
            config.roles.push(Role { name: "admin".into(), admin: identity::Admin::Write, ..Role::default() });
            let ops = Tenant::unlimited("ops", Secret::literal(KEY_ADMIN).unwrap());
            config.tenants.push(Tenant { role: Some("admin".into()), ..ops });
        })
        .await;
        let admin = Http::new(stand.ingress.admin_addr().unwrap());
        Self { stand, admin }
    }

    /// Submits a job; its id.
    async fn submit(&self, content: &str) -> Token {
        let body = format!(r#"{{"model":"sandbox-chat","messages":[{{"role":"user","content":"{content}"}}]}}"#);
        let headers = [("authorization", "Bearer sk-test-1"), ("content-type", "application/json"), ("prefer", "respond-async")];
        let answer = self.stand.http.send("POST", CHAT, &headers, body).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.body);
        Token::parse(json(&answer.body)["id"].as_str().unwrap()).unwrap()
    }

    /// Ends a job badly, as its last worker would.
    async fn fail(&self, job: &Token, code: Code) {
        let of = JobRef { job: job.clone(), part: 0, row: 0, line: false, again: false };
        let failure = Some(Box::new(Failure::new(code, "It did not work out")));
        let outcome = Outcome { row: 0, id: entropy::request_id(), exec: None, failure, usage: Usage::default(), blob: None };
        jobs::commit(self.stand.broker.as_ref(), vec![Commit { tenant: "one".into(), of, outcome, body: Bytes::new() }]).await;
    }

    pub(crate) async fn dead(&self, content: &str) -> Token {
        let job = self.submit(content).await;
        self.fail(&job, Code::BackendUnreachable).await;
        job
    }

    pub(crate) async fn ask(&self, method: &str, path: &str) -> (u16, Value) {
        let answer = self.admin.send(method, path, &[("authorization", "Bearer sk-test-ops")], "").await;
        assert!(!answer.body.contains(CANARY), "a prompt is shown: {}", answer.body);
        (answer.status.as_u16(), json(&answer.body))
    }

    /// Kind, action and stage of each entry of the audit journal.
    pub(crate) async fn deeds(&self) -> Vec<[String; 3]> {
        let (_, audit) = self.ask("GET", "/admin/audit").await;
        let entries = audit["data"].as_array().unwrap().iter();
        entries.map(|entry| ["kind", "action", "stage"].map(|field| entry[field].as_str().unwrap().to_owned())).collect()
    }

    async fn letters(&self) -> Vec<Value> {
        self.ask("GET", LETTERS).await.1["data"].as_array().unwrap().clone()
    }

    pub(crate) async fn redrive(&self, job: &Token) -> (u16, Value) {
        self.ask("POST", &format!("{LETTERS}/{job}/redrive")).await
    }

    /// What waits in the lane of jobs.
    async fn lane(&self) -> Vec<(Envelope, Bytes)> {
        let filter = LaneFilter { lane: Lane::Async, model: Token::of_model("sandbox-chat"), part: 0 };
        let mut puller = self.stand.broker.puller(&filter).await.unwrap();
        let deliveries = puller.pull(16, Duration::from_millis(10)).await.unwrap();
        let parts = deliveries.into_iter().flat_map(|delivery| decode(&delivery.frame).unwrap());
        parts.map(|part| (part.decode().unwrap(), part.body)).collect()
    }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| panic!("no JSON: {text}"))
}

#[tokio::test]
async fn a_job_that_failed_for_good_is_listed_until_it_is_run_again() {
    let office = Office::open().await;
    let job = office.dead(CANARY).await;
    let callers_fault = office.submit(CANARY).await;
    office.fail(&callers_fault, Code::BackendRejected).await;
    let letters = office.letters().await;
    let fields = ["job", "tenant", "model", "op", "code", "reason"].map(|field| letters[0][field].as_str().unwrap().to_owned());
    assert_eq!(fields, [job.as_str(), "one", "sandbox-chat", "chat", "backend_unreachable", "It did not work out"]);
    assert_eq!(letters.len(), 1);

    let (status, redriven) = office.redrive(&job).await;
    assert_eq!((status, redriven["redrive_of"].as_str()), (201, Some(job.as_str())), "{redriven}");
    assert_eq!((office.letters().await.len(), office.redrive(&job).await.0), (0, 404), "it is dealt with");
    let lane = office.lane().await;
    let [(first, asked), _, (again, asked_again)] = &lane[..] else { panic!("{} in the lane", lane.len()) };
    assert_eq!((asked, &first.model, first.tokens_in), (asked_again, &again.model, again.tokens_in));
    assert_eq!(again.job.as_ref().unwrap().job.as_str(), redriven["job"]);
    assert_ne!(first.id, again.id);
    let path = format!("/v1/jobs/{}", redriven["job"].as_str().unwrap());
    let shown = office.stand.http.send("GET", &path, &[("authorization", "Bearer sk-test-1")], "").await;
    assert_eq!((json(&shown.body)["status"].as_str(), json(&shown.body)["redrive_of"].as_str()), (Some("queued"), Some(job.as_str())));
}

#[tokio::test]
async fn a_letter_is_put_away_and_every_deed_is_on_record() {
    let office = Office::open().await;
    let job = office.dead("hi").await;
    let again = Token::parse(office.redrive(&job).await.1["job"].as_str().unwrap()).unwrap();
    office.fail(&again, Code::Lost).await;
    let path = format!("{LETTERS}/{again}");
    let (status, letter) = office.ask("GET", &path).await;
    assert_eq!((status, letter["redrive_of"].as_str()), (200, Some(job.as_str())));
    assert_eq!(office.ask("DELETE", &path).await.0, 200);
    assert_eq!((office.ask("GET", &path).await.0, office.letters().await.len()), (404, 0));
    let of = |action| ["intent", "made"].map(|stage| ["dead-letter", action, stage]);
    assert_eq!(office.deeds().await, [of("redrive"), of("delete")].concat());
}

#[tokio::test]
async fn a_large_request_is_run_again_with_a_body_of_its_own() {
    let office = Office::open().await;
    let job = office.dead(&"x".repeat(600_000)).await;
    assert_eq!(office.redrive(&job).await.0, 201);
    let lane = office.lane().await;
    let [(first, _), (again, _)] = &lane[..] else { panic!("{} in the lane", lane.len()) };
    let (first, again) = (first.claim.as_ref().unwrap(), again.claim.as_ref().unwrap());
    assert_eq!(first.hash, again.hash);
    assert_ne!(first.key, again.key, "the first goes when its job is forgotten");
    let body = office.stand.broker.blob_get(Store::Files, &again.key).await.unwrap().unwrap();
    assert_eq!(*blake3::hash(&body).as_bytes(), again.hash[..]);
}

#[tokio::test]
async fn what_is_not_kept_any_more_cannot_be_run_again_and_stays_listed() {
    let office = Office::open().await;
    let job = office.dead("hi").await;
    office.stand.broker.erase(Journal::Results, &jobs::input_topic(&job), None).await.unwrap();
    assert_eq!(office.redrive(&job).await.0, 404);
    assert_eq!(office.letters().await.len(), 1);
}
