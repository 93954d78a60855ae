//! core: which streams there are, with what settings, and in what a stream that is found differs from them.

use super::Options;
use crate::broker::limits::{AUDIT_AGE_MAX, DEAD_AGE_MAX, DUPLICATE_WINDOW, LaneLimits, MIB, RESULTS_AGE_MAX, USAGE_AGE_MAX};
use crate::broker::{Bucket, HISTORY, Journal, Store};
use crate::domain::Lane;
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use std::time::Duration;

/// The streams' names appear in every subject and in operators' tools: keep them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamId {
    Lane(Lane),
    Bucket(Bucket),
    Journal(Journal),
    Blobs(Store),
}

/// Readers of one stream at once, where the server's own default (1,000 since 2.15) would be few: each caller that is attached to
/// a job is one.
const CONSUMERS_MAX: i32 = 65_536;

const LANES: usize = Lane::ALL.len();
const BUCKETS: usize = Bucket::ALL.len();
const JOURNALS: usize = Journal::ALL.len();

impl StreamId {
    pub(super) const COUNT: usize = LANES + BUCKETS + JOURNALS + Store::ALL.len();

    pub(super) fn all() -> impl Iterator<Item = Self> {
        let lanes = Lane::ALL.into_iter().map(Self::Lane);
        let buckets = Bucket::ALL.into_iter().map(Self::Bucket);
        let journals = Journal::ALL.into_iter().map(Self::Journal);
        lanes.chain(buckets).chain(journals).chain(Store::ALL.into_iter().map(Self::Blobs))
    }

    pub(super) const fn index(self) -> usize {
        match self {
            Self::Lane(lane) => lane.index(),
            Self::Bucket(bucket) => LANES + bucket.index(),
            Self::Journal(journal) => LANES + BUCKETS + journal.index(),
            Self::Blobs(store) => LANES + BUCKETS + JOURNALS + store.index(),
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Lane(Lane::Interactive) => "QI",
            Self::Lane(Lane::Async) => "QA",
            Self::Lane(Lane::Bulk) => "QB",
            // Key-value buckets to NATS's own tools.
            Self::Bucket(Bucket::Leases) => "KV_tidemill_leases",
            Self::Bucket(Bucket::Identity) => "KV_tidemill_identity",
            Self::Bucket(Bucket::Jobs) => "KV_tidemill_jobs",
            Self::Bucket(Bucket::Batches) => "KV_tidemill_batches",
            Self::Bucket(Bucket::Files) => "KV_tidemill_files",
            Self::Bucket(Bucket::Hooks) => "KV_tidemill_hooks",
            Self::Journal(Journal::Usage) => "tidemill_usage",
            Self::Journal(Journal::Audit) => "tidemill_audit",
            Self::Journal(Journal::Results) => "tidemill_results",
            Self::Journal(Journal::Dead) => "tidemill_dead",
            Self::Blobs(Store::Claims) => "tidemill_blobs",
            Self::Blobs(Store::Files) => "tidemill_files",
        }
    }

    /// What each of its subjects begins with.
    pub(super) const fn prefix(self) -> &'static str {
        match self {
            Self::Lane(Lane::Interactive) => "q.i.",
            Self::Lane(Lane::Async) => "q.a.",
            Self::Lane(Lane::Bulk) => "q.b.",
            Self::Bucket(Bucket::Leases) => "$KV.tidemill_leases.",
            Self::Bucket(Bucket::Identity) => "$KV.tidemill_identity.",
            Self::Bucket(Bucket::Jobs) => "$KV.tidemill_jobs.",
            Self::Bucket(Bucket::Batches) => "$KV.tidemill_batches.",
            Self::Bucket(Bucket::Files) => "$KV.tidemill_files.",
            Self::Bucket(Bucket::Hooks) => "$KV.tidemill_hooks.",
            Self::Journal(Journal::Usage) => "u.",
            Self::Journal(Journal::Audit) => "a.",
            Self::Journal(Journal::Results) => "r.",
            Self::Journal(Journal::Dead) => "d.",
            Self::Blobs(Store::Claims) => "o.",
            Self::Blobs(Store::Files) => "f.",
        }
    }

    fn subjects(self) -> String {
        let below = if let Self::Journal(journal) = self { any(journal.depth()) } else { ">".into() };
        format!("{}{below}", self.prefix())
    }

    pub(super) fn config(self, options: &Options, replicas: usize) -> Config {
        let limits = &options.limits;
        let specific = match self {
            Self::Lane(lane) => lane_config(lane, limits.lane(lane)),
            Self::Bucket(bucket) => bucket_config(bucket),
            Self::Journal(journal) => journal_config(journal, limits.journal(journal)),
            Self::Blobs(store) => blobs_config(store, limits.store(store)),
        };
        Config {
            name: self.name().into(),
            subjects: vec![self.subjects()],
            max_consumers: CONSUMERS_MAX,
            discard: if self.drops_oldest() { DiscardPolicy::Old } else { DiscardPolicy::New },
            num_replicas: replicas,
            // A direct read may be answered by a replica that is behind: what was written must be read.
            allow_direct: false,
            ..specific
        }
    }

    /// Only of a look back: elsewhere that would lose accepted work in silence.
    const fn drops_oldest(self) -> bool {
        matches!(self, Self::Journal(journal) if !journal.keeps())
    }
}

/// So many levels of a subject, whatever they are.
pub(super) fn any(levels: usize) -> String {
    vec!["*"; levels].join(".")
}

fn lane_config(lane: Lane, limits: &LaneLimits) -> Config {
    Config {
        retention: RetentionPolicy::WorkQueue,
        storage: if lane.is_deferred() { StorageType::File } else { StorageType::Memory },
        discard_new_per_subject: true,
        max_messages_per_subject: signed(limits.frames_per_origin_max),
        max_messages: signed(limits.frames_max),
        max_bytes: signed(limits.bytes_max),
        max_age: limits.age_max,
        duplicate_window: DUPLICATE_WINDOW,
        ..Config::default()
    }
}

/// In files although leases live for seconds: their revisions fence, so they must keep growing over a restart.
fn bucket_config(bucket: Bucket) -> Config {
    Config {
        storage: StorageType::File,
        max_messages_per_subject: if bucket == Bucket::Identity { signed(HISTORY) } else { 1 },
        max_messages: -1,
        max_bytes: signed(bucket_bytes_max(bucket)),
        max_age: bucket.ttl().unwrap_or_default(),
        duplicate_window: bucket.ttl().unwrap_or(DUPLICATE_WINDOW),
        allow_rollup: bucket == Bucket::Leases,
        ..Config::default()
    }
}

/// A job's record takes about a kilobyte: room for a million. A file's takes less, and there are fewer.
const fn bucket_bytes_max(bucket: Bucket) -> usize {
    match bucket {
        Bucket::Leases => 16 * MIB,
        Bucket::Identity => 512 * MIB,
        Bucket::Jobs => 1024 * MIB,
        Bucket::Batches | Bucket::Files | Bucket::Hooks => 128 * MIB,
    }
}

fn journal_config(journal: Journal, bytes_max: usize) -> Config {
    let is_audit = journal == Journal::Audit;
    Config {
        storage: StorageType::File,
        max_messages_per_subject: -1,
        max_messages: -1,
        max_bytes: signed(bytes_max),
        max_age: journal_age_max(journal),
        duplicate_window: DUPLICATE_WINDOW,
        deny_delete: is_audit,
        deny_purge: is_audit,
        ..Config::default()
    }
}

const fn journal_age_max(journal: Journal) -> Duration {
    match journal {
        Journal::Usage => USAGE_AGE_MAX,
        Journal::Audit => AUDIT_AGE_MAX,
        Journal::Results => RESULTS_AGE_MAX,
        Journal::Dead => DEAD_AGE_MAX,
    }
}

fn blobs_config(store: Store, bytes_max: usize) -> Config {
    Config {
        storage: StorageType::File,
        max_messages_per_subject: 1,
        max_messages: -1,
        max_bytes: signed(bytes_max),
        max_age: store.age_max(),
        duplicate_window: DUPLICATE_WINDOW,
        ..Config::default()
    }
}

fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// What the server has otherwise than we need, in words.
pub(super) fn differences(wanted: &Config, found: &Config) -> Vec<String> {
    let mut all = Vec::new();
    let mut compare = |what: &str, found: String, wanted: String| {
        if found != wanted {
            all.push(format!("{what} {found} where {wanted} is needed"));
        }
    };
    let text = |value: &dyn std::fmt::Debug| format!("{value:?}");
    compare("subjects", text(&found.subjects), text(&wanted.subjects));
    compare("retention", text(&found.retention), text(&wanted.retention));
    compare("storage", text(&found.storage), text(&wanted.storage));
    compare("discard", text(&found.discard), text(&wanted.discard));
    compare("discard_new_per_subject", text(&found.discard_new_per_subject), text(&wanted.discard_new_per_subject));
    compare("max_msgs_per_subject", text(&found.max_messages_per_subject), text(&wanted.max_messages_per_subject));
    compare("max_msgs", text(&found.max_messages), text(&wanted.max_messages));
    compare("max_bytes", text(&found.max_bytes), text(&wanted.max_bytes));
    compare("max_age", text(&found.max_age), text(&wanted.max_age));
    compare("duplicate_window", text(&found.duplicate_window), text(&wanted.duplicate_window));
    compare("deny_delete", text(&found.deny_delete), text(&wanted.deny_delete));
    compare("deny_purge", text(&found.deny_purge), text(&wanted.deny_purge));
    compare("allow_direct", text(&found.allow_direct), text(&wanted.allow_direct));
    // More copies than we would make are the operator's good right.
    let replicas = found.num_replicas.min(wanted.num_replicas);
    compare("num_replicas", text(&replicas), text(&wanted.num_replicas));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_that_matters_is_compared_and_named() {
        let wanted = StreamId::Lane(Lane::Async).config(&Options::default(), 1);
        assert!(differences(&wanted, &wanted).is_empty());
        let found = Config { discard: DiscardPolicy::Old, max_age: Duration::from_secs(1), ..wanted.clone() };
        let said = differences(&wanted, &found).join(", ");
        assert_eq!(said, "discard Old where New is needed, max_age 1s where 604800s is needed");
    }

    #[test]
    fn more_replicas_will_do_and_fewer_will_not() {
        let one = StreamId::Blobs(Store::Files).config(&Options::default(), 1);
        let three = StreamId::Blobs(Store::Files).config(&Options::default(), 3);
        assert!(differences(&one, &three).is_empty());
        assert_eq!(differences(&three, &one).len(), 1);
    }

    #[test]
    fn every_stream_has_its_own_place_and_name() {
        let places: Vec<_> = StreamId::all().map(StreamId::index).collect();
        assert_eq!(places, (0..StreamId::COUNT).collect::<Vec<_>>());
        let subjects: std::collections::BTreeSet<_> = StreamId::all().map(StreamId::subjects).collect();
        assert_eq!(subjects.len(), StreamId::COUNT);
        let names: std::collections::BTreeSet<_> = StreamId::all().map(StreamId::name).collect();
        assert_eq!(names.len(), StreamId::COUNT);
    }
}
