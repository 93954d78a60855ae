//! Readers of feeds, of which a server bears so many at once.

use super::{SOON, bytes, connect, raw, start};
use async_nats::jetstream::{Context, consumer};
use futures::TryStreamExt;
use serde_json::json;
use shared::broker::{Broker, BrokerError, Feed, Journal, Since, Topic};
use shared::domain::Token;
use std::time::Duration;

/// More than a server allows that is left to its own default.
const READERS: usize = 1_100;

#[tokio::test]
async fn a_reader_that_goes_makes_room_at_the_server() {
    let (server, _folder) = start().await;
    let (broker, raw) = (connect(&server).await, raw(&server).await);
    let consumers = async || raw.get_stream("tidemill_results").await.unwrap().cached_info().state.consumer_count;
    let feed = Feed::Journal(Journal::Results, None);
    let mut readers = Vec::with_capacity(READERS);
    for _ in 0..READERS {
        readers.push(broker.follow(&feed, Since::Start).await.unwrap());
    }
    assert_eq!(consumers().await, READERS);
    drop(readers);
    let emptied = async {
        while consumers().await > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(SOON, emptied).await.is_ok(), "{} are left", consumers().await);
    server.stop().await;
}

/// The stream's only consumer is kept from sending, or let go on. False: the server is older than 2.11, which learnt it.
async fn pause(raw: &Context, stream: &str, pause: bool) -> bool {
    let consumers: Vec<consumer::Info> = raw.get_stream(stream).await.unwrap().consumers().try_collect().await.unwrap();
    let until = if pause { "2100-01-01T00:00:00Z" } else { "1970-01-02T00:00:00Z" };
    let operation = format!("CONSUMER.PAUSE.{stream}.{}", consumers[0].name);
    let answer = raw.request(operation, &json!({ "pause_until": until })).await;
    answer.is_ok_and(|answer: serde_json::Value| answer.get("error").is_none())
}

/// Promise: a reader is told that there is nothing only where there is nothing, however long the server takes.
#[tokio::test]
async fn what_is_there_and_does_not_come_is_not_taken_for_nothing() {
    let (server, _folder) = start().await;
    let (broker, raw) = (connect(&server).await, raw(&server).await);
    let of = |name: &str| Topic::of(&[&Token::parse("job").unwrap(), &Token::parse(name).unwrap()]);
    for part in ["1", "2"] {
        broker.append(Journal::Results, &of(part), part, bytes("outcome")).await.unwrap();
    }
    let mut follower = broker.follow(&Feed::Journal(Journal::Results, None), Since::Start).await.unwrap();
    if !pause(&raw, "tidemill_results", true).await {
        eprintln!("not tried: {} cannot pause a consumer", broker.describe());
        return;
    }
    let withheld = follower.next(Duration::from_millis(100)).await;
    assert!(matches!(withheld, Err(BrokerError::Unavailable(_))), "{withheld:?}");
    broker.erase(Journal::Results, &of("1"), None).await.unwrap();
    broker.erase(Journal::Results, &of("2"), None).await.unwrap();
    assert_eq!(follower.next(Duration::from_millis(100)).await, Ok(None), "what was there is erased");
    broker.append(Journal::Results, &of("3"), "3", bytes("outcome")).await.unwrap();
    assert!(pause(&raw, "tidemill_results", false).await);
    assert_eq!(&*follower.next(SOON).await.unwrap().unwrap().key, "job.3");
    server.stop().await;
}
