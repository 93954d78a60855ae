//! Promise: a job that failed for good is listed with the reason, never with what was asked, until it is run again or put away.

use crate::harness::{Mill, SOON, administer, chat, prompt, until};

const CHAT: &str = "/v1/chat/completions";

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_dead_letter_is_listed_run_again_and_put_away() {
    let mut mill = Mill::up().nats().admin().start().await;
    let admin = mill.admin(0).await;
    let dead = async |args: &[&str]| administer(&admin, &[&["dead"], args].concat()).await;
    let failing = chat("chat", &prompt("[[fault:status=500]]"));
    let accepted = mill.client().post_with(CHAT, &[("prefer", "respond-async")], failing).await.expect("an answer");
    assert_eq!(accepted.status, 202, "{accepted:?}");
    let job = accepted.json()["id"].as_str().expect("a job").to_owned();

    until("the job is listed", SOON, async || dead(&["list", "--tenant", "first"]).await.contains(&job)).await;
    let shown = dead(&["show", &job]).await;
    assert!(shown.contains("backend_status") && shown.contains("\"tenant\": \"first\""), "{shown}");

    let again = dead(&["redrive", &job]).await;
    until("its repetition is listed", SOON, async || dead(&["list"]).await.starts_with(&again)).await;
    let shown = dead(&["show", &again]).await;
    assert!(shown.contains(&format!("\"redrive_of\": \"{job}\"")), "{shown}");
    dead(&["purge", &again]).await;
    assert_eq!(dead(&["list"]).await, "");
}
