//! edge: the streams this broker lives on: making them, checking that nobody made them otherwise, knowing their incarnation.
//!
//! The interactive lane is in memory, so a server that restarts loses the whole stream. Whoever uses a stream therefore
//! asks for its incarnation first; the answer is remembered for one connection and a few seconds.

use super::fault::Fault;
use super::link::{Link, bounded, repeat};
use super::{BrokerError, Options};
use crate::broker::limits::{AUDIT_AGE_MAX, BLOB_AGE_MAX, DUPLICATE_WINDOW, LaneLimits, USAGE_AGE_MAX};
use crate::broker::{HISTORY, Journal, LEASE_TTL};
use crate::clock::{self, Time};
use crate::domain::Lane;
use async_nats::jetstream::stream::{Config, DiscardPolicy, Info, RetentionPolicy, StorageType};
use serde_json::json;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::OnceCell;

/// How long an incarnation is believed without asking again, on one connection: a stream that was deleted and made anew
/// behind our back, by hand or by a cluster, is noticed within this.
pub(super) const TRUST: Duration = Duration::from_secs(10);

/// The interactive lane's name and those of its kin appear in every subject and in operators' tools: keep them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamId {
    Lane(Lane),
    Leases,
    Blobs,
    Identity,
    Journal(Journal),
}

impl StreamId {
    pub(super) const ALL: [Self; 8] = [
        Self::Lane(Lane::Interactive),
        Self::Lane(Lane::Async),
        Self::Lane(Lane::Bulk),
        Self::Leases,
        Self::Blobs,
        Self::Identity,
        Self::Journal(Journal::Usage),
        Self::Journal(Journal::Audit),
    ];

    const fn index(self) -> usize {
        match self {
            Self::Lane(lane) => lane.index(),
            Self::Leases => 3,
            Self::Blobs => 4,
            Self::Identity => 5,
            Self::Journal(Journal::Usage) => 6,
            Self::Journal(Journal::Audit) => 7,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Lane(Lane::Interactive) => "QI",
            Self::Lane(Lane::Async) => "QA",
            Self::Lane(Lane::Bulk) => "QB",
            // A key-value bucket to NATS's own tools.
            Self::Leases => "KV_tidemill_leases",
            Self::Blobs => "tidemill_blobs",
            Self::Identity => "KV_tidemill_identity",
            Self::Journal(Journal::Usage) => "tidemill_usage",
            Self::Journal(Journal::Audit) => "tidemill_audit",
        }
    }

    const fn subjects(self) -> &'static str {
        match self {
            Self::Lane(Lane::Interactive) => "q.i.>",
            Self::Lane(Lane::Async) => "q.a.>",
            Self::Lane(Lane::Bulk) => "q.b.>",
            Self::Leases => "$KV.tidemill_leases.>",
            Self::Blobs => "o.>",
            Self::Identity => "$KV.tidemill_identity.>",
            Self::Journal(Journal::Usage) => "u.*",
            Self::Journal(Journal::Audit) => "a.*",
        }
    }

    fn config(self, options: &Options, replicas: usize) -> Config {
        let limits = &options.limits;
        let specific = match self {
            Self::Lane(lane) => lane_config(lane, limits.lane(lane)),
            Self::Leases => leases_config(),
            Self::Blobs => blobs_config(limits.blob_bytes_max),
            Self::Identity => identity_config(),
            Self::Journal(journal) => journal_config(journal, limits.journal_bytes_max),
        };
        Config {
            name: self.name().into(),
            subjects: vec![self.subjects().into()],
            // The oldest goes from a journal only: on a work queue that would lose accepted work in silence.
            discard: if matches!(self, Self::Journal(_)) { DiscardPolicy::Old } else { DiscardPolicy::New },
            num_replicas: replicas,
            // A direct read may be answered by a replica that is behind: what was written must be read.
            allow_direct: false,
            ..specific
        }
    }
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
fn leases_config() -> Config {
    Config {
        storage: StorageType::File,
        max_messages_per_subject: 1,
        max_messages: -1,
        max_bytes: 16 * 1024 * 1024,
        max_age: LEASE_TTL,
        duplicate_window: LEASE_TTL,
        allow_rollup: true,
        ..Config::default()
    }
}

fn blobs_config(bytes_max: usize) -> Config {
    Config {
        storage: StorageType::File,
        max_messages_per_subject: 1,
        max_messages: -1,
        max_bytes: signed(bytes_max),
        max_age: BLOB_AGE_MAX,
        duplicate_window: DUPLICATE_WINDOW,
        ..Config::default()
    }
}

fn identity_config() -> Config {
    Config {
        storage: StorageType::File,
        max_messages_per_subject: signed(HISTORY),
        max_messages: -1,
        max_bytes: 512 * 1024 * 1024,
        duplicate_window: DUPLICATE_WINDOW,
        ..Config::default()
    }
}

fn journal_config(journal: Journal, bytes_max: usize) -> Config {
    let is_audit = journal == Journal::Audit;
    Config {
        storage: StorageType::File,
        max_messages_per_subject: -1,
        max_messages: -1,
        max_bytes: signed(bytes_max),
        max_age: if is_audit { AUDIT_AGE_MAX } else { USAGE_AGE_MAX },
        duplicate_window: DUPLICATE_WINDOW,
        deny_delete: is_audit,
        deny_purge: is_audit,
        ..Config::default()
    }
}

fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Which stream this is, and over which connection we learnt it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Incarnation {
    pub(super) connects: u64,
    /// When the stream was created, in nanoseconds since 1970.
    pub(super) epoch: u64,
}

#[derive(Debug)]
pub(super) struct Streams {
    pub(super) link: Link,
    options: Options,
    /// A lock for the pointer only; who waits for the server waits at the cell, together.
    known: [Mutex<Known>; StreamId::ALL.len()],
}

#[derive(Clone, Debug, Default)]
struct Known {
    connects: u64,
    since: Time,
    epoch: Arc<OnceCell<u64>>,
}

impl Streams {
    pub(super) fn new(link: Link, options: Options) -> Self {
        Self { link, options, known: Default::default() }
    }

    /// The stream as it stands now, made if it was not there.
    pub(super) async fn incarnation(&self, id: StreamId) -> Result<Incarnation, Fault> {
        let known = self.known(id);
        let epoch = known.epoch.get_or_try_init(|| self.ensure(id)).await?;
        Ok(Incarnation { connects: known.connects, epoch: *epoch })
    }

    /// Acts on a stream that is there, and again while `again` says so, for 5 s at most.
    pub(super) async fn using<T, F>(
        &self,
        id: StreamId,
        again: fn(&Fault) -> bool,
        act: impl Fn(Incarnation) -> F,
    ) -> Result<T, BrokerError>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        let attempt = || async {
            let done = act(self.incarnation(id).await?).await;
            if matches!(done, Err(Fault::Absent)) {
                self.forget(id);
            }
            done
        };
        bounded(repeat(again, attempt)).await
    }

    /// Ask anew next time: somebody found it gone.
    pub(super) fn forget(&self, id: StreamId) {
        *self.lock(id) = Known::default();
    }

    fn known(&self, id: StreamId) -> Known {
        let (connects, now) = (self.link.connects(), clock::now());
        let mut known = self.lock(id);
        if known.connects != connects || now.since(known.since) >= TRUST {
            *known = Known { connects, since: now, epoch: Arc::default() };
        }
        known.clone()
    }

    fn lock(&self, id: StreamId) -> std::sync::MutexGuard<'_, Known> {
        self.known[id.index()].lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ensure(&self, id: StreamId) -> Result<u64, Fault> {
        let wanted = id.config(&self.options, self.link.replicas(&self.options));
        let info = match self.link.api::<Info>(format!("STREAM.INFO.{}", id.name()), "").await {
            Err(Fault::Absent) => self.create(&wanted).await?,
            found => found?,
        };
        let differences = differences(&wanted, &info.config);
        if !differences.is_empty() {
            let sentence = format!("stream {} has {}: change it, or delete it when it is empty", id.name(), differences.join(", "));
            return Err(Fault::Final(BrokerError::Unfit(sentence)));
        }
        Ok(u64::try_from(info.created.unix_timestamp_nanos()).unwrap_or(0))
    }

    /// Two processes may do this at once: the second is answered with what the first made.
    async fn create(&self, wanted: &Config) -> Result<Info, Fault> {
        match self.link.api(format!("STREAM.CREATE.{}", wanted.name), json!(wanted).to_string()).await {
            Err(Fault::Final(error)) => Err(Fault::Final(BrokerError::Unfit(format!("stream {} cannot be made: {error}", wanted.name)))),
            other => other,
        }
    }
}

/// What the server has otherwise than we need, in words.
fn differences(wanted: &Config, found: &Config) -> Vec<String> {
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
        let one = StreamId::Blobs.config(&Options::default(), 1);
        let three = StreamId::Blobs.config(&Options::default(), 3);
        assert!(differences(&one, &three).is_empty());
        assert_eq!(differences(&three, &one).len(), 1);
    }

    #[test]
    fn every_stream_has_its_own_place_and_name() {
        let places: Vec<_> = StreamId::ALL.iter().map(|id| id.index()).collect();
        assert_eq!(places, (0..StreamId::ALL.len()).collect::<Vec<_>>());
        let names: std::collections::BTreeSet<_> = StreamId::ALL.iter().map(|id| id.name()).collect();
        assert_eq!(names.len(), StreamId::ALL.len());
    }
}
