//! edge: checks of what may be done with a delivery.

use super::{MOMENT, Pair, Road, SOON, assert_nothing_comes, pull, pull_all, pull_one, texts};
use crate::broker::{ACK_WAIT_DEFERRED, ACK_WAIT_INTERACTIVE, AckToken, BrokerError};
use crate::clock;
use crate::domain::Lane;
use bytes::Bytes;
use std::time::Duration;
use tokio::time::sleep;

/// How much earlier than by our own clock the broker may think that a wait is over.
const SLACK: Duration = Duration::from_millis(100);

pub(super) async fn an_unacked_frame_comes_back_as_the_same(pair: Pair) {
    let road = Road::new(&pair, Lane::Interactive, "redelivered");
    road.publish("again").await;
    let mut puller = road.puller().await;
    let first = pull_one(&mut puller).await;
    let begun = clock::now();
    let second = pull_one(&mut puller).await;
    let away = clock::now().since(begun);
    assert!(away + SLACK >= ACK_WAIT_INTERACTIVE, "{away:?}");
    assert_eq!((second.sequence, second.epoch, second.attempt), (first.sequence, first.epoch, 2));
    assert_eq!(second.frame, first.frame);
    let age = clock::now().since(second.stored);
    assert!(age + SLACK >= ACK_WAIT_INTERACTIVE, "{age:?}");
    pair.one.ack_verified(&second.token).await.expect("acked");
}

pub(super) async fn a_deferred_frame_stays_out_longer(pair: Pair) {
    let road = Road::new(&pair, Lane::Bulk, "deferred");
    road.publish("again").await;
    let mut puller = road.puller().await;
    pull_one(&mut puller).await;
    assert!(pull(&mut puller, 1, ACK_WAIT_DEFERRED - SLACK).await.is_empty());
    assert_eq!(pull_one(&mut puller).await.attempt, 2);
}

pub(super) async fn what_comes_back_goes_before_what_is_new(pair: Pair) {
    let road = Road::new(&pair, Lane::Interactive, "before");
    road.publish_all(&["0", "1"]).await;
    let mut puller = road.puller().await;
    pull_all(&mut puller, 2).await;
    road.publish("2").await;
    sleep(ACK_WAIT_INTERACTIVE + MOMENT).await;
    let all = pull_all(&mut puller, 3).await;
    assert_eq!(texts(&all), ["0", "1", "2"]);
}

pub(super) async fn another_handle_may_renew_and_ack(pair: Pair) {
    let road = Road::new(&pair, Lane::Interactive, "renewed");
    road.publish("held").await;
    let mut puller = road.puller().await;
    let delivery = pull_one(&mut puller).await;
    let begun = clock::now();
    while clock::now().since(begun) < ACK_WAIT_INTERACTIVE * 4 / 3 {
        pair.one.renew(&delivery.token).await.expect("renewed");
        let came = pull(&mut puller, 1, ACK_WAIT_INTERACTIVE / 4).await;
        assert!(came.is_empty(), "it came back although it was renewed");
    }
    pair.one.ack_verified(&delivery.token).await.expect("still ours");
}

pub(super) async fn a_frame_given_back_waits_its_delay(pair: Pair) {
    let road = Road::new(&pair, Lane::Interactive, "nak");
    road.publish("no").await;
    let mut puller = road.puller().await;
    let first = pull_one(&mut puller).await;
    pair.one.nak(&first.token, Duration::ZERO).await.expect("given back");
    let second = pull_one(&mut puller).await;
    pair.one.nak(&second.token, MOMENT * 2).await.expect("given back");
    assert_nothing_comes(&mut puller).await;
    let begun = clock::now();
    let third = pull_one(&mut puller).await;
    assert!(clock::now().since(begun) < ACK_WAIT_INTERACTIVE, "sooner than by its ack wait");
    assert_eq!((third.sequence, third.attempt), (first.sequence, 3));
}

pub(super) async fn a_verified_ack_is_final(pair: Pair) {
    let road = Road::new(&pair, Lane::Async, "verified");
    road.publish("done").await;
    let mut puller = road.puller().await;
    let delivery = pull_one(&mut puller).await;
    pair.one.ack_verified(&delivery.token).await.expect("acked");
    assert_eq!(pair.other.ack_verified(&delivery.token).await, Ok(()), "what was acked before is confirmed again");
    assert!(pull(&mut puller, 1, SOON / 2).await.is_empty());
}

pub(super) async fn a_frame_is_held_until_it_is_acked(pair: Pair) {
    for lane in Lane::ALL {
        let road = Road::new(&pair, lane, "held");
        let first = road.publish("first").await;
        let frame = Bytes::from(vec![7; 768 * 1024]);
        let large = pair.one.publish(&road.from("origin"), "held-large", frame).await.expect("stored");
        let holds = async |epoch, sequence| pair.other.holds(lane, epoch, sequence).await.expect("an answer");
        let mut puller = road.puller().await;
        let delivery = pull_one(&mut puller).await;
        assert!(holds(first.epoch, first.sequence).await, "what is out is still there");
        assert!(holds(large.epoch, large.sequence).await);
        pair.one.ack_verified(&delivery.token).await.expect("acked");
        assert!(!holds(first.epoch, first.sequence).await);
        assert!(holds(large.epoch, large.sequence).await);
        assert!(!holds(large.epoch + 1, large.sequence).await, "another epoch is another stream");
        assert!(!holds(large.epoch, 0).await && !holds(large.epoch, u64::MAX / 2).await);
        let rest = pull_one(&mut puller).await;
        pair.one.ack_verified(&rest.token).await.expect("acked");
    }
}

pub(super) async fn a_token_of_nothing_is_gone(pair: Pair) {
    let nothing = AckToken("$JS.ACK.nothing.nobody.1.1.1.1.0".into());
    assert_eq!(pair.one.ack_verified(&nothing).await, Err(BrokerError::Gone));
}
