//! loop: reads one lane of one model into the model's mailbox, no faster than the window allows.

use crate::model::Input;
use shared::broker::{Broker, BrokerError, LaneFilter, Puller};
use shared::domain::{Lane, Token};
use shared::wire::COALESCE_MAX;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};

/// How long one pull waits at the broker: long enough to cost nothing when idle, short enough to notice a deaf one.
const PULL_WAIT: Duration = Duration::from_secs(5);

/// Frames asked for at once: more would only wait here instead of there.
const FRAMES_MAX: usize = 256;

/// Pause after a failed pull.
const RETRY_WAIT: Duration = Duration::from_millis(200);

/// How many more requests the model's engine will hold.
#[derive(Debug)]
pub(crate) struct Window {
    room: AtomicUsize,
    grew: Notify,
}

impl Window {
    pub(crate) fn new(room: usize) -> Self {
        Self { room: AtomicUsize::new(room), grew: Notify::new() }
    }

    pub(crate) fn set_room(&self, room: usize) {
        let before = self.room.swap(room, Ordering::Relaxed);
        if before < COALESCE_MAX && room >= COALESCE_MAX {
            self.grew.notify_waiters();
        }
    }

    /// Frames that fit even if each is full.
    async fn frames(&self) -> usize {
        loop {
            let grew = self.grew.notified();
            let frames = self.room.load(Ordering::Relaxed) / COALESCE_MAX;
            if frames > 0 {
                return frames.min(FRAMES_MAX);
            }
            grew.await;
        }
    }
}

/// Pulls until the mailbox closes.
pub(crate) async fn run(broker: Arc<dyn Broker>, model: Token, lane: Lane, window: Arc<Window>, mailbox: mpsc::Sender<Input>) {
    let filter = LaneFilter { lane, model, part: 0 };
    while !mailbox.is_closed() {
        if let Err(error) = pull_all(broker.as_ref(), &filter, &window, &mailbox).await {
            tracing::debug!(%error, model = %filter.model, lane = lane.as_str(), "the lane cannot be read at the moment");
            tokio::time::sleep(RETRY_WAIT).await;
        }
    }
}

async fn pull_all(broker: &dyn Broker, filter: &LaneFilter, window: &Window, mailbox: &mpsc::Sender<Input>) -> Result<(), BrokerError> {
    let mut puller = broker.puller(filter).await?;
    let mut was_idle = true;
    loop {
        if was_idle && filter.lane == Lane::Interactive {
            announce_position(puller.as_mut(), mailbox).await?; // Opened just now, or the stream may have been made anew.
        }
        let frames = window.frames().await;
        let deliveries = puller.pull(frames, PULL_WAIT).await?;
        was_idle = deliveries.is_empty();
        for delivery in deliveries {
            if mailbox.send(Input::Delivery(filter.lane, delivery)).await.is_err() {
                return Ok(());
            }
        }
        if mailbox.is_closed() {
            return Ok(());
        }
    }
}

async fn announce_position(puller: &mut dyn Puller, mailbox: &mpsc::Sender<Input>) -> Result<(), BrokerError> {
    let (epoch, sequence) = puller.position().await?;
    let _ = mailbox.send(Input::Position { epoch, sequence }).await; // A closed mailbox ends the caller's loop.
    Ok(())
}
