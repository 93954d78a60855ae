//! core: one bucket of records with compare-and-set, whose revisions grow over the whole bucket and never come again.

use crate::broker::{BrokerError, Bucket, Entry, Record, Topic};
use crate::clock::Time;
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Records of a bucket at once, marks of deleted ones included: as many keys as one installation may issue.
const RECORDS_MAX: usize = 1_000_000;

#[derive(Debug)]
pub(super) struct Records {
    bucket: Bucket,
    entries: HashMap<Arc<str>, Kept>,
    /// The last write of each record, in order, where the bucket can be followed.
    order: BTreeMap<u64, Arc<str>>,
    revision: u64,
    pub(super) news: Arc<Notify>,
}

#[derive(Debug)]
struct Kept {
    /// `None`: deleted. The mark stays where followers must hear of it.
    value: Option<Bytes>,
    revision: u64,
    written: Time,
    /// The wall clock, since 1970.
    stored: Duration,
}

impl Records {
    pub(super) fn new(bucket: Bucket) -> Self {
        Self { bucket, entries: HashMap::new(), order: BTreeMap::new(), revision: 0, news: Arc::default() }
    }

    pub(super) fn create(&mut self, now: Now, key: &str, value: Bytes) -> Result<u64, BrokerError> {
        if self.get(now, key).is_some() {
            return Err(BrokerError::Conflict);
        }
        if self.entries.len() >= RECORDS_MAX {
            self.drop_marks(now);
        }
        if self.entries.len() >= RECORDS_MAX {
            return Err(BrokerError::Full);
        }
        Ok(self.write(now, key, Some(value)))
    }

    pub(super) fn update(&mut self, now: Now, key: &str, value: Bytes, revision: u64) -> Result<u64, BrokerError> {
        self.check(now, key, revision)?;
        Ok(self.write(now, key, Some(value)))
    }

    pub(super) fn delete(&mut self, now: Now, key: &str, revision: u64) -> Result<(), BrokerError> {
        self.check(now, key, revision)?;
        self.write(now, key, None);
        Ok(())
    }

    pub(super) fn get(&self, now: Now, key: &str) -> Option<Record> {
        let kept = self.entries.get(key)?;
        let value = kept.value.clone().filter(|_| !kept.expired(now, self.bucket))?;
        Some(Record { value, revision: kept.revision })
    }

    /// The revision of the last write.
    pub(super) const fn last(&self) -> u64 {
        self.revision
    }

    /// The first write or deletion after `revision`, of a key that begins with these levels.
    pub(super) fn after(&self, revision: u64, levels: Option<&Topic>) -> Option<Entry> {
        let is_below = |levels: &Topic, key: &str| key.strip_prefix(levels.as_str()).is_some_and(|rest| rest.starts_with('.'));
        let mut later = self.order.range(revision + 1..).filter(|(_, key)| levels.is_none_or(|levels| is_below(levels, key)));
        let (sequence, key) = later.next()?;
        let kept = self.entries.get(key)?;
        let (value, stored, more) = (kept.value.clone(), kept.stored, later.next().is_some());
        Some(Entry { key: (&**key).into(), value, sequence: *sequence, stored, more })
    }

    fn check(&self, now: Now, key: &str, revision: u64) -> Result<(), BrokerError> {
        let current = self.get(now, key).map(|record| record.revision);
        if current == Some(revision) { Ok(()) } else { Err(BrokerError::Conflict) }
    }

    fn write(&mut self, now: Now, key: &str, value: Option<Bytes>) -> u64 {
        self.revision += 1;
        let key = Arc::<str>::from(key);
        let followed = self.bucket.ttl().is_none();
        if followed {
            self.order.insert(self.revision, key.clone());
        }
        let gone = value.is_none() && (!followed || self.bucket.forgets());
        let kept = Kept { value, revision: self.revision, written: now.0, stored: now.1 };
        if gone {
            self.order.remove(&self.revision);
        }
        let before = if gone { self.entries.remove(&key) } else { self.entries.insert(key, kept) };
        if let Some(before) = before {
            self.order.remove(&before.revision);
        }
        self.news.notify_waiters();
        self.revision
    }

    /// Forgets what was deleted or has expired.
    fn drop_marks(&mut self, now: Now) {
        self.entries.retain(|_, kept| kept.value.is_some() && !kept.expired(now, self.bucket));
        let entries = &self.entries;
        self.order.retain(|_, key| entries.contains_key(key));
    }
}

/// Now, on the process's clock and on the wall's (since 1970).
pub(super) type Now = (Time, Duration);

impl Kept {
    fn expired(&self, now: Now, bucket: Bucket) -> bool {
        bucket.ttl().is_some_and(|ttl| now.0.since(self.written) >= ttl)
    }
}
