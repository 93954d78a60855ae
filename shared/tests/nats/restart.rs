//! A server that is killed and started again on the same port and store.

use super::{SOON, bytes, connect, filter, pull_one, raw, start_in, subject};
use bytes::Bytes;
use shared::broker::nats::child::NatsServer;
use shared::broker::{Address, Broker, BrokerError, Bucket, Entry, Feed, Follower, Journal, Record, Since, Store, Topic};
use shared::domain::Lane::{Async, Interactive};
use shared::domain::{NodeId, Token};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;

#[tokio::test]
async fn the_interactive_lane_goes_on_in_a_new_epoch_and_the_deferred_lane_in_its_own() {
    let folder = TempDir::new().unwrap();
    let server = start_in(&folder, None).await;
    let port = server.port();
    let broker = connect(&server).await;
    let mut interactive = broker.puller(&filter(Interactive)).await.unwrap();
    let mut deferred = broker.puller(&filter(Async)).await.unwrap();
    let lost = broker.publish(&subject(Interactive, "a"), "lost", bytes("lost")).await.unwrap();
    let kept = broker.publish(&subject(Async, "a"), "kept", bytes("kept")).await.unwrap();

    server.kill().await;
    // Published while nobody is there: it goes through as soon as the server is back.
    let to = subject(Interactive, "a");
    let (published, _server) = tokio::join!(broker.publish(&to, "new", bytes("new")), start_in(&folder, Some(port)));

    let published = published.unwrap();
    assert_ne!(published.epoch, lost.epoch);
    let delivery = pull_one(&mut interactive).await;
    assert_eq!((&delivery.frame[..], delivery.epoch, delivery.sequence), (&b"new"[..], published.epoch, published.sequence));
    broker.ack_verified(&delivery.token).await.unwrap();

    let again = broker.publish(&subject(Async, "a"), "kept", bytes("kept")).await.unwrap();
    assert!(again.duplicate, "what is still stored is known over a restart");
    assert_eq!((again.sequence, again.epoch), (kept.sequence, kept.epoch));
    let delivery = pull_one(&mut deferred).await;
    assert_eq!((&delivery.frame[..], delivery.epoch, delivery.sequence), (&b"kept"[..], kept.epoch, kept.sequence));
}

#[tokio::test]
async fn a_reader_that_waits_is_woken_by_what_comes_after_the_restart() {
    let folder = TempDir::new().unwrap();
    let server = start_in(&folder, None).await;
    let port = server.port();
    let broker = connect(&server).await;
    let mut puller = broker.puller(&filter(Interactive)).await.unwrap();
    let restart = async {
        server.kill().await;
        let server = start_in(&folder, Some(port)).await;
        broker.publish(&subject(Interactive, "a"), "1", bytes("late")).await.unwrap();
        server
    };
    let (delivery, _server) = tokio::join!(pull_one(&mut puller), restart);
    assert_eq!(&delivery.frame[..], b"late");
}

#[tokio::test]
async fn a_follower_goes_on_where_it_was_after_the_restart() {
    let folder = TempDir::new().unwrap();
    let server = start_in(&folder, None).await;
    let port = server.port();
    let broker = connect(&server).await;
    let topic = Token::parse("t").unwrap().into();
    let mut follower = broker.follow(&Feed::Journal(Journal::Audit, None), Since::Start).await.unwrap();
    broker.append(Journal::Audit, &topic, "1", bytes("before")).await.unwrap();
    let first = follower.next(Duration::from_millis(500)).await.unwrap().expect("the first entry");

    server.kill().await;
    assert!(matches!(follower.next(Duration::from_millis(100)).await, Err(BrokerError::Unavailable(_))), "silence is not \"nothing new\"");
    let _server = start_in(&folder, Some(port)).await;
    broker.append(Journal::Audit, &topic, "2", bytes("after")).await.unwrap();
    let second = next(&mut follower).await;
    assert_eq!((first.value, second.value), (Some(bytes("before")), Some(bytes("after"))));
    assert!(second.sequence > first.sequence);
}

#[tokio::test]
async fn records_results_and_files_survive() {
    let folder = TempDir::new().unwrap();
    let server = start_in(&folder, None).await;
    let port = server.port();
    let broker = connect(&server).await;
    let job = Token::parse("job").unwrap();
    let revision = broker.record_create(Bucket::Jobs, "t.job", bytes("running")).await.unwrap();
    broker.record_create(Bucket::Files, "t.file", bytes("known")).await.unwrap();
    broker.append(Journal::Results, &Topic::of(&[&job, &job]), "1", bytes("outcome")).await.unwrap();
    let content = Bytes::from(vec![7; 1_500_000]);
    broker.blob_put(Store::Files, "t.file.0", content.clone()).await.unwrap();
    let held = broker.publish(&subject(Async, "a"), "held", bytes("held")).await.unwrap();
    let mut outcomes = broker.follow(&Feed::Journal(Journal::Results, Some(job.into())), Since::Now).await.unwrap();

    server.kill().await;
    let _server = start_in(&folder, Some(port)).await;
    assert_eq!(broker.record_get(Bucket::Jobs, "t.job").await.unwrap().unwrap(), Record { value: bytes("running"), revision });
    assert_eq!(broker.record_get(Bucket::Files, "t.file").await.unwrap().unwrap().value, bytes("known"));
    assert!(broker.blob_get(Store::Files, "t.file.0").await.unwrap() == Some(content));
    assert!(broker.holds(Async, held.epoch, held.sequence).await.unwrap());
    broker
        .append(Journal::Results, &Topic::of(&[&Token::parse("job").unwrap(), &Token::parse("2").unwrap()]), "2", bytes("next"))
        .await
        .unwrap();
    let entry = next(&mut outcomes).await;
    assert_eq!(entry.value, Some(bytes("next")), "a reader from before the restart hears what comes after it, and nothing else");
}

/// The next entry, over whatever happens to the connection meanwhile.
async fn next(follower: &mut Box<dyn Follower>) -> Entry {
    let next = async {
        loop {
            if let Ok(Some(entry)) = follower.next(SOON).await {
                return entry;
            }
        }
    };
    timeout(SOON, next).await.expect("it goes on")
}

#[tokio::test]
async fn revisions_of_leases_grow_over_restarts() {
    let folder = TempDir::new().unwrap();
    let mut server = start_in(&folder, None).await;
    let port = server.port();
    let broker = connect(&server).await;
    let mut last = 0;
    for round in 0..3 {
        let key = format!("lease-{round}");
        let revision = record_create(&*broker, &key).await;
        assert!(revision > last, "{revision} after {last}");
        last = broker.record_update(Bucket::Leases, &key, bytes("mine"), revision).await.unwrap();
        if round == 1 {
            // The last write before the crash is the mark of a deletion,
            broker.record_delete(Bucket::Leases, &key, last).await.unwrap();
            last += 1;
        } else if round == 2 {
            // and once, nothing but the count itself is left to remember it by.
            emptied(&server).await;
        }
        server.kill().await;
        server = start_in(&folder, Some(port)).await;
    }
    assert!(record_create(&*broker, "after").await > last);
}

async fn emptied(server: &NatsServer) {
    let expired = async {
        while raw(server).await.get_stream("KV_tidemill_leases").await.unwrap().cached_info().state.messages > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    timeout(SOON, expired).await.expect("leases expire");
}

/// A write whose outcome is unknown is not repeated by the broker, so here it is.
async fn record_create(broker: &dyn Broker, key: &str) -> u64 {
    let created = async {
        loop {
            match broker.record_create(Bucket::Leases, key, bytes("mine")).await {
                Ok(revision) => return revision,
                Err(BrokerError::Unavailable(_)) => {}
                Err(other) => panic!("{other}"),
            }
        }
    };
    timeout(SOON, created).await.expect("a lease in time")
}

#[tokio::test]
async fn an_inbox_hears_again_after_the_restart() {
    let folder = TempDir::new().unwrap();
    let server = start_in(&folder, None).await;
    let port = server.port();
    let broker = connect(&server).await;
    let mut inbox = broker.listen(&Address::Heartbeats).await.unwrap();
    server.kill().await;
    let _server = start_in(&folder, Some(port)).await;
    broker.post(&Address::Heartbeats, bytes("alive")).await.unwrap();
    assert_eq!(timeout(SOON, inbox.next()).await.unwrap().unwrap(), "alive");
}

#[tokio::test]
async fn without_a_server_a_call_ends_in_time_and_says_why() {
    let folder = TempDir::new().unwrap();
    let server = start_in(&folder, None).await;
    let broker = connect(&server).await;
    server.kill().await;
    let published = timeout(SOON, broker.publish(&subject(Interactive, "a"), "1", bytes("x"))).await.expect("an end in time");
    assert!(matches!(published, Err(BrokerError::Unavailable(_))), "{published:?}");
    assert!(!broker.is_connected());
}

#[tokio::test]
async fn the_nodes_of_one_process_need_no_server_between_them() {
    let folder = TempDir::new().unwrap();
    let server = start_in(&folder, None).await;
    let broker = connect(&server).await;
    let (sender, mut heard) = mpsc::unbounded_channel();
    let at = Address::Ingress(NodeId::parse("here").unwrap());
    let attached = broker.attach(&at, Arc::new(move |frame| drop(sender.send(frame)))).await.unwrap();
    server.kill().await;
    broker.post(&at, bytes("in the meantime")).await.unwrap();
    assert_eq!(heard.try_recv().unwrap(), "in the meantime");
    drop(attached);
    assert_eq!(timeout(SOON, heard.recv()).await.unwrap(), None);
}
