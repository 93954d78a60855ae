//! core: what may happen to a stored stream although its server said otherwise: for simulations alone.

use super::{MemoryBroker, Timepiece};
use crate::broker::limits::Limits;
use crate::domain::Lane;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

#[doc(hidden)]
impl MemoryBroker {
    /// A broker whose time is told, in microseconds.
    pub fn told(micros: Arc<AtomicU64>) -> Arc<Self> {
        Self::build(&Limits::in_process(), Timepiece::Told(micros))
    }

    /// A lane's stream is made anew, as one in memory is after a restart: what it held is gone, its epoch is another.
    pub fn lose_stream(&self, lane: Lane) {
        self.shared.lane(lane).make_anew();
    }

    /// A lane's last frames were confirmed and never reached the disk: their sequences are given again.
    pub fn lose_tail(&self, lane: Lane, frames: u64) {
        self.shared.lane(lane).lose_tail(frames);
    }

    /// The message ids of a lane are forgotten before their time.
    pub fn forget_ids(&self, lane: Lane) {
        self.shared.lane(lane).forget_ids();
    }

    /// Frames that a lane stores.
    pub fn stored(&self, lane: Lane) -> usize {
        self.shared.lane(lane).len()
    }
}
