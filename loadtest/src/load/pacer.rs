//! edge: the clock of the open loop, a thread that sleeps: it wakes tens of microseconds late, a runtime's timer a millisecond.

use crate::clock::{Stopwatch, block_for};
use crate::schedule::Schedule;
use std::sync::Weak;
use tokio::sync::Semaphore;

/// Adds a permit when each start is due, and at the end one for each connection, so that none waits for more. Ends
/// early when nobody is left to be paced.
pub(super) fn start(starts: Schedule, due: Weak<Semaphore>, began: Stopwatch, connections: usize) {
    std::thread::spawn(move || {
        for at in starts {
            block_for(at.saturating_sub(began.elapsed()));
            let Some(due) = due.upgrade() else { return };
            due.add_permits(1);
        }
        if let Some(due) = due.upgrade() {
            due.add_permits(connections);
        }
    });
}
