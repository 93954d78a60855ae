//! loop: sends what the roles post, coalescing without a timer: whatever waits for one address when the sender comes
//! round goes into one frame. In process, where a post is a call, there is nothing to wait for.

use crate::broker::{Address, Broker};
use crate::gather::Gather;
use crate::task::{self, Guarded};
use crate::wire::{FrameWriter, Part, encode_one};
use bytes::Bytes;
use futures::FutureExt;
use serde::Serialize;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Messages that may wait for the sender. Past it the message is dropped, as the broker would drop it: every message
/// that goes this way may be lost, and the wire table says what then.
const WAITING_MAX: usize = 65_536;

/// How many waiting messages one round takes up.
const ROUND_MAX: usize = 1_024;

#[derive(Debug)]
enum Job {
    Post(Address, Part),
    Flush(oneshot::Sender<()>),
}

/// The handle. Cheap to clone; sending never waits.
#[derive(Clone)]
pub struct Outbox(Way);

#[derive(Clone)]
enum Way {
    Call(Arc<dyn Broker>),
    Queue { jobs: mpsc::Sender<Job>, _task: Arc<Guarded> },
}

impl Outbox {
    pub fn new(broker: Arc<dyn Broker>) -> Self {
        if broker.is_local() {
            return Self(Way::Call(broker));
        }
        let (jobs, waiting) = mpsc::channel(WAITING_MAX);
        let task = task::spawn_guarded("outbox", send_all(broker, waiting));
        Self(Way::Queue { jobs, _task: Arc::new(task) })
    }

    /// Posts one message. Lossy, like what it stands for.
    pub fn post<T: Serialize>(&self, to: Address, head: &T, body: Bytes) {
        match &self.0 {
            Way::Call(broker) => call(broker.as_ref(), &to, encode_one(head, &body)),
            Way::Queue { jobs, .. } => {
                if jobs.try_send(Job::Post(to, Part::encode(head, body))).is_err() {
                    tracing::warn!("a message was dropped: the outbox is full");
                }
            }
        }
    }

    /// Waits until everything posted before this call has been handed to the broker.
    pub async fn flushed(&self) {
        let Way::Queue { jobs, .. } = &self.0 else { return };
        let (done, flushed) = oneshot::channel();
        if jobs.send(Job::Flush(done)).await.is_ok() {
            let _ = flushed.await; // The sender's end means there is nothing left to wait for.
        }
    }
}

fn call(broker: &dyn Broker, to: &Address, frame: Bytes) {
    let posted = broker.post(to, frame).now_or_never().expect("a local broker does not wait");
    if let Err(error) = posted {
        tracing::warn!(%error, ?to, "a message was not sent");
    }
}

async fn send_all(broker: Arc<dyn Broker>, mut waiting: mpsc::Receiver<Job>) {
    let mut round = Vec::with_capacity(ROUND_MAX);
    let mut gather = Gather::default();
    while gather.round(&mut waiting, &mut round, ROUND_MAX).await > 0 {
        let mut flushes = Vec::new();
        let posts = round.drain(..).filter_map(|job| match job {
            Job::Post(to, part) => Some((to, part)),
            Job::Flush(done) => {
                flushes.push(done);
                None
            }
        });
        for (to, frame) in frames(posts) {
            if let Err(error) = broker.post(&to, frame).await {
                tracing::warn!(%error, ?to, "a frame was not sent");
            }
        }
        for done in flushes {
            let _ = done.send(()); // Whoever waited may have given up.
        }
    }
}

/// Packs messages into frames: per address in order, an address in the order of its first message.
fn frames(round: impl Iterator<Item = (Address, Part)>) -> Vec<(Address, Bytes)> {
    let mut open: Vec<(Address, FrameWriter)> = Vec::new();
    let mut frames = Vec::new();
    for (to, part) in round {
        let index = open.iter().position(|(address, _)| *address == to).unwrap_or_else(|| {
            open.push((to.clone(), FrameWriter::new()));
            open.len() - 1
        });
        let writer = &mut open[index].1;
        if !writer.fits(&part) {
            frames.push((to, writer.take()));
        }
        writer.push(&part);
    }
    frames.extend(open.into_iter().map(|(to, mut writer)| (to, writer.take())));
    frames
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::NodeId;
    use crate::wire::{COALESCE_MAX, decode};

    fn to(name: &str) -> Address {
        Address::Worker(NodeId::parse(name).unwrap())
    }

    #[test]
    fn what_waits_for_one_address_shares_a_frame_in_order() {
        let round = [("a", 1u8), ("b", 2), ("a", 3)].map(|(name, n)| (to(name), Part::encode(&n, Bytes::new())));
        let frames = frames(round.into_iter());
        let heads = |i: usize| decode(&frames[i].1).unwrap().iter().map(|p| p.decode::<u8>().unwrap()).collect::<Vec<_>>();
        assert_eq!(frames.len(), 2);
        assert_eq!((heads(0), heads(1)), (vec![1, 3], vec![2]));
    }

    #[test]
    fn a_full_frame_goes_before_what_follows_it() {
        let round = (0..=COALESCE_MAX).map(|n| (to("a"), Part::encode(&n, Bytes::new())));
        let frames = frames(round);
        let sizes: Vec<_> = frames.iter().map(|(_, f)| decode(f).unwrap().len()).collect();
        assert_eq!(sizes, [COALESCE_MAX, 1]);
    }
}
