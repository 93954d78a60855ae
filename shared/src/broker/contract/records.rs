//! edge: checks of records.

use super::{MOMENT, Pair, SOON};
use crate::broker::{Broker, BrokerError, Bucket, LEASE_TTL, Record};
use crate::clock;
use bytes::Bytes;
use futures::future::join_all;
use std::time::Duration;
use tokio::time::sleep;

const BUCKET: Bucket = Bucket::Leases;

fn value(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

/// The current record, read by the other handle: what was written is read.
async fn get(pair: &Pair, key: &str) -> Option<Record> {
    pair.other.record_get(BUCKET, key).await.expect("an answer")
}

async fn create(broker: &dyn Broker, key: &str, text: &'static str) -> Result<u64, BrokerError> {
    broker.record_create(BUCKET, key, value(text)).await
}

pub(super) async fn a_record_is_created_once(pair: Pair) {
    assert_eq!(get(&pair, "create.a").await, None);
    let revision = create(&*pair.one, "create.a", "mine").await.expect("created");
    assert_eq!(create(&*pair.other, "create.a", "theirs").await, Err(BrokerError::Conflict));
    assert_eq!(get(&pair, "create.a").await, Some(Record { value: value("mine"), revision }));
    let elsewhere = create(&*pair.one, "create.b", "another key").await.expect("created");
    assert!(elsewhere > revision, "revisions grow over the bucket");
}

pub(super) async fn an_update_needs_the_current_revision(pair: Pair) {
    let first = create(&*pair.one, "update", "1").await.expect("created");
    let second = pair.other.record_update(BUCKET, "update", value("2"), first).await.expect("updated");
    assert!(second > first);
    assert_eq!(pair.one.record_update(BUCKET, "update", value("x"), first).await, Err(BrokerError::Conflict));
    assert_eq!(pair.one.record_delete(BUCKET, "update", first).await, Err(BrokerError::Conflict));
    assert_eq!(get(&pair, "update").await, Some(Record { value: value("2"), revision: second }));
    for revision in [0, first] {
        assert_eq!(pair.one.record_update(BUCKET, "absent", value("x"), revision).await, Err(BrokerError::Conflict));
    }
}

pub(super) async fn a_deleted_record_can_be_made_again(pair: Pair) {
    let first = create(&*pair.one, "delete", "1").await.expect("created");
    pair.one.record_delete(BUCKET, "delete", first).await.expect("deleted");
    assert_eq!(get(&pair, "delete").await, None);
    assert_eq!(pair.one.record_update(BUCKET, "delete", value("x"), first).await, Err(BrokerError::Conflict));
    let second = create(&*pair.other, "delete", "2").await.expect("created");
    assert!(second > first);
    assert_eq!(get(&pair, "delete").await, Some(Record { value: value("2"), revision: second }));
}

pub(super) async fn a_lease_expires_and_its_revisions_keep_growing(pair: Pair) {
    let mut revision = create(&*pair.one, "lease", "held").await.expect("created");
    let begun = clock::now();
    while clock::now().since(begun) < LEASE_TTL * 4 / 3 {
        sleep(LEASE_TTL / 3).await;
        revision = pair.one.record_update(BUCKET, "lease", value("held"), revision).await.expect("renewed in time");
    }
    let left = clock::now();
    while get(&pair, "lease").await.is_some() {
        assert!(clock::now().since(left) < SOON, "it never expires");
        sleep(MOMENT / 3).await;
    }
    let lived = clock::now().since(left);
    assert!(lived + Duration::from_millis(200) >= LEASE_TTL, "{lived:?}");
    assert_eq!(pair.one.record_update(BUCKET, "lease", value("late"), revision).await, Err(BrokerError::Conflict));
    assert!(create(&*pair.other, "lease", "taken over").await.expect("created") > revision);
}

pub(super) async fn one_of_many_creators_wins(pair: Pair) {
    let attempts = (0..10).map(|n| {
        let broker = if n % 2 == 0 { pair.one.clone() } else { pair.other.clone() };
        async move { create(&*broker, "race", "me").await }
    });
    let outcomes = join_all(attempts).await;
    assert_eq!(outcomes.iter().filter(|o| o.is_ok()).count(), 1, "{outcomes:?}");
    assert!(outcomes.iter().all(|o| matches!(o, Ok(_) | Err(BrokerError::Conflict))), "{outcomes:?}");
}
