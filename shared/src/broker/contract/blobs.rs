//! edge: checks of blobs.

use super::Pair;
use bytes::Bytes;

pub(super) async fn a_blob_is_read_as_it_was_written(pair: Pair) {
    for (key, bytes) in [("blob-empty", 0_usize), ("blob-small", 5), ("blob-even", 1024 * 1024), ("blob-large", 3_000_001)] {
        let blob: Bytes = (0..bytes).map(|n| u8::try_from(n % 251).expect("below 251")).collect();
        pair.one.blob_put(key, blob.clone()).await.expect("stored");
        assert!(pair.other.blob_get(key).await.expect("an answer") == Some(blob), "{key}");
        pair.other.blob_delete(key).await.expect("deleted");
        assert_eq!(pair.one.blob_get(key).await, Ok(None));
    }
}

pub(super) async fn a_missing_blob_is_none(pair: Pair) {
    assert_eq!(pair.one.blob_get("blob-missing").await, Ok(None));
    assert_eq!(pair.one.blob_delete("blob-missing").await, Ok(()));
}
