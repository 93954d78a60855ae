//! edge: a job's caller: submits it under a name until it is taken, then looks at any ingress until it has ended.

use super::ask::Ask;
use super::journal::{Entry, Kind, Outcome, Why};
use super::load::{self, Load};
use crate::harness::KEY;
use loadtest::client::Answer;
use std::time::Duration;

/// Between two looks.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(500);
/// One question's time: who does not answer is stopped or cut off, and the other ingress is asked.
const ANSWER_MAX: Duration = Duration::from_secs(8);

pub(super) async fn job(load: &Load, call: u64) {
    load.asked(call, Kind::Job, Why::Load, "", load.front.turn(call));
    let name = format!("chaos-{}-{call}", load.seed);
    let headers = [("prefer", "respond-async"), ("idempotency-key", name.as_str())];
    let body = load::body(Kind::Job, &load.prompt(call, ""));
    let ask = Ask::post(load::path(Kind::Job), body).with(&headers);
    let job = match insist(load, call, 202, &ask).await {
        Ok(answer) => id(&answer),
        Err(outcome) => return load.ended(call, outcome),
    };
    load.journal.note(Entry::Accepted { id: job.clone(), calls: vec![call] });
    while !load.is_over() {
        if let Some(outcome) = look(load, call, &job).await {
            return load.ended(call, outcome);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// How a job has ended; `None` while it has not, or nobody says.
pub(super) async fn look(load: &Load, call: u64, id: &str) -> Option<Outcome> {
    let path = format!("/v1/jobs/{id}");
    let job = insist(load, call, 200, &Ask::get(&path)).await.ok()?.json();
    let request = format!("req_{}", id.rsplit('_').next().unwrap_or_default());
    match job["status"].as_str()? {
        "succeeded" => Some(Outcome::Answered { digest: load::digest(Kind::Job, &job["result"]), request }),
        "failed" | "expired" | "cancelled" => {
            Some(Outcome::Refused { status: 0, code: job["error"]["code"].as_str().unwrap_or_default().to_owned() })
        }
        _ => None,
    }
}

/// Asks one ingress after the other until one answers with this status.
///
/// # Errors
/// What was last seen when the run was over.
pub(super) async fn insist(load: &Load, call: u64, status: u16, ask: &Ask<'_>) -> Result<Answer, Outcome> {
    let first = load.front.turn(call);
    for attempt in 0.. {
        let last = match tokio::time::timeout(ANSWER_MAX, ask.whole(load.front.client(first + attempt, KEY))).await {
            Ok(Ok(answer)) if answer.status == status => return Ok(answer),
            Ok(Ok(answer)) => Outcome::Refused { status: answer.status, code: answer.code() },
            Ok(Err(error)) => Outcome::NoConnection { why: error.to_string() },
            Err(_) => Outcome::NoConnection { why: "no answer".into() },
        };
        if load.is_over() {
            return Err(last);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    unreachable!("attempts do not end")
}

/// A field of an answer that is an id.
pub(super) fn id(answer: &Answer) -> String {
    answer.json()["id"].as_str().unwrap_or_default().to_owned()
}
