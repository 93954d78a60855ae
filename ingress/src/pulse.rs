//! loop: the ingress's pulse: says that it lives, and looks for lost requests.

use crate::road::Road;
use bytes::Bytes;
use shared::broker::Address;
use shared::outbox::Outbox;
use shared::wire::Heartbeat;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

/// A sixth of the silence after which work of an ingress is dropped, and of that after which a request is lost.
const PULSE: Duration = Duration::from_millis(500);

/// Runs until its task is dropped.
pub(crate) async fn run(road: Arc<Road>, outbox: Outbox) {
    let mut pulse = interval(PULSE);
    pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pulse.tick().await;
        outbox.post(Address::Heartbeats, &Heartbeat::Ingress { id: road.id.clone() }, Bytes::new());
        road.sweep();
    }
}
