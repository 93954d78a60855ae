//! edge: checks of publishing and pulling.

use super::{FRAMES_PER_ORIGIN_MAX, MOMENT, Pair, Road, SOON, assert_nothing_comes, pull, pull_all, pull_one, texts};
use crate::broker::limits::{DUPLICATE_WINDOW, PAYLOAD_BYTES_MAX};
use crate::broker::{BrokerError, LaneFilter, Puller};
use crate::clock;
use crate::domain::Lane;
use bytes::Bytes;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::{sleep, timeout};

pub(super) async fn what_is_published_is_pulled_and_gone_when_acked(pair: Pair) {
    for lane in Lane::ALL {
        let road = Road::new(&pair, lane, "simple");
        let stored = road.publish("hello").await;
        let mut puller = road.puller().await;
        let delivery = pull_one(&mut puller).await;
        assert_eq!(texts(std::slice::from_ref(&delivery)), ["hello"]);
        assert_eq!((delivery.sequence, delivery.attempt), (stored.sequence, 1));
        let age = clock::now().since(delivery.stored);
        assert!(age < SOON, "{age:?}");
        pair.one.ack(&delivery.token).await.expect("acked");
        assert_nothing_comes(&mut puller).await;
    }
}

pub(super) async fn frames_come_in_order(pair: Pair) {
    let road = Road::new(&pair, Lane::Interactive, "order");
    let mut puller = road.puller().await;
    for (n, origin) in ["a", "b", "a", "c", "b"].iter().enumerate() {
        road.try_publish(origin, &n.to_string()).await.expect("stored");
    }
    let all = pull_all(&mut puller, 5).await;
    assert_eq!(texts(&all), ["0", "1", "2", "3", "4"]);
    assert!(all.is_sorted_by_key(|d| d.sequence));
}

pub(super) async fn the_same_message_id_is_stored_once(pair: Pair) {
    let road = Road::new(&pair, Lane::Async, "duplicate");
    let first = road.publish("once").await;
    let second = road.publish("once").await;
    assert!(!first.duplicate && second.duplicate);
    assert_eq!((first.sequence, first.epoch), (second.sequence, second.epoch));
    let mut puller = road.puller().await;
    let delivery = pull_one(&mut puller).await;
    pair.one.ack_verified(&delivery.token).await.expect("acked");
    assert!(road.publish("once").await.duplicate, "an id is remembered when its frame is gone");
    assert_nothing_comes(&mut puller).await;
}

pub(super) async fn a_message_id_is_forgotten_after_two_minutes(pair: Pair) {
    let road = Road::new(&pair, Lane::Async, "forgotten");
    road.publish("again").await;
    sleep(DUPLICATE_WINDOW).await;
    assert!(!road.publish("again").await.duplicate);
}

pub(super) async fn a_full_origin_leaves_room_for_others(pair: Pair) {
    let road = Road::new(&pair, Lane::Interactive, "full");
    for n in 0..FRAMES_PER_ORIGIN_MAX {
        road.try_publish("greedy", &n.to_string()).await.expect("stored");
    }
    assert_eq!(road.try_publish("greedy", "more").await, Err(BrokerError::Full));
    assert!(road.try_publish("greedy", "0").await.expect("known").duplicate, "what is stored already is not refused");
    road.try_publish("modest", "mine").await.expect("stored");
    let mut puller = road.puller().await;
    let delivery = pull_one(&mut puller).await;
    assert_eq!(road.try_publish("greedy", "more").await, Err(BrokerError::Full), "what is out counts too");
    pair.one.ack_verified(&delivery.token).await.expect("acked");
    assert!(!road.try_publish("greedy", "more").await.expect("stored").duplicate, "a refused id is not remembered");
}

pub(super) async fn lanes_models_and_parts_are_apart(pair: Pair) {
    let road = Road::new(&pair, Lane::Interactive, "apart");
    road.publish("here").await;
    let here = &road.filter;
    let elsewhere = [
        LaneFilter { lane: Lane::Bulk, ..here.clone() },
        LaneFilter { part: 1, ..here.clone() },
        Road::new(&pair, Lane::Interactive, "apart too").filter,
    ];
    for filter in elsewhere {
        let mut puller = pair.one.puller(&filter).await.expect("a reader");
        assert_nothing_comes(&mut puller).await;
    }
    assert_eq!(texts(&[pull_one(&mut road.puller().await).await]), ["here"]);
}

pub(super) async fn a_frame_over_the_limit_is_too_large(pair: Pair) {
    let road = Road::new(&pair, Lane::Interactive, "large");
    let to = road.from("origin");
    let too_large = Bytes::from(vec![0; PAYLOAD_BYTES_MAX + 1]);
    assert_eq!(pair.one.publish(&to, "large-1", too_large).await, Err(BrokerError::TooLarge));
    let large = Bytes::from(vec![7; 768 * 1024]);
    pair.one.publish(&to, "large-2", large.clone()).await.expect("stored");
    assert_eq!(pull_one(&mut road.puller().await).await.frame, large);
}

pub(super) async fn a_waiting_pull_returns_when_something_comes(pair: Pair) {
    let road = Road::new(&pair, Lane::Interactive, "waiting");
    let mut puller = road.puller().await;
    let begun = clock::now();
    let (deliveries, ()) = tokio::join!(pull(&mut puller, 64, SOON), async {
        sleep(MOMENT).await;
        road.publish("late").await;
    });
    assert_eq!(texts(&deliveries), ["late"]);
    let took = clock::now().since(begun);
    assert!(took >= MOMENT && took < SOON / 2, "{took:?}");
}

pub(super) async fn an_empty_lane_ends_the_wait_with_nothing(pair: Pair) {
    let mut puller = Road::new(&pair, Lane::Interactive, "empty").puller().await;
    let begun = clock::now();
    assert!(pull(&mut puller, 64, MOMENT).await.is_empty());
    let took = clock::now().since(begun);
    assert!(took >= MOMENT && took < SOON / 2, "{took:?}");
}

pub(super) async fn no_more_than_asked_for_is_returned(pair: Pair) {
    let road = Road::new(&pair, Lane::Interactive, "asked");
    road.publish_all(&["0", "1", "2", "3", "4"]).await;
    let mut puller = road.puller().await;
    let mut all = Vec::new();
    while all.len() < 5 {
        let some = pull(&mut puller, 2, SOON).await;
        assert!((1..=2).contains(&some.len()), "{}", some.len());
        all.extend(some);
    }
    assert_eq!(texts(&all), ["0", "1", "2", "3", "4"]);
    assert!(all.iter().all(|d| d.attempt == 1));
}

pub(super) async fn a_cancelled_pull_loses_nothing(pair: Pair) {
    let road = Road::new(&pair, Lane::Interactive, "cancelled");
    let mut puller = road.puller().await;
    for _ in 0..3 {
        let cut_short = timeout(Duration::from_millis(20), puller.pull(4, SOON)).await;
        assert!(cut_short.is_err(), "nothing was there yet");
    }
    road.publish_all(&["0", "1", "2"]).await;
    let all = pull_all(&mut puller, 3).await;
    assert_eq!(texts(&all), ["0", "1", "2"]);
    assert!(all.iter().all(|d| d.attempt == 1), "none had to be handed out twice");
}

pub(super) async fn a_reader_that_left_takes_nothing_along(pair: Pair) {
    let road = Road::new(&pair, Lane::Interactive, "left");
    let mut leaving = road.puller().await;
    assert!(timeout(MOMENT / 10, leaving.pull(4, SOON)).await.is_err(), "nothing was there yet");
    drop(leaving);
    sleep(MOMENT).await;
    road.publish("mine").await;
    assert_eq!(pull_one(&mut road.puller().await).await.attempt, 1);
}

pub(super) async fn two_readers_share_the_deliveries(pair: Pair) {
    let road = Road::new(&pair, Lane::Interactive, "shared");
    let (mut one, mut other) = (road.puller().await, road.puller().await);
    road.publish_all(&["0", "1", "2", "3", "4", "5"]).await;
    let (mut seen, mut count) = (BTreeSet::new(), 0);
    while count < 6 {
        let (left, right) = tokio::join!(pull(&mut one, 1, MOMENT), pull(&mut other, 1, MOMENT));
        let both = [left, right].concat();
        assert!(!both.is_empty());
        count += both.len();
        seen.extend(both.iter().map(|d| d.sequence));
    }
    assert_eq!(seen.len(), 6, "each goes to one of them");
}

pub(super) async fn publisher_and_reader_agree_on_the_epoch(pair: Pair) {
    for lane in Lane::ALL {
        let road = Road::new(&pair, lane, "epoch");
        let stored = road.publish("x").await;
        let mut puller = road.puller().await;
        let delivery = pull_one(&mut puller).await;
        assert_eq!((delivery.sequence, delivery.epoch), (stored.sequence, stored.epoch));
        assert_ne!(stored.epoch, 0);
    }
}

pub(super) async fn what_no_reader_has_had_is_soon_counted(pair: Pair) {
    let road = Road::new(&pair, Lane::Bulk, "left");
    let mut puller = road.puller().await;
    assert_eq!(puller.left().await, Ok(0));
    for n in 0..3 {
        road.publish(&n.to_string()).await;
    }
    assert_left(&mut puller, 3).await;
    assert_eq!(puller.pull(1, Duration::from_secs(5)).await.unwrap().len(), 1);
    assert_left(&mut puller, 2).await; // Also while the first is not acked.
}

/// A server tells a publisher that its frame is stored before it counts the frame for the readers.
async fn assert_left(puller: &mut Box<dyn Puller>, frames: u64) {
    let counted = async {
        while puller.left().await != Ok(frames) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(SOON, counted).await.is_ok(), "{:?} are left, not {frames}", puller.left().await);
}

pub(super) async fn the_position_is_the_last_sequence_delivered(pair: Pair) {
    let road = Road::new(&pair, Lane::Interactive, "position");
    let (mut one, mut other) = (road.puller().await, road.puller().await);
    let first = road.publish("0").await;
    let second = road.publish("1").await;
    assert_eq!(one.position().await, Ok((first.epoch, 0)));
    pull_one(&mut one).await;
    pull_one(&mut one).await;
    for puller in [&mut one, &mut other] {
        assert_eq!(puller.position().await, Ok((second.epoch, second.sequence)));
    }
}
