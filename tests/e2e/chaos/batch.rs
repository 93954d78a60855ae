//! edge: a batch's caller: uploads the rows, waits at any ingress until the batch has ended, and reads what became of each.

use super::ask::Ask;
use super::deferred::{LOOK_EVERY, id, insist};
use super::journal::{Entry, Kind, Outcome, Why};
use super::load::{self, Load};
use serde_json::{Value, json};

const BOUNDARY: &str = "e2e-boundary";

pub(super) async fn run(load: &Load, kind: Kind, rows: u64) {
    let first = load.numbers(rows);
    let calls: Vec<u64> = (first..first + rows).collect();
    calls.iter().for_each(|call| load.asked(*call, kind, Why::Load, "", load.front.turn(first)));
    match submit(load, kind, &calls).await {
        Err(outcome) => calls.iter().for_each(|call| load.ended(*call, outcome.clone())),
        Ok(batch) => {
            load.journal.note(Entry::Accepted { id: batch.clone(), calls });
            if let Some(batch) = ended(load, first, &batch).await {
                read(load, first, kind, &batch).await;
            }
        }
    }
}

async fn submit(load: &Load, kind: Kind, calls: &[u64]) -> Result<String, Outcome> {
    let url = load::path(kind);
    let row = |call: &u64| {
        let body: Value = serde_json::from_str(&load::body(kind, &load.prompt(*call, ""))).expect("our own JSON");
        json!({ "custom_id": call.to_string(), "method": "POST", "url": url, "body": body }).to_string()
    };
    let form = form(&calls.iter().map(row).collect::<Vec<_>>().join("\n"));
    let kind_of_form = format!("multipart/form-data; boundary={BOUNDARY}");
    let upload = Ask::post("/v1/files", form).with(&[("content-type", &kind_of_form)]);
    let file = insist(load, calls[0], 200, &upload).await?;
    let wanted = json!({ "input_file_id": id(&file), "endpoint": url, "completion_window": "24h" }).to_string();
    let batch = insist(load, calls[0], 200, &Ask::post("/v1/batches", wanted)).await?;
    Ok(id(&batch))
}

fn form(content: &str) -> String {
    let field =
        |disposition: &str, value: &str| format!("--{BOUNDARY}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{value}\r\n");
    format!("{}{}--{BOUNDARY}--\r\n", field("name=\"purpose\"", "batch"), field("name=\"file\"; filename=\"rows.jsonl\"", content))
}

/// The batch at its end; `None` when the run was over first.
async fn ended(load: &Load, call: u64, batch: &str) -> Option<Value> {
    let path = format!("/v1/batches/{batch}");
    loop {
        let batch = insist(load, call, 200, &Ask::get(&path)).await.ok()?.json();
        if matches!(batch["status"].as_str(), Some("completed" | "failed" | "expired" | "cancelled")) {
            return Some(batch);
        }
        if load.is_over() {
            return None;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Notes the end of each row in either file.
async fn read(load: &Load, call: u64, kind: Kind, batch: &Value) {
    for file in ["output_file_id", "error_file_id"].iter().filter_map(|name| batch[*name].as_str()) {
        let path = format!("/v1/files/{file}/content");
        let Ok(content) = insist(load, call, 200, &Ask::get(&path)).await else { return };
        for row in content.text().lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            let number = row["custom_id"].as_str().and_then(|id| id.parse().ok());
            load.ended(number.expect("a row of ours"), of_row(kind, &row));
        }
    }
}

fn of_row(kind: Kind, row: &Value) -> Outcome {
    let body = &row["response"]["body"];
    if row["response"]["status_code"] == 200 {
        return Outcome::Answered { digest: load::digest(kind, body), request: String::new() };
    }
    let code = row["error"]["code"].as_str().or_else(|| body["error"]["code"].as_str()).unwrap_or_default();
    Outcome::Refused { status: 0, code: code.to_owned() }
}
