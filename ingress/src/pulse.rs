//! loop: the ingress's pulse: says that it lives, hears who else does, and looks for lost requests.

use crate::peers::Peers;
use crate::road::Road;
use bytes::Bytes;
use shared::broker::{Address, Inbox};
use shared::clock;
use shared::outbox::Outbox;
use shared::wire::{Heartbeat, decode};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

/// A sixth of the silence after which work of an ingress is dropped, and of that after which a request is lost.
const PULSE: Duration = Duration::from_millis(500);

/// Runs until its task is dropped.
pub(crate) async fn run(road: Arc<Road>, peers: Arc<Peers>, outbox: Outbox, mut heartbeats: Box<dyn Inbox>) {
    let mut pulse = interval(PULSE);
    pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = pulse.tick() => {
                outbox.post(Address::Heartbeats, &Heartbeat::Ingress { id: road.id.clone() }, Bytes::new());
                road.sweep();
            }
            heard = heartbeats.next() => match heard {
                Some(frame) => hear(&peers, &frame),
                None => return tracing::error!("the heartbeats are closed: the broker connection has ended"),
            },
        }
    }
}

fn hear(peers: &Peers, frame: &Bytes) {
    let parts = match decode(frame) {
        Ok(parts) => parts,
        Err(error) => return tracing::warn!(%error, "a heartbeat was not understood"),
    };
    for beat in parts.iter().filter_map(|part| part.decode::<Heartbeat>().ok()) {
        peers.hear(beat, clock::now());
    }
}
