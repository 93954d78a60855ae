//! core: the parts of a begun stream that have not come, and when they are asked for again.
//!
//! Core NATS loses messages when a server goes, and no other execution can take a begun stream over: but the worker that wrote it
//! keeps its parts for a while. What comes behind a missing part is not held here: it comes again with it.

use shared::clock::Time;
use shared::domain::NodeId;
use std::time::Duration;

/// Between two asks. A worker answers in milliseconds; what takes longer is a connection that is being made again.
const ASK_EVERY: Duration = Duration::from_millis(250);

/// How long a gap may last without any of its parts coming.
const GAP_MAX: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(crate) struct Missing {
    keeper: Option<NodeId>,
    gap: Option<Gap>,
    asked_at: Option<Time>,
}

#[derive(Clone, Copy, Debug)]
struct Gap {
    /// The part farthest ahead that has been heard of: with it the gap is closed.
    until: u32,
    /// When it opened, or was last narrowed.
    since: Time,
}

impl Missing {
    pub(crate) const fn nothing() -> Self {
        Self { keeper: None, gap: None, asked_at: None }
    }

    /// The stream's parts can be asked of `worker` again.
    pub(crate) fn kept_by(&mut self, worker: NodeId) {
        self.keeper = Some(worker);
    }

    /// Whether there is anybody to ask.
    pub(crate) const fn can_be_asked(&self) -> bool {
        self.keeper.is_some()
    }

    /// A part has come ahead of its turn.
    pub(crate) fn ahead(&mut self, part: u32, now: Time) {
        let gap = self.gap.get_or_insert(Gap { until: part, since: now });
        gap.until = gap.until.max(part);
    }

    /// A part has come in its turn.
    pub(crate) fn came(&mut self, part: u32, now: Time) {
        if let Some(gap) = self.gap {
            self.gap = (part < gap.until).then_some(Gap { since: now, ..gap });
        }
    }

    pub(crate) const fn has_gap(&self) -> bool {
        self.gap.is_some()
    }

    pub(crate) fn is_given_up(&self, now: Time) -> bool {
        self.gap.is_some_and(|gap| now.since(gap.since) >= GAP_MAX)
    }

    /// Whom to ask now.
    pub(crate) fn ask(&mut self, now: Time) -> Option<NodeId> {
        if self.asked_at.is_some_and(|at| now.since(at) < ASK_EVERY) {
            return None;
        }
        self.asked_at = Some(now);
        self.keeper.clone()
    }
}
