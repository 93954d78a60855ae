//! Promise: a Redis that is killed, flushed, paused or slow in the middle of the load costs no caller more than a bounded wait;
//! budgets go on for the stated grace and then close; and once it is back they are right to the token.

use crate::harness::{KEY, Mill, Proxy, RedisServer, SOON, chat, prompt, until};
use futures::future::{join, join_all};
use loadtest::client::{Answer, Client};
use shared::clock::{self, Time};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::sleep;

const TIMEOUT_MS: u64 = 250;
const GRACE: Duration = Duration::from_millis(2_000);

/// The wait for a Redis that does not answer, once for the asking and once for a wait at the ingress, and what a busy machine
/// adds.
const BOUND: Duration = Duration::from_millis(2 * TIMEOUT_MS + 2_000);

const CALLERS: usize = 8;

/// One answer: when it was asked for and how long it took, what it was, and the tokens it used.
#[derive(Clone, Copy, Debug)]
struct Seen {
    asked: Time,
    took: Duration,
    is_answer: bool,
    tokens: u64,
}

fn seen(asked: Time, answer: &Answer) -> Seen {
    let (json, took) = (answer.json(), clock::now().since(asked));
    let is_answer = answer.status == 200;
    assert!(is_answer || json["error"]["code"] == "limits_unavailable", "{answer:?}");
    assert!(took < BOUND, "{took:?}: {answer:?}");
    Seen { asked, took, is_answer, tokens: json["usage"]["total_tokens"].as_u64().unwrap_or(0) }
}

async fn call(client: &Client, text: &str) -> Seen {
    let asked = clock::now();
    let answer = client.post("/v1/chat/completions", chat("chat", &prompt(text))).await.expect("an answer");
    seen(asked, &answer)
}

/// What callers see who ask without a pause while `trouble` happens. Every answer is one of those allowed, in time.
async fn under_load(mill: &Mill, trouble: impl Future<Output = ()>) -> Vec<Seen> {
    let is_over = AtomicBool::new(false);
    let caller = async |caller: usize| {
        let (client, mut all) = (mill.client_of(0, KEY), Vec::new());
        while !is_over.load(Ordering::Relaxed) {
            all.push(call(&client, &format!("caller {caller}, request {}", all.len())).await);
            sleep(Duration::from_millis(5)).await;
        }
        all
    };
    let ended = async {
        trouble.await;
        is_over.store(true, Ordering::Relaxed);
    };
    let (all, ()) = join(join_all((0..CALLERS).map(caller)), ended).await;
    all.concat()
}

/// One tenant with a budget, and its limits in the Redis at `url`.
async fn mill(url: &str) -> Mill {
    let grace_ms = GRACE.as_millis();
    let sections = format!("redis: {{ url: \"{url}\", timeout_ms: {TIMEOUT_MS}, grace_ms: {grace_ms} }}\n");
    Mill::up().nats().quota("{ requests_per_minute: 10000000, tokens_per_month: 100000000 }").sections(&sections).start().await
}

async fn moment() {
    sleep(Duration::from_millis(700)).await;
}

fn answers(all: &[Seen]) -> usize {
    all.iter().filter(|one| one.is_answer).count()
}

/// The next requests are answered; then Redis knows, to the token, what all of them have used.
async fn budgets_are_right_again(mill: &Mill, redis: &RedisServer, before: &[Seen]) {
    let (client, ledger) = (mill.client_of(0, KEY), redis.ledger().await);
    let mut tokens: u64 = before.iter().map(|one| one.tokens).sum();
    let mut last = false;
    until("requests are answered again", SOON, async || {
        let one = call(&client, "again").await;
        tokens += one.tokens;
        std::mem::replace(&mut last, one.is_answer) && one.is_answer
    })
    .await;
    let used = async || ledger.look("first", &[]).await.ok()?.tenant.settled.map(|totals| totals.month.tokens);
    until(&format!("the month's {tokens} tokens are known"), SOON, async || used().await == Some(tokens)).await;
}

/// Budgets go on for the grace, then close.
fn assert_closed_after_the_grace(all: &[Seen], lost: Time) {
    let closed = lost + GRACE;
    let early = all.iter().find(|one| !one.is_answer && one.asked + one.took < closed);
    assert!(early.is_none(), "refused within the grace: {early:?}, lost at {lost:?}");
    let late = closed + Duration::from_millis(TIMEOUT_MS + 500);
    let spent = all.iter().find(|one| one.is_answer && one.asked > late);
    assert!(spent.is_none(), "admitted after the grace: {spent:?}, lost at {lost:?}");
    let within = all.iter().filter(|one| one.is_answer && one.asked > lost && one.asked < closed).count();
    assert!(within > CALLERS, "{within} answers within the grace");
    assert!(all.iter().any(|one| one.asked > late), "nobody asked after it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_redis_closes_budgets_after_the_grace_and_they_are_right_when_it_is_back() {
    let mut redis = RedisServer::start().await;
    let mill = mill(&redis.url()).await;
    let mut lost = clock::now();
    let trouble = async {
        moment().await;
        redis.kill().await;
        lost = clock::now();
        sleep(GRACE).await;
        moment().await;
        moment().await;
    };
    let all = under_load(&mill, trouble).await;
    assert_closed_after_the_grace(&all, lost);
    redis.restart().await;
    budgets_are_right_again(&mill, &redis, &all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_redis_closes_budgets_after_the_grace_and_they_are_right_when_it_goes_on() {
    let redis = RedisServer::start().await;
    let mill = mill(&redis.url()).await;
    let mut lost = clock::now();
    let trouble = async {
        moment().await;
        lost = clock::now();
        redis.signal("STOP").await;
        sleep(GRACE).await;
        moment().await;
        moment().await;
    };
    let all = under_load(&mill, trouble).await;
    assert_closed_after_the_grace(&all, lost);
    redis.signal("CONT").await;
    budgets_are_right_again(&mill, &redis, &all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flushed_redis_costs_nobody_an_answer() {
    let redis = RedisServer::start().await;
    let mill = mill(&redis.url()).await;
    let trouble = async {
        for _ in 0..3 {
            moment().await;
            redis.flush().await;
        }
        moment().await;
    };
    let all = under_load(&mill, trouble).await;
    assert_eq!(answers(&all), all.len(), "all are answered");
    budgets_are_right_again(&mill, &redis, &all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_redis_is_waited_for_and_a_slower_one_is_not() {
    let redis = RedisServer::start().await;
    let proxy = Proxy::start(redis.port()).await;
    let mill = mill(&proxy.url()).await;
    let slow = Duration::from_millis(200);
    let mut since = clock::now();
    let trouble = async {
        moment().await;
        proxy.delay(slow);
        since = clock::now();
        moment().await;
        moment().await;
    };
    let waited = under_load(&mill, trouble).await;
    assert_eq!(answers(&waited), waited.len(), "200 ms are within the timeout");
    assert!(waited.iter().filter(|one| one.asked > since).all(|one| one.took >= slow), "Redis was asked for each of them");
    let trouble = async {
        proxy.delay(2 * slow);
        moment().await;
        moment().await;
        proxy.delay(Duration::ZERO);
        moment().await;
    };
    let all = [waited, under_load(&mill, trouble).await].concat();
    assert_eq!(answers(&all), all.len(), "and without it they are answered too");
    budgets_are_right_again(&mill, &redis, &all).await;
}
