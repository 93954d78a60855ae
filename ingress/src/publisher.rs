//! loop: one model's publisher: whatever waits when it comes round goes into one frame, without any timer, and the next
//! round does not wait for the broker's word on the last.

use crate::backoff::Backoff;
use crate::refusal;
use crate::road::{Queue, Road};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use shared::broker::{BrokerError, LaneSubject};
use shared::domain::{Lane, RequestId, Token};
use shared::entropy;
use shared::gather::Gather;
use shared::wire::{COALESCE_MAX, FrameWriter, Part};
use std::sync::Arc;

/// Rounds whose confirmation is awaited at once: enough to cover a round trip to the broker at full speed, and few
/// enough that what arrives meanwhile gathers into full frames.
const ROUNDS_MAX: usize = 8;

/// The requests of one frame, and the frame.
pub(crate) struct Load {
    pub(crate) ids: Vec<RequestId>,
    pub(crate) frame: Bytes,
}

/// Publishes what is queued for one model, until the queue is closed.
pub(crate) async fn run(road: Arc<Road>, (model, mut queue): Queue) {
    let lane = lane(&road, model);
    let (mut gather, mut rounds) = (Gather::default(), FuturesUnordered::new());
    let mut ids = Vec::with_capacity(COALESCE_MAX);
    loop {
        tokio::select! {
            Some(()) = rounds.next() => {}
            taken = gather.round(&mut queue, &mut ids, COALESCE_MAX), if rounds.len() < ROUNDS_MAX => {
                if taken == 0 {
                    return;
                }
                rounds.push(publish_round(&road, &lane, std::mem::take(&mut ids)));
            }
        }
    }
}

/// Publishes one request by itself.
pub(crate) async fn publish_now(road: &Road, model: &Token, id: RequestId) {
    publish_round(road, &lane(road, model.clone()), vec![id]).await;
}

fn lane(road: &Road, model: Token) -> LaneSubject {
    LaneSubject { lane: Lane::Interactive, model, part: 0, origin: road.id.clone() }
}

async fn publish_round(road: &Road, lane: &LaneSubject, ids: Vec<RequestId>) {
    for load in loads(road.parts(&ids)) {
        publish(road, lane, load).await;
    }
}

/// Packs requests into as few frames as they fit.
pub(crate) fn loads(parts: Vec<(RequestId, Part)>) -> Vec<Load> {
    let (mut loads, mut ids, mut writer) = (Vec::with_capacity(1), Vec::with_capacity(parts.len()), FrameWriter::new());
    for (id, part) in parts {
        if !writer.fits(&part) {
            loads.push(Load { ids: std::mem::take(&mut ids), frame: writer.take() });
        }
        writer.push(&part);
        ids.push(id);
    }
    if !writer.is_empty() {
        loads.push(Load { ids, frame: writer.take() });
    }
    loads
}

/// Publishes one frame. While the broker is away it tries again under the same message id, so that a try that did
/// arrive is not stored twice; it ends when none of the frame's requests is waited for any more.
async fn publish(road: &Road, lane: &LaneSubject, load: Load) {
    let Load { ids, mut frame } = load;
    let message_id = format!("{}-{:016x}", road.id, entropy::draw());
    let mut backoff = Backoff::new();
    road.metrics.frame(ids.len());
    loop {
        match road.broker.publish(lane, &message_id, frame).await {
            Ok(stored) => return road.published(&ids, stored),
            Err(BrokerError::Unavailable(cause)) => tracing::debug!(cause, "the broker is away: publishing again"),
            Err(error) => return road.refused(&ids, &refusal::of_broker(&error)),
        }
        backoff.pause().await;
        match frame_again(road, &ids) {
            Some(again) => frame = again,
            None => return,
        }
    }
}

/// The same requests with what now remains of their deadlines, without those that have ended.
fn frame_again(road: &Road, ids: &[RequestId]) -> Option<Bytes> {
    let mut writer = FrameWriter::new();
    road.parts(ids).iter().for_each(|(_, part)| writer.push(part));
    (!writer.is_empty()).then(|| writer.take())
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::entropy::request_id;
    use shared::wire::{FRAME_BYTES_MAX, decode};

    fn parts(sizes: &[usize]) -> Vec<(RequestId, Part)> {
        sizes.iter().map(|size| (request_id(), Part::encode(&1u8, Bytes::from(vec![0; *size])))).collect()
    }

    #[test]
    fn what_waits_shares_a_frame_and_keeps_its_order() {
        let parts = parts(&[1, 2, 3]);
        let ids: Vec<_> = parts.iter().map(|(id, _)| *id).collect();
        let loads = loads(parts);
        assert_eq!(loads.len(), 1);
        assert_eq!(loads[0].ids, ids);
        assert_eq!(decode(&loads[0].frame).unwrap().iter().map(|p| p.body.len()).collect::<Vec<_>>(), [1, 2, 3]);
    }

    #[test]
    fn large_requests_are_spread_over_frames() {
        let half = FRAME_BYTES_MAX / 2;
        let loads = loads(parts(&[half, half, 10]));
        assert_eq!(loads.iter().map(|l| l.ids.len()).collect::<Vec<_>>(), [1, 2]);
        assert!(loads.iter().all(|l| l.frame.len() <= FRAME_BYTES_MAX));
    }

    #[test]
    fn nothing_to_send_is_no_frame() {
        assert!(loads(Vec::new()).is_empty());
    }
}
