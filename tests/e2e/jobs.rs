//! Promise: a job that waits says where it stands, and when it may begin.

use crate::harness::{Mill, SOON, chat, prompt, until};
use loadtest::client::Client;
use serde_json::Value;

const JOBS: usize = 10;

async fn submit(client: &Client, n: usize) -> String {
    let body = chat("narrow", &prompt(&format!("{n} [[delay:700]]")));
    let accepted = client.post_with("/v1/chat/completions", &[("prefer", "respond-async")], body).await.expect("an answer");
    assert_eq!(accepted.status, 202, "{accepted:?}");
    accepted.json()["id"].as_str().expect("a job").to_owned()
}

async fn standing(client: &Client, id: &str) -> (Option<u64>, Option<u64>, Value) {
    let job = client.get(&format!("/v1/jobs/{id}")).await.expect("an answer").json();
    (job["position"].as_u64(), job["estimated_start_at"].as_u64(), job["created_at"].clone())
}

async fn waiting_jobs_know_their_place(mill: Mill) {
    let client = mill.client();
    let mut ids = Vec::new();
    for n in 0..JOBS {
        ids.push(submit(&client, n).await);
    }
    let (middle, last) = (&ids[JOBS / 2], &ids[JOBS - 1]);
    until("the last stands behind the others", SOON, async || {
        let ((before, ..), (position, ..)) = (standing(&client, middle).await, standing(&client, last).await);
        matches!((before, position), (Some(before), Some(position)) if before < position && position >= 3 && position <= JOBS as u64)
    })
    .await;
    until("its beginning is foreseen", SOON, async || {
        let (_, start, created) = standing(&client, last).await;
        start.is_some_and(|start| start > created.as_u64().expect("a time"))
    })
    .await;
    for id in &ids {
        let ended = async || client.get(&format!("/v1/jobs/{id}")).await.is_ok_and(|answer| answer.json()["status"] == "succeeded");
        until("it is done", SOON, ended).await;
        assert_eq!(standing(&client, id).await.0, None, "it waits no longer");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_waiting_job_knows_its_place_in_process() {
    waiting_jobs_know_their_place(Mill::up().start().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_waiting_job_knows_its_place_over_jetstream() {
    waiting_jobs_know_their_place(Mill::cluster(2, 1, 1).start().await).await;
}
