//! edge: checks of journals and of feeds.

use super::{MOMENT, Pair, SOON};
use crate::broker::{Broker, Bucket, Entry, Feed, Follower, Journal, Since, Topic};
use crate::clock;
use crate::domain::Token;
use bytes::Bytes;
use std::time::Duration;

const BUCKET: Bucket = Bucket::Identity;

fn topic(name: &str) -> Topic {
    Token::parse(name).expect("a token").into()
}

fn text(entry: &Entry) -> String {
    entry.value.as_ref().map_or_else(|| "deleted".into(), |value| String::from_utf8_lossy(value).into_owned())
}

async fn append(broker: &dyn Broker, of: &str, text: &str) -> u64 {
    let id = format!("{of}-{text}");
    broker.append(Journal::Usage, &topic(of), &id, Bytes::from(text.to_owned())).await.expect("appended")
}

async fn follow(pair: &Pair, of: Option<&str>, since: Since) -> Box<dyn Follower> {
    pair.other.follow(&Feed::Journal(Journal::Usage, of.map(topic)), since).await.expect("a reader")
}

/// The next entries, as many as are there now.
async fn read(follower: &mut Box<dyn Follower>) -> Vec<Entry> {
    let mut all = Vec::new();
    while let Some(entry) = follower.next(MOMENT).await.expect("an answer") {
        all.push(entry);
    }
    all
}

pub(super) async fn a_topic_is_read_in_order_and_by_everybody(pair: Pair) {
    let first = append(&*pair.one, "order", "1").await;
    append(&*pair.one, "order-other", "x").await;
    let second = append(&*pair.other, "order", "2").await;
    assert!(second > first);
    for _ in 0..2 {
        let mut follower = follow(&pair, Some("order"), Since::Start).await;
        let entries = read(&mut follower).await;
        assert_eq!(entries.iter().map(text).collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(entries.iter().map(|e| e.sequence).collect::<Vec<_>>(), [first, second]);
        assert_eq!(entries.iter().map(|e| e.more).collect::<Vec<_>>(), [true, false]);
        assert!(entries.iter().all(|e| &*e.key == "order"));
    }
}

pub(super) async fn the_same_entry_is_appended_once(pair: Pair) {
    let first = append(&*pair.one, "once", "1").await;
    assert_eq!(append(&*pair.other, "once", "1").await, first);
    assert_eq!(read(&mut follow(&pair, Some("once"), Since::Start).await).await.len(), 1);
}

pub(super) async fn a_reader_hears_what_is_appended_later(pair: Pair) {
    let mut follower = follow(&pair, Some("later"), Since::Start).await;
    assert_eq!(follower.next(MOMENT).await, Ok(None));
    let (came, _) = tokio::join!(follower.next(SOON), append(&*pair.one, "later", "1"));
    assert_eq!(came.expect("an answer").as_ref().map(text).as_deref(), Some("1"));
    append(&*pair.one, "later", "2").await;
    assert_eq!(read(&mut follower).await.iter().map(text).collect::<Vec<_>>(), ["2"]);
}

pub(super) async fn a_reader_may_begin_at_a_time(pair: Pair) {
    append(&*pair.one, "time", "before").await;
    tokio::time::sleep(MOMENT).await;
    let stored = read(&mut follow(&pair, Some("time"), Since::Start).await).await[0].stored;
    append(&*pair.one, "time", "after").await;
    let mut follower = follow(&pair, Some("time"), Since::Time(stored + Duration::from_millis(1))).await;
    assert_eq!(read(&mut follower).await.iter().map(text).collect::<Vec<_>>(), ["after"]);
    let age = clock::unix().saturating_sub(stored);
    assert!(age < SOON * 8, "{age:?}");
}

pub(super) async fn all_topics_are_read_in_order(pair: Pair) {
    let begun = append(&*pair.one, "all-a", "1").await;
    append(&*pair.one, "all-b", "2").await;
    let entries = read(&mut follow(&pair, None, Since::Start).await).await;
    let mine: Vec<_> = entries.iter().filter(|e| e.key.starts_with("all-")).map(text).collect();
    assert_eq!(mine, ["1", "2"]);
    assert!(entries.iter().any(|e| e.sequence == begun));
    assert!(entries.is_sorted_by_key(|e| e.sequence));
}

pub(super) async fn followed_records_begin_with_their_present_state(pair: Pair) {
    let value = |text: &'static str| Bytes::from_static(text.as_bytes());
    let first = pair.one.record_create(BUCKET, "feed.a", value("1")).await.expect("created");
    pair.one.record_update(BUCKET, "feed.a", value("2"), first).await.expect("updated");
    let mine = |entries: Vec<Entry>| -> Vec<(String, String)> {
        let ours = entries.iter().filter(|e| e.key.starts_with("feed."));
        ours.map(|e| (e.key.to_string(), text(e))).collect()
    };
    let pairs = |all: &[(&str, &str)]| -> Vec<(String, String)> { all.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect() };
    let mut follower = pair.other.follow(&Feed::Records(BUCKET, None), Since::Start).await.expect("a reader");
    assert_eq!(mine(read(&mut follower).await), pairs(&[("feed.a", "2")]));

    let second = pair.one.record_create(BUCKET, "feed.b", value("3")).await.expect("created");
    pair.other.record_delete(BUCKET, "feed.b", second).await.expect("deleted");
    let third = pair.one.record_create(BUCKET, "feed.b", value("4")).await.expect("created");
    let changes = mine(read(&mut follower).await);
    // One that is changed again before it is read may be read once, as it is then.
    assert_eq!(changes.last(), pairs(&[("feed.b", "4")]).last(), "{changes:?}");
    pair.one.record_delete(BUCKET, "feed.b", third).await.expect("deleted");
    assert_eq!(mine(read(&mut follower).await), pairs(&[("feed.b", "deleted")]));
}

pub(super) async fn followed_jobs_and_files_are_apart(pair: Pair) {
    for (bucket, text) in [(Bucket::Jobs, "a job"), (Bucket::Files, "a file")] {
        let value = Bytes::from_static(text.as_bytes());
        let first = pair.one.record_create(bucket, "tenant.same-key", Bytes::new()).await.expect("created");
        pair.other.record_update(bucket, "tenant.same-key", value, first).await.expect("updated");
    }
    for (bucket, expected) in [(Bucket::Jobs, "a job"), (Bucket::Files, "a file")] {
        let mut follower = pair.other.follow(&Feed::Records(bucket, None), Since::Start).await.expect("a reader");
        let entries = read(&mut follower).await;
        let mine: Vec<_> = entries.iter().filter(|entry| &*entry.key == "tenant.same-key").map(text).collect();
        assert_eq!(mine, [expected]);
    }
}

pub(super) async fn records_may_be_followed_from_now_on(pair: Pair) {
    let first = pair.one.record_create(Bucket::Jobs, "now.a", Bytes::from_static(b"before")).await.expect("created");
    let mut follower = pair.other.follow(&Feed::Records(Bucket::Jobs, None), Since::Now).await.expect("a reader");
    pair.one.record_create(Bucket::Jobs, "now.b", Bytes::from_static(b"after")).await.expect("created");
    pair.one.record_update(Bucket::Jobs, "now.a", Bytes::from_static(b"again"), first).await.expect("updated");
    let entries = read(&mut follower).await;
    let mine: Vec<_> = entries.iter().filter(|e| e.key.starts_with("now.")).map(|e| format!("{} {}", e.key, text(e))).collect();
    assert_eq!(mine, ["now.b after", "now.a again"]);
}

pub(super) async fn a_long_list_is_read_to_its_end_without_waiting(pair: Pair) {
    const RECORDS: usize = 3_000;
    for chunk in (0..RECORDS).collect::<Vec<_>>().chunks(100) {
        let create = |n: &usize| {
            let (broker, key) = (pair.one.clone(), format!("long.{n}"));
            async move { broker.record_create(Bucket::Files, &key, Bytes::from_static(b"x")).await }
        };
        futures::future::try_join_all(chunk.iter().map(create)).await.expect("created");
    }
    let long = Feed::Records(Bucket::Files, Some(topic("long")));
    for _ in 0..10 {
        let (mut follower, mut read) = (pair.other.follow(&long, Since::Start).await.expect("a reader"), 0);
        while let Some(entry) = follower.next(Duration::ZERO).await.expect("an answer") {
            read += 1;
            if !entry.more {
                break;
            }
        }
        assert_eq!(read, RECORDS);
    }
}

pub(super) async fn the_records_of_one_owner_are_followed_apart(pair: Pair) {
    for key in ["mine.a", "mine.b", "mine-too.a"] {
        pair.one.record_create(Bucket::Files, key, Bytes::from_static(b"x")).await.expect("created");
    }
    let record = pair.other.record_get(Bucket::Files, "mine.b").await.expect("read").expect("is there");
    pair.other.record_delete(Bucket::Files, "mine.b", record.revision).await.expect("deleted");
    let mine = Feed::Records(Bucket::Files, Some(Token::parse("mine").expect("a token").into()));
    let mut follower = pair.other.follow(&mine, Since::Start).await.expect("a reader");
    let keys: Vec<_> = read(&mut follower).await.into_iter().map(|entry| entry.key.to_string()).collect();
    assert_eq!(keys, ["mine.a"], "nothing stays of a deleted record in this bucket");
    pair.one.record_create(Bucket::Files, "mine.b", Bytes::from_static(b"y")).await.expect("it can be created again");
}
