//! edge: reads one lane of one model, no faster than the window allows.

use crate::settled;
use crate::window::Window;
use futures::stream::{self, BoxStream, StreamExt};
use shared::broker::{Broker, BrokerError, Delivery, LaneFilter, Puller};
use shared::clock::{self, Time};
use shared::domain::{Lane, Token};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How long one pull waits at the broker: long enough to cost nothing when idle, short enough to notice a deaf one.
const PULL_WAIT: Duration = Duration::from_secs(5);

/// How often the lane is asked what it still has, while the window has no room for it all.
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// Pause after a failed pull.
const RETRY_WAIT: Duration = Duration::from_millis(200);

/// What a lane's reader hands to the model's loop.
#[derive(Debug)]
pub(crate) enum Read {
    /// Where the interactive lane stood when its reader was opened.
    Position {
        epoch: u64,
        sequence: u64,
    },
    Deliveries(Lane, Vec<Delivery>),
}

/// Everything that comes from one lane of one model, without an end. It is read in the loop of the model itself: a task
/// between them would cost every request a turn.
pub(crate) fn read(broker: Arc<dyn Broker>, model: Token, lane: Lane, window: Arc<Window>) -> BoxStream<'static, Read> {
    let reader = Reader { broker, filter: LaneFilter { lane, model, part: 0 }, window, puller: None, was_idle: true, counted: Time::ZERO };
    stream::unfold(reader, |mut reader| async move { Some((reader.next().await, reader)) }).boxed()
}

struct Reader {
    broker: Arc<dyn Broker>,
    filter: LaneFilter,
    window: Arc<Window>,
    puller: Option<Box<dyn Puller>>,
    was_idle: bool,
    counted: Time,
}

impl Reader {
    async fn next(&mut self) -> Read {
        loop {
            match self.pull().await {
                Ok(Some(read)) => return read,
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(%error, model = %self.filter.model, lane = self.filter.lane.as_str(), "the lane cannot be read now");
                    (self.puller, self.was_idle) = (None, true);
                    tokio::time::sleep(RETRY_WAIT).await;
                }
            }
        }
    }

    /// One look at the lane; `None` when the broker had nothing for as long as a look lasts.
    async fn pull(&mut self) -> Result<Option<Read>, BrokerError> {
        let puller = match &mut self.puller {
            Some(puller) => puller,
            none => none.insert(self.broker.puller(&self.filter).await?),
        };
        if std::mem::take(&mut self.was_idle) && self.filter.lane == Lane::Interactive {
            // Opened just now, or the stream may have been made anew.
            let (epoch, sequence) = puller.position().await?;
            return Ok(Some(Read::Position { epoch, sequence }));
        }
        let Ok(frames) = timeout(COUNT_EVERY, self.window.frames()).await else {
            self.window.leaves(puller.left().await?);
            return Ok(None);
        };
        let deliveries = puller.pull(frames, PULL_WAIT).await?;
        self.was_idle = deliveries.is_empty();
        self.window.read(deliveries.len());
        if deliveries.len() < frames {
            self.window.leaves(0);
        } else if clock::now().since(self.counted) >= COUNT_EVERY {
            self.counted = clock::now();
            self.window.leaves(puller.left().await.unwrap_or(0)); // The deliveries are not to be lost for that.
        }
        let deliveries = if self.filter.lane.is_deferred() { trimmed(&self.broker, deliveries).await? } else { deliveries };
        Ok((!deliveries.is_empty()).then_some(Read::Deliveries(self.filter.lane, deliveries)))
    }
}

/// Without what has ended already. What cannot be looked up now comes again.
async fn trimmed(broker: &Arc<dyn Broker>, deliveries: Vec<Delivery>) -> Result<Vec<Delivery>, BrokerError> {
    let mut left = Vec::with_capacity(deliveries.len());
    for delivery in deliveries {
        left.extend(settled::trim(broker, delivery).await?);
    }
    Ok(left)
}
