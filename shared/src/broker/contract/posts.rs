//! edge: checks of unqueued messages.

use super::{Pair, SOON};
use crate::broker::limits::PAYLOAD_BYTES_MAX;
use crate::broker::{Address, BrokerError, Inbox};
use crate::domain::NodeId;
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::time::timeout;

fn node(name: &str) -> NodeId {
    NodeId::parse(name).expect("a token")
}

async fn hear(inbox: &mut Box<dyn Inbox>) -> Bytes {
    timeout(SOON, inbox.next()).await.expect("a post in time").expect("an open inbox")
}

/// The next post whose text begins with `prefix`: the addresses without a node are everybody's.
async fn hear_of(inbox: &mut Box<dyn Inbox>, prefix: &str) -> Bytes {
    loop {
        let frame = hear(inbox).await;
        if frame.starts_with(prefix.as_bytes()) {
            return frame;
        }
    }
}

pub(super) async fn posts_come_in_order(pair: Pair) {
    let at = Address::Ingress(node("order"));
    let mut inbox = pair.other.listen(&at).await.expect("an inbox");
    for n in 0..1_000 {
        pair.one.post(&at, Bytes::from(format!("{n}"))).await.expect("posted");
    }
    for n in 0..1_000 {
        assert_eq!(hear(&mut inbox).await, format!("{n}"));
    }
}

pub(super) async fn a_post_that_nobody_hears_is_no_error(pair: Pair) {
    let at = Address::Worker(node("nobody"));
    assert_eq!(pair.one.post(&at, Bytes::from_static(b"lost")).await, Ok(()));
}

pub(super) async fn a_listener_hears_what_is_sent_after_it_listened(pair: Pair) {
    for n in 0..50 {
        let at = Address::Scheduler(node(&format!("prompt-{n}")));
        let mut inbox = pair.other.listen(&at).await.expect("an inbox");
        pair.one.post(&at, Bytes::from_static(b"at once")).await.expect("posted");
        assert_eq!(hear(&mut inbox).await, "at once");
    }
}

pub(super) async fn every_listener_hears(pair: Pair) {
    for at in [Address::Heartbeats, Address::Cancels] {
        let mut one = pair.one.listen(&at).await.expect("an inbox");
        let mut other = pair.other.listen(&at).await.expect("an inbox");
        let text = format!("every {at:?}");
        pair.one.post(&at, Bytes::from(text.clone())).await.expect("posted");
        assert_eq!(hear_of(&mut one, "every").await, text);
        assert_eq!(hear_of(&mut other, "every").await, text);
    }
}

pub(super) async fn an_attached_listener_is_called_in_order_until_it_is_let_go(pair: Pair) {
    let at = Address::Worker(node("attached"));
    let (sender, mut heard) = mpsc::unbounded_channel();
    let tell = sender.clone();
    let attached = pair.other.attach(&at, Arc::new(move |frame| drop(tell.send(frame)))).await.expect("a place");
    for n in 0..1_000 {
        pair.one.post(&at, Bytes::from(format!("{n}"))).await.expect("posted");
    }
    for n in 0..1_000 {
        assert_eq!(timeout(SOON, heard.recv()).await.expect("called in time").expect("an open end"), format!("{n}"));
    }
    drop((attached, sender));
    assert_eq!(timeout(SOON, heard.recv()).await.expect("let go in time"), None);
    assert_eq!(pair.one.post(&at, Bytes::from_static(b"unheard")).await, Ok(()));
}

pub(super) async fn a_node_hears_each_post_of_its_own_process_and_of_others_once_and_in_order(pair: Pair) {
    const POSTS: usize = 500;
    let at = Address::Worker(node("own"));
    let (sender, mut heard) = mpsc::unbounded_channel();
    let _attached = pair.one.attach(&at, Arc::new(move |frame| drop(sender.send(frame)))).await.expect("a place");
    for n in 0..POSTS {
        pair.one.post(&at, Bytes::from(format!("own {n}"))).await.expect("posted");
        pair.other.post(&at, Bytes::from(format!("other {n}"))).await.expect("posted");
    }
    let (mut own, mut other) = (Vec::new(), Vec::new());
    for _ in 0..2 * POSTS {
        let frame = timeout(SOON, heard.recv()).await.expect("called in time").expect("an open end");
        if frame.starts_with(b"own") { own.push(frame) } else { other.push(frame) }
    }
    assert_eq!(own, (0..POSTS).map(|n| format!("own {n}")).collect::<Vec<_>>());
    assert_eq!(other, (0..POSTS).map(|n| format!("other {n}")).collect::<Vec<_>>());
    assert!(heard.try_recv().is_err());
}

pub(super) async fn a_post_over_the_limit_is_too_large(pair: Pair) {
    let at = Address::Worker(node("large"));
    let mut inbox = pair.other.listen(&at).await.expect("an inbox");
    let too_large = Bytes::from(vec![0; PAYLOAD_BYTES_MAX + 1]);
    assert_eq!(pair.one.post(&at, too_large).await, Err(BrokerError::TooLarge));
    let largest = Bytes::from(vec![0; 768 * 1024]);
    pair.one.post(&at, largest.clone()).await.expect("posted");
    assert_eq!(hear(&mut inbox).await, largest);
}
