//! Promise: schedulers that share a Redis keep one bucket between them, from however many callers and sides it is asked, and
//! never give out more than it holds and refills.

use crate::harness::{KEY, Mill, RedisServer, Role, SOON, chat, embed, prompt, report, until};
use futures::future::join_all;
use loadtest::client::Client;
use shared::clock;
use std::time::Duration;
use tokio::time::timeout;

const CHAT: &str = "/v1/chat/completions";

const REQUESTS: u32 = 100;
const TOKENS: u32 = 50_000;

/// What was admitted of the callers' requests, the tokens that they used, and how often they were refused.
#[derive(Clone, Copy, Debug, Default)]
struct Admitted {
    requests: u32,
    tokens: u64,
    refused: u32,
}

impl Admitted {
    const fn and(self, other: Self) -> Self {
        Self { requests: self.requests + other.requests, tokens: self.tokens + other.tokens, refused: self.refused + other.refused }
    }
}

/// Asks one model after the other through one ingress, and leaves every third request alone before it is answered.
async fn hammer(client: Client, caller: usize, filler: &str, until: clock::Time) -> Admitted {
    let mut admitted = Admitted::default();
    for n in caller.. {
        if clock::now() >= until {
            break;
        }
        let text = prompt(&format!("hammer {n}{filler}"));
        let (path, body) =
            if n % 3 == 2 { ("/v1/embeddings", embed("embed", &text)) } else { (CHAT, chat(["chat", "narrow"][n % 3], &text)) };
        let patience = Duration::from_millis(if n % 3 == 0 { 3 } else { 60_000 });
        let Ok(answer) = timeout(patience, client.post(path, body)).await else { continue };
        let answer = answer.expect("an answer");
        match answer.status {
            200 => {
                admitted.requests += 1;
                admitted.tokens += answer.json()["usage"]["total_tokens"].as_u64().expect("usage");
            }
            429 => {
                admitted.refused += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            other => panic!("{other}: {answer:?}"),
        }
    }
    admitted
}

/// From 64 callers through both ingresses. Returns the seconds it took, too.
async fn hammer_from_all_sides(mill: &Mill, filler: &str, span: Duration) -> (Admitted, f64) {
    let (begun, end) = (clock::now(), clock::now() + span);
    let callers = (0..64).map(|caller| hammer(mill.client_of(caller % 2, KEY), caller, filler, end));
    let sum = join_all(callers).await.into_iter().fold(Admitted::default(), Admitted::and);
    (sum, clock::now().since(begun).as_secs_f64())
}

/// What a bucket of a minute's worth may give out in a time.
fn allowed(bucket: u32, seconds: f64) -> f64 {
    f64::from(bucket) + (f64::from(bucket) * seconds / 60.0).ceil()
}

/// Two ingresses, four schedulers, two workers.
async fn mill(quota: &str, redis: &RedisServer) -> Mill {
    let sections = format!("redis: {{ url: \"{}\" }}\n", redis.url());
    Mill::cluster(2, 4, 2).quota(quota).sections(&sections).start().await
}

async fn none_is_reserved(redis: &RedisServer, within: Duration) {
    let ledger = redis.ledger().await;
    until("every reservation has ended", within, async || ledger.look("first", &[]).await.is_ok_and(|look| look.tenant.open == 0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bucket_serves_four_schedulers_and_is_never_overdrawn() {
    let redis = RedisServer::start().await;
    let mut mill = mill(&format!("{{ requests_per_minute: {REQUESTS}, tokens_per_minute: {TOKENS} }}"), &redis).await;
    let (sum, seconds) = hammer_from_all_sides(&mill, "", Duration::from_secs(6)).await;
    report("limits", &format!("64 callers, 2 ingress, 4 schedulers, by requests: {sum:?} in {seconds:.1} s"));
    let within = |sum: Admitted, seconds: f64| {
        assert!(f64::from(sum.requests) <= allowed(REQUESTS, seconds), "{sum:?} in {seconds} s");
        assert!(sum.tokens as f64 <= allowed(TOKENS, seconds), "{sum:?} in {seconds} s");
    };
    within(sum, seconds);
    assert!(sum.requests >= REQUESTS / 2, "{sum:?}: the bucket was there to be used");
    none_is_reserved(&redis, SOON).await;

    mill.kill(Role::Scheduler, 0);
    let (again, more) = hammer_from_all_sides(&mill, "", Duration::from_secs(6)).await;
    within(sum.and(again), seconds + more + 8.0);
    none_is_reserved(&redis, Duration::from_secs(45)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bucket_of_tokens_serves_four_schedulers_and_is_never_overdrawn() {
    let redis = RedisServer::start().await;
    let mill = mill(&format!("{{ tokens_per_minute: {TOKENS} }}"), &redis).await;
    let (sum, seconds) = hammer_from_all_sides(&mill, &" and so on".repeat(200), Duration::from_secs(8)).await;
    report("limits-tokens", &format!("64 callers, 2 ingress, 4 schedulers, by tokens: {sum:?} in {seconds:.1} s"));
    assert!(sum.tokens as f64 <= allowed(TOKENS, seconds), "{sum:?} in {seconds} s");
    assert!(sum.refused > 0, "{sum:?}: the bucket was never empty");
    assert!(sum.tokens >= u64::from(TOKENS / 2), "{sum:?}: the bucket was there to be used");
    none_is_reserved(&redis, SOON).await;
}
