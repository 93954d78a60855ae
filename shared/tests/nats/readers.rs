//! Readers of feeds, of which a server bears so many at once.

use super::{SOON, connect, raw, start};
use shared::broker::{Broker, Feed, Journal, Since};
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
