//! core: the words for what a broker keeps beside its lanes: records, journals, blobs, and the reading of them.

use super::BrokerError;
use super::limits::{CLAIM_AGE_MAX, FILE_AGE_MAX, PAYLOAD_BYTES_MAX, RESULT_BYTES_MAX};
use crate::domain::Token;
use bytes::Bytes;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What a record bucket is for; each has its own lifetime rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bucket {
    /// Entries vanish [`LEASE_TTL`] after their last write.
    Leases,
    /// Tenants, roles and keys. They stay until deleted, can be followed, and the last [`HISTORY`] writes of each are kept.
    Identity,
    /// Deferred work: the truth of its state. They stay until deleted and can be followed; keys are `<tenant's token>.<id>`.
    Jobs,
    /// As `Jobs`: files of requests that are run line by line.
    Batches,
    /// As `Jobs`: what is known of each uploaded or written file.
    Files,
    /// As `Jobs`: webhooks that are still to be delivered; keys are `<tenant's token>.<event>.<target>`.
    Hooks,
}

impl Bucket {
    pub const ALL: [Self; 6] = [Self::Leases, Self::Identity, Self::Jobs, Self::Batches, Self::Files, Self::Hooks];

    pub(super) const fn index(self) -> usize {
        self as usize
    }

    /// Whether nothing stays of a deleted record, so that records may come and go for years: who follows the bucket may
    /// not hear of a deletion.
    pub(super) const fn forgets(self) -> bool {
        matches!(self, Self::Jobs | Self::Batches | Self::Files | Self::Hooks)
    }

    /// How long a record lives after its last write; for ever where there is none.
    pub(super) const fn ttl(self) -> Option<Duration> {
        match self {
            Self::Leases => Some(LEASE_TTL),
            Self::Identity | Self::Jobs | Self::Batches | Self::Files | Self::Hooks => None,
        }
    }
}

/// How long a lease outlives its last renewal.
pub const LEASE_TTL: Duration = Duration::from_secs(3);

/// Writes of one record that are kept where a bucket keeps any: what an operator may look back on.
pub const HISTORY: usize = 16;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub value: Bytes,
    /// Grows with every write to the bucket: a fencing token as well as a compare-and-set guard.
    pub revision: u64,
}

/// An append-only log, in order, of bounded size and age. When it is full the oldest entry goes, unless said otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Journal {
    /// What each model call used: the truth of money. Its topics are tenants.
    Usage,
    /// What was changed by whom. Nobody can delete from it.
    Audit,
    /// How rows of deferred work ended; its topics are `<job>.<part>`. Nothing accepted may be lost, so what finds it full
    /// is refused, and whoever has read an outcome to its end erases it.
    Results,
    /// Work that was given up, with the reason. Its topics are tenants.
    Dead,
}

impl Journal {
    pub const ALL: [Self; 4] = [Self::Usage, Self::Audit, Self::Results, Self::Dead];

    pub(super) const fn index(self) -> usize {
        self as usize
    }

    /// Levels of the topic of each of its entries.
    pub(super) const fn depth(self) -> usize {
        match self {
            Self::Usage | Self::Audit | Self::Dead => 1,
            Self::Results => 2,
        }
    }

    const fn entry_bytes_max(self) -> usize {
        match self {
            Self::Usage | Self::Audit | Self::Dead => PAYLOAD_BYTES_MAX,
            Self::Results => RESULT_BYTES_MAX,
        }
    }

    /// Whether an entry that finds the journal full is refused, and entries may be erased.
    pub(super) const fn keeps(self) -> bool {
        matches!(self, Self::Results)
    }
}

/// What an entry of a journal is about: tokens, joined by dots. A topic of fewer levels stands for all below it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic(Arc<str>);

impl Topic {
    /// # Panics
    /// Without any level.
    pub fn of(levels: &[&Token]) -> Self {
        assert!(!levels.is_empty(), "a topic has a level");
        let texts: Vec<&str> = levels.iter().map(|level| level.as_str()).collect();
        Self(texts.join(".").into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn levels(&self) -> usize {
        self.0.split('.').count()
    }
}

impl From<Token> for Topic {
    fn from(token: Token) -> Self {
        Self(token.as_str().into())
    }
}

impl From<&Token> for Topic {
    fn from(token: &Token) -> Self {
        Self(token.as_str().into())
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whether a journal takes such an entry.
pub(super) fn check_entry(journal: Journal, topic: &Topic, entry: &Bytes) -> Result<(), BrokerError> {
    if topic.levels() != journal.depth() {
        return Err(BrokerError::Unfit(format!("the topics of {journal:?} have {} levels: {topic}", journal.depth())));
    }
    if entry.len() > journal.entry_bytes_max() { Err(BrokerError::TooLarge) } else { Ok(()) }
}

/// Whether entries of a journal may be erased.
pub(super) fn check_erasable(journal: Journal) -> Result<(), BrokerError> {
    if journal.keeps() { Ok(()) } else { Err(BrokerError::Unfit(format!("nothing is erased from {journal:?}"))) }
}

/// What can be read in order, from the past on into what is still to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Feed {
    /// The present state of each record, then every write and deletion: of those whose keys begin with these levels, or of
    /// all. Only of a bucket whose records stay.
    Records(Bucket, Option<Topic>),
    /// The entries of one topic and of all below it, or of all topics.
    Journal(Journal, Option<Topic>),
}

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    Start,
    /// With what was stored at this time or later, as time since 1970. Journals only.
    Time(Duration),
    /// With what is written after the reader was opened.
    Now,
}

/// One entry of a feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The record's key, or the entry's topic.
    pub key: Box<str>,
    /// `None`: the record was deleted.
    pub value: Option<Bytes>,
    /// Position in the journal, or the record's revision. Grows from entry to entry.
    pub sequence: u64,
    /// When it was stored, by the broker's clock, since 1970.
    pub stored: Duration,
    /// Whether another was behind it when it was sent.
    pub more: bool,
}

/// What a blob store is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Store {
    /// Bodies too large for an envelope. They are deleted by their users, or by age (2 h).
    Claims,
    /// The pieces of files. They are deleted by their users; age (400 days) is a backstop.
    Files,
}

impl Store {
    pub const ALL: [Self; 2] = [Self::Claims, Self::Files];

    pub(super) const fn index(self) -> usize {
        self as usize
    }

    pub(super) const fn age_max(self) -> Duration {
        match self {
            Self::Claims => CLAIM_AGE_MAX,
            Self::Files => FILE_AGE_MAX,
        }
    }
}
