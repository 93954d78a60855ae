//! loop: a simulated accelerator, which takes one call at a time: a thread that sleeps.
//!
//! A thread wakes tens of microseconds late, a runtime's timer a millisecond. Work begins when the work before it *should*
//! have ended: lateness never adds up, and a busy accelerator has exactly its configured throughput.

use crate::clock::{Stopwatch, block_for};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;
use tokio::sync::oneshot;

/// Calls that may wait. Far more than callers in any scenario.
const WAITING_MAX: usize = 16_384;

/// What a call costs: so much, and so much more for each unit (an input, or a padded token).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    pub call_ms: f64,
    pub unit_ms: f64,
}

/// More calls wait than it has room for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Busy;

pub(super) struct Accelerator {
    cost: Cost,
    calls: SyncSender<Call>,
    epoch: Stopwatch,
}

struct Call {
    arrived: Duration,
    takes: Duration,
    done: oneshot::Sender<()>,
}

impl Cost {
    pub fn of(self, units: usize) -> Duration {
        Duration::from_secs_f64(self.unit_ms.mul_add(units as f64, self.call_ms).max(0.0) / 1e3)
    }
}

impl Accelerator {
    /// Its thread ends with it.
    pub(super) fn start(cost: Cost) -> Self {
        let (calls, waiting) = sync_channel(WAITING_MAX);
        let epoch = Stopwatch::start();
        std::thread::spawn(move || work(&waiting, epoch));
        Self { cost, calls, epoch }
    }

    /// Waits for its turn and for the work.
    pub(super) async fn work(&self, units: usize) -> Result<(), Busy> {
        let (done, finished) = oneshot::channel();
        let call = Call { arrived: self.epoch.elapsed(), takes: self.cost.of(units), done };
        self.calls.try_send(call).map_err(|_| Busy)?;
        finished.await.map_err(|_| Busy)
    }
}

fn work(waiting: &Receiver<Call>, epoch: Stopwatch) {
    let mut free = Duration::ZERO;
    while let Ok(call) = waiting.recv() {
        // A caller that has left costs nothing: its call is never begun.
        if call.done.is_closed() {
            continue;
        }
        free = free.max(call.arrived) + call.takes;
        block_for(free.saturating_sub(epoch.elapsed()));
        let _ = call.done.send(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_costs_by_its_units() {
        assert_eq!(Cost { call_ms: 5.0, unit_ms: 0.15 }.of(64), Duration::from_micros(14_600));
    }

    #[tokio::test]
    async fn calls_are_worked_one_after_another() {
        let accelerator = Accelerator::start(Cost { call_ms: 1.0, unit_ms: 1.0 });
        let began = Stopwatch::start();
        let (first, second) = tokio::join!(accelerator.work(1), accelerator.work(2));
        assert!(first.is_ok() && second.is_ok());
        assert!(began.elapsed() >= Duration::from_millis(5), "{:?}", began.elapsed());
    }
}
