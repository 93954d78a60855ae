//! core: the caps of a broker's lanes, the same for both edges. Past a cap a publish is refused: back-pressure begins here.

use crate::config::REQUEST_TIMEOUT_MAX;
use crate::domain::Lane;
use std::time::Duration;

/// The largest frame a broker carries, with its headers: NATS's own default, which its makers advise not to raise.
pub const PAYLOAD_BYTES_MAX: usize = 1024 * 1024;

/// How long a message id is remembered.
pub const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// How long a blob lives if its user does not delete it: longer than any deadline, so that only the forgotten are swept.
pub const BLOB_AGE_MAX: Duration = Duration::from_secs(2 * 3_600);

/// How long what a call used is remembered: a month's budget, and two more to look back on.
pub const USAGE_AGE_MAX: Duration = Duration::from_secs(93 * 24 * 3_600);

/// How long changes are remembered: a year, and the month in which somebody asks about it.
pub const AUDIT_AGE_MAX: Duration = Duration::from_secs(400 * 24 * 3_600);

/// What one lane holds at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneLimits {
    /// Stored frames of one origin for one model.
    pub frames_per_origin_max: usize,
    /// Stored frames of the whole lane.
    pub frames_max: usize,
    /// Stored bytes of the whole lane.
    pub bytes_max: usize,
    /// Older frames are dropped unseen.
    pub age_max: Duration,
}

/// What a broker holds at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub interactive: LaneLimits,
    pub deferred: LaneLimits,
    /// Bytes of all blobs together.
    pub blob_bytes_max: usize,
    /// Bytes of each journal; past it the oldest entries go.
    pub journal_bytes_max: usize,
}

impl Limits {
    pub const fn lane(&self, lane: Lane) -> &LaneLimits {
        if lane.is_deferred() { &self.deferred } else { &self.interactive }
    }
}

impl Default for Limits {
    /// Sized so that a small machine (1 GiB of memory, 8 GiB of disk) can promise all of it: JetStream reserves the bytes.
    fn default() -> Self {
        Self {
            interactive: LaneLimits {
                frames_per_origin_max: 10_000,
                frames_max: 200_000,
                bytes_max: 256 * 1024 * 1024,
                // A minute past the longest deadline: by then nobody waits for it.
                age_max: REQUEST_TIMEOUT_MAX.saturating_add(Duration::from_secs(60)),
            },
            deferred: LaneLimits {
                frames_per_origin_max: 5_000,
                frames_max: 1_000_000,
                bytes_max: 1024 * 1024 * 1024,
                // A week: a job's record, not the queue, says when the job expires.
                age_max: Duration::from_secs(7 * 24 * 3_600),
            },
            blob_bytes_max: 1024 * 1024 * 1024,
            journal_bytes_max: 1024 * 1024 * 1024,
        }
    }
}
