//! Streams and consumers that somebody deletes while they are in use, without the connection breaking, and a server that stalls.

use super::{bytes, connect, filter, pull_one, raw, start, subject};
use shared::broker::{Address, Broker, BrokerError, Feed, Journal, Since};
use shared::domain::Lane::Interactive;
use std::time::Duration;
use tokio::process::Command;

#[tokio::test]
async fn a_deleted_stream_is_made_anew_in_a_new_epoch() {
    let (server, _folder) = start().await;
    let broker = connect(&server).await;
    let mut puller = broker.puller(&filter(Interactive)).await.unwrap();
    let before = broker.publish(&subject(Interactive, "a"), "1", bytes("before")).await.unwrap();
    let delivery = pull_one(&mut puller).await;
    raw(&server).await.delete_stream("QI").await.unwrap();
    assert_eq!(broker.ack_verified(&delivery.token).await, Err(BrokerError::Gone));

    let after = broker.publish(&subject(Interactive, "a"), "2", bytes("after")).await.unwrap();
    assert_ne!(after.epoch, before.epoch);
    let delivery = pull_one(&mut puller).await;
    assert_eq!((&delivery.frame[..], delivery.epoch), (&b"after"[..], after.epoch));
}

#[tokio::test]
async fn a_deleted_consumer_is_made_anew_and_misses_nothing() {
    let (server, _folder) = start().await;
    let broker = connect(&server).await;
    let mut puller = broker.puller(&filter(Interactive)).await.unwrap();
    let stored = broker.publish(&subject(Interactive, "a"), "1", bytes("x")).await.unwrap();
    pull_one(&mut puller).await;
    let name = format!("{}_0", filter(Interactive).model);
    raw(&server).await.delete_consumer_from_stream(name, "QI").await.unwrap();
    let again = pull_one(&mut puller).await;
    assert_eq!((again.sequence, again.epoch), (stored.sequence, stored.epoch));
    broker.ack_verified(&again.token).await.unwrap();
}

/// Promise: a stall that outlasts the wait for one answer costs time, and nothing else.
#[tokio::test]
async fn what_is_opened_while_the_server_stalls_is_open_when_it_goes_on() {
    let (server, _folder) = start().await;
    let broker = connect(&server).await;
    let id = server.process_id().unwrap().to_string();
    let signal = async |name: &str| assert!(Command::new("kill").args(["-s", name, &id]).status().await.unwrap().success());
    signal("STOP").await;
    let go_on = async {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        signal("CONT").await;
    };
    let (journal, lane) = (Feed::Journal(Journal::Audit, None), filter(Interactive));
    let (listens, follows, pulls, ()) =
        tokio::join!(broker.listen(&Address::Cancels), broker.follow(&journal, Since::Now), broker.puller(&lane), go_on);
    let refused = [listens.err(), follows.err(), pulls.err()];
    assert_eq!(refused, [None, None, None]);
}
