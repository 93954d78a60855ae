//! edge: checks of blobs.

use super::Pair;
use crate::broker::{BrokerError, Store};
use bytes::Bytes;

pub(super) async fn a_blob_is_read_as_it_was_written(pair: Pair) {
    for (key, bytes) in [("blob-empty", 0_usize), ("blob.small", 5), ("blob-even", 1024 * 1024), ("blob-large", 3_000_001)] {
        let blob: Bytes = (0..bytes).map(|n| u8::try_from(n % 251).expect("below 251")).collect();
        for store in Store::ALL {
            pair.one.blob_put(store, key, blob.clone()).await.expect("stored");
            assert!(pair.other.blob_get(store, key).await.expect("an answer").as_ref() == Some(&blob), "{key}");
            pair.other.blob_delete(store, key).await.expect("deleted");
            assert_eq!(pair.one.blob_get(store, key).await, Ok(None));
        }
    }
}

pub(super) async fn a_blob_may_be_written_again(pair: Pair) {
    for bytes in [5_usize, 3_000_001] {
        let blob = Bytes::from(vec![7; bytes]);
        for broker in [&pair.one, &pair.other] {
            broker.blob_put(Store::Files, "blob-again", blob.clone()).await.expect("stored");
            assert!(pair.one.blob_get(Store::Files, "blob-again").await.expect("an answer").as_ref() == Some(&blob));
        }
        pair.one.blob_delete(Store::Files, "blob-again").await.expect("deleted");
        assert_eq!(pair.one.blob_get(Store::Files, "blob-again").await, Ok(None));
    }
}

pub(super) async fn stores_are_apart(pair: Pair) {
    pair.one.blob_put(Store::Files, "blob-apart", Bytes::from_static(b"a file")).await.expect("stored");
    assert_eq!(pair.other.blob_get(Store::Claims, "blob-apart").await, Ok(None));
    pair.one.blob_delete(Store::Claims, "blob-apart").await.expect("nothing was there");
    assert_eq!(pair.other.blob_get(Store::Files, "blob-apart").await, Ok(Some(Bytes::from_static(b"a file"))));
}

pub(super) async fn a_missing_blob_is_none(pair: Pair) {
    for store in Store::ALL {
        assert_eq!(pair.one.blob_get(store, "blob-missing").await, Ok(None));
        assert_eq!(pair.one.blob_delete(store, "blob-missing").await, Ok(()));
    }
}

/// Under the limits of [`super::cramped`].
pub(super) async fn a_full_store_refuses_until_a_blob_goes(pair: Pair) {
    let blob = Bytes::from(vec![7; 300 * 1024]);
    for store in Store::ALL {
        pair.one.blob_put(store, "first", blob.clone()).await.expect("stored");
        assert_eq!(pair.other.blob_put(store, "second", blob.clone()).await, Err(BrokerError::Full));
        assert_eq!(pair.other.blob_get(store, "second").await, Ok(None));
        pair.one.blob_delete(store, "first").await.expect("deleted");
        pair.other.blob_put(store, "second", blob.clone()).await.expect("stored");
    }
}
