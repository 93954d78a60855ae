//! edge: what is on record when all has ended: what was billed, and what is still reserved.

use super::journal::{Entry, Journal};
use super::stage::Stage;
use loadtest::client::Client;
use loadtest::clock::Stopwatch;
use serde_json::Value;
use std::time::Duration;

/// A reservation that nobody renews runs out after 30 s.
const RESERVED_MAX: Duration = Duration::from_secs(45);
/// Ended calls are appended within moments; the last of them once their worker sees the broker again.
const BILLED_WITHIN: Duration = Duration::from_secs(2);
/// A page that cannot be had just now is asked for again.
const PAGE_TRIES: usize = 10;
const PAGE_AGAIN: Duration = Duration::from_secs(1);

pub(super) async fn read(stage: &mut Stage, journal: &Journal) {
    let open = reserved(stage).await;
    journal.note(Entry::Reserved { tenant: "first".into(), open });
    tokio::time::sleep(BILLED_WITHIN).await;
    let office = stage.administration(0).await;
    for call in billed(&office, journal).await {
        let field = |name: &str| call[name].as_str().unwrap_or_default().to_owned();
        let tokens = tokens(&call);
        journal.note(Entry::Billed { request: field("request"), end: field("end"), tokens });
    }
    let used = office.get("/admin/limits/first").await.expect("an answer").json();
    journal.note(Entry::Spent { tenant: "first".into(), tokens: tokens(&used["used"]["month"]) });
}

/// What stays open when every reservation has had its time.
async fn reserved(stage: &Stage) -> u64 {
    let (ledger, began) = (stage.redis.ledger().await, Stopwatch::start());
    loop {
        let open = ledger.look("first", &[]).await.map_or(u64::MAX, |look| look.tenant.open);
        if open == 0 || began.elapsed() > RESERVED_MAX {
            return open;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn tokens(of: &Value) -> u64 {
    ["input_tokens", "output_tokens"].iter().filter_map(|name| of[*name].as_u64()).sum()
}

/// Every record of the first tenant in the usage journal, page by page.
async fn billed(office: &Client, journal: &Journal) -> Vec<Value> {
    let (mut all, mut since, mut after, mut is_last) = (Vec::new(), 0, 0, false);
    loop {
        let page = page(office, since, after).await;
        let calls = page["data"].as_array().expect("a page of calls");
        match (is_last, calls.is_empty()) {
            (true, true) => return all,
            // All has ended: this was there when it was said that there is no more.
            (true, false) => journal.note(Entry::KeptBack { behind: after }),
            (false, _) => {}
        }
        all.extend(calls.iter().cloned());
        (since, after) = (page["next"]["since"].as_u64().unwrap_or(since), page["next"]["after"].as_u64().unwrap_or(after));
        is_last = page["has_more"] == false;
    }
}

/// It may take a moment on two cores that are still busy with what has piled up.
async fn page(office: &Client, since: u64, after: u64) -> Value {
    let path = format!("/admin/usage?tenant=first&limit=1000&since={since}&after={after}");
    for _ in 0..PAGE_TRIES {
        let answer = office.get(&path).await.expect("an answer");
        if answer.status == 200 {
            return answer.json();
        }
        eprintln!("{path}: {}", answer.text());
        tokio::time::sleep(PAGE_AGAIN).await;
    }
    panic!("{path} cannot be read");
}
