//! core: the caps of a broker, most of them the same for both edges. Past a cap a publish is refused: back-pressure begins
//! here.

use super::{Journal, Store};
use crate::config::REQUEST_TIMEOUT_MAX;
use crate::domain::Lane;
use std::time::Duration;

pub(super) const MIB: usize = 1024 * 1024;

/// The largest frame a broker carries, with its headers: NATS's own default, which its makers advise not to raise.
pub const PAYLOAD_BYTES_MAX: usize = MIB;

/// How long a message id is remembered.
pub const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// How long a claim lives if its user does not delete it: longer than any deadline, so that only the forgotten are swept.
pub const CLAIM_AGE_MAX: Duration = Duration::from_secs(2 * 3_600);

/// How long what a call used is remembered: a month's budget, and two more to look back on.
pub const USAGE_AGE_MAX: Duration = Duration::from_secs(93 * 24 * 3_600);

/// How long changes are remembered: a year, and the month in which somebody asks about it.
pub const AUDIT_AGE_MAX: Duration = Duration::from_secs(400 * 24 * 3_600);

/// How long an outcome waits for its reader: longer than any job may take, so that only the forgotten are swept.
pub const RESULTS_AGE_MAX: Duration = Duration::from_secs(31 * 24 * 3_600);

/// One entry of the results: what one backend call ended. Larger outcomes are blobs, named in the entry.
pub const RESULT_BYTES_MAX: usize = 768 * 1024;

/// How long given up work can be looked at and driven again.
pub const DEAD_AGE_MAX: Duration = Duration::from_secs(30 * 24 * 3_600);

/// How long a file lives that was forgotten by whoever should delete it: longer than any expiry that can be asked for.
pub const FILE_AGE_MAX: Duration = Duration::from_secs(400 * 24 * 3_600);

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
    /// Bytes of all claims together.
    pub claims_bytes_max: usize,
    /// Bytes of all files together.
    pub files_bytes_max: usize,
    /// Bytes of the results; past it an outcome is refused until others have been read and erased.
    pub results_bytes_max: usize,
    /// Bytes of the record of model calls; past it the oldest entries go.
    pub usage_bytes_max: usize,
    /// Bytes of the record of changes; past it the oldest entries go.
    pub audit_bytes_max: usize,
    /// Bytes of the dead letters, which carry requests; past it the oldest go.
    pub dead_bytes_max: usize,
}

impl Limits {
    pub const fn lane(&self, lane: Lane) -> &LaneLimits {
        if lane.is_deferred() { &self.deferred } else { &self.interactive }
    }

    pub const fn journal(&self, journal: Journal) -> usize {
        match journal {
            Journal::Usage => self.usage_bytes_max,
            Journal::Audit => self.audit_bytes_max,
            Journal::Results => self.results_bytes_max,
            Journal::Dead => self.dead_bytes_max,
        }
    }

    pub const fn store(&self, store: Store) -> usize {
        match store {
            Store::Claims => self.claims_bytes_max,
            Store::Files => self.files_bytes_max,
        }
    }

    /// The caps of a broker in process: its memory is the process's own, and what it holds is lost with it anyway.
    pub fn in_process() -> Self {
        Self {
            deferred: LaneLimits { frames_per_origin_max: 20_000, ..Self::default().deferred },
            files_bytes_max: 1024 * MIB,
            results_bytes_max: 256 * MIB,
            // Enough for a look back, cheap for everybody else.
            usage_bytes_max: 4 * MIB,
            audit_bytes_max: 4 * MIB,
            dead_bytes_max: 4 * MIB,
            ..Self::default()
        }
    }
}

impl Default for Limits {
    /// Sized so that a small machine (1 GiB of memory, 20 GB of free disk) can promise all of it: JetStream reserves the
    /// bytes, and promises three quarters of what is free unless it is told more.
    fn default() -> Self {
        Self {
            interactive: LaneLimits {
                frames_per_origin_max: 10_000,
                frames_max: 200_000,
                bytes_max: 256 * MIB,
                // A minute past the longest deadline: by then nobody waits for it.
                age_max: REQUEST_TIMEOUT_MAX.saturating_add(Duration::from_secs(60)),
            },
            deferred: LaneLimits {
                // More single jobs than anybody waits for; a batch has a few frames here at a time.
                frames_per_origin_max: 200_000,
                frames_max: 1_000_000,
                bytes_max: 1024 * MIB,
                // A week: a job's record, not the queue, says when the job expires.
                age_max: Duration::from_secs(7 * 24 * 3_600),
            },
            claims_bytes_max: 1024 * MIB,
            files_bytes_max: 4096 * MIB,
            results_bytes_max: 2048 * MIB,
            usage_bytes_max: 1024 * MIB,
            audit_bytes_max: 1024 * MIB,
            dead_bytes_max: 256 * MIB,
        }
    }
}
