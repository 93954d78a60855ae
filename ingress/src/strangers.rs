//! core: cancels for executions nobody waits for, each sent once a second at most. Without it every token of a stream
//! that lost its caller would be met with another cancel.

use foldhash::HashMap;
use shared::clock::Time;
use shared::domain::{ExecId, RequestId};
use std::time::Duration;

const PAUSE: Duration = Duration::from_secs(1);

/// Executions remembered. Past it all are forgotten, which costs one more cancel for each that still speaks.
const REMEMBERED_MAX: usize = 16_384;

#[derive(Debug, Default)]
pub(crate) struct Strangers(HashMap<(RequestId, Option<ExecId>), Time>);

impl Strangers {
    /// Whether a cancel is due for this execution, or with `None` for the whole request.
    pub(crate) fn is_due(&mut self, id: RequestId, exec: Option<ExecId>, now: Time) -> bool {
        if self.0.get(&(id, exec)).is_some_and(|at| now.since(*at) < PAUSE) {
            return false;
        }
        if self.0.len() == REMEMBERED_MAX {
            self.0.clear();
        }
        self.0.insert((id, exec), now);
        true
    }

    /// Drops what no longer matters.
    pub(crate) fn forget(&mut self, now: Time) {
        self.0.retain(|_, at| now.since(*at) < PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::entropy::request_id;

    #[test]
    fn a_stranger_is_cancelled_once_a_second() {
        let (mut strangers, id) = (Strangers::default(), request_id());
        assert!(strangers.is_due(id, None, Time::ZERO));
        assert!(!strangers.is_due(id, None, Time::from_millis(999)));
        assert!(strangers.is_due(id, None, Time::from_millis(1_000)));
        assert!(strangers.is_due(request_id(), None, Time::from_millis(1_000)), "each has its own second");
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut strangers = Strangers::default();
        for _ in 0..=REMEMBERED_MAX {
            strangers.is_due(request_id(), None, Time::ZERO);
        }
        assert_eq!(strangers.0.len(), 1);
        strangers.forget(Time::from_millis(1_000));
        assert!(strangers.0.is_empty());
    }
}
