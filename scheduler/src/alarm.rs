//! edge: the loop's timer. It is moved only when it would ring too late: one that rings early costs a step that finds
//! nothing to do, while a new timer for every step costs each request a wake-up of the driver.

use shared::clock::{self, Time};
use std::pin::Pin;
use tokio::time::{Sleep, sleep_until};

pub(crate) struct Alarm {
    timer: Pin<Box<Sleep>>,
    at: Time,
}

impl Alarm {
    pub(crate) fn new() -> Self {
        let at = clock::now();
        Self { timer: Box::pin(sleep_until(clock::instant(at))), at }
    }

    /// Has it ring at `at` at the latest.
    pub(crate) fn set(&mut self, at: Time) {
        if at < self.at || self.timer.is_elapsed() {
            self.at = at;
            self.timer.as_mut().reset(clock::instant(at));
        }
    }

    /// Cancel-safe.
    pub(crate) async fn rings(&mut self) {
        self.timer.as_mut().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn it_rings_by_the_earliest_time_it_was_set_to_and_again_when_set_again() {
        let (mut alarm, start) = (Alarm::new(), clock::now());
        alarm.rings().await;
        alarm.set(start + Duration::from_millis(50));
        alarm.set(start + Duration::from_millis(20));
        alarm.set(start + Duration::from_millis(90));
        alarm.rings().await;
        assert_eq!(clock::now().since(start), Duration::from_millis(20));
        alarm.set(start + Duration::from_millis(90));
        alarm.rings().await;
        assert_eq!(clock::now().since(start), Duration::from_millis(90));
    }
}
