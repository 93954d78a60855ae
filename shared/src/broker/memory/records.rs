//! core: records with compare-and-set, whose revisions grow over the whole bucket and never come again.

use crate::broker::{BrokerError, Bucket, Entry, LEASE_TTL, Record};
use crate::clock::Time;
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Records at once, marks of deleted ones included: as many keys as one installation may issue.
const RECORDS_MAX: usize = 1_000_000;

#[derive(Debug, Default)]
pub(super) struct Records {
    entries: HashMap<(Bucket, Arc<str>), Kept>,
    /// The last write of each record of a bucket that can be followed, in order.
    order: BTreeMap<u64, (Bucket, Arc<str>)>,
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
    pub(super) fn create(&mut self, now: Now, bucket: Bucket, key: &str, value: Bytes) -> Result<u64, BrokerError> {
        if self.get(now, bucket, key).is_some() {
            return Err(BrokerError::Conflict);
        }
        if self.entries.len() >= RECORDS_MAX {
            self.entries.retain(|(bucket, _), kept| kept.value.is_some() && !kept.expired(now, *bucket));
            let entries = &self.entries;
            self.order.retain(|_, record| entries.contains_key(record));
        }
        if self.entries.len() >= RECORDS_MAX {
            return Err(BrokerError::Full);
        }
        Ok(self.write(now, bucket, key, Some(value)))
    }

    pub(super) fn update(&mut self, now: Now, bucket: Bucket, key: &str, value: Bytes, revision: u64) -> Result<u64, BrokerError> {
        self.check(now, bucket, key, revision)?;
        Ok(self.write(now, bucket, key, Some(value)))
    }

    pub(super) fn delete(&mut self, now: Now, bucket: Bucket, key: &str, revision: u64) -> Result<(), BrokerError> {
        self.check(now, bucket, key, revision)?;
        self.write(now, bucket, key, None);
        Ok(())
    }

    pub(super) fn get(&self, now: Now, bucket: Bucket, key: &str) -> Option<Record> {
        let kept = self.entries.get(&(bucket, key.into()))?;
        let value = kept.value.clone().filter(|_| !kept.expired(now, bucket))?;
        Some(Record { value, revision: kept.revision })
    }

    /// The first write or deletion after `revision` in a bucket that can be followed.
    pub(super) fn after(&self, revision: u64, bucket: Bucket) -> Option<Entry> {
        let mut later = self.order.range(revision + 1..).filter(|(_, (of, _))| *of == bucket);
        let (sequence, record) = later.next()?;
        let kept = self.entries.get(record)?;
        let (value, stored, more) = (kept.value.clone(), kept.stored, later.next().is_some());
        Some(Entry { key: (&*record.1).into(), value, sequence: *sequence, stored, more })
    }

    fn check(&self, now: Now, bucket: Bucket, key: &str, revision: u64) -> Result<(), BrokerError> {
        let current = self.get(now, bucket, key).map(|record| record.revision);
        if current == Some(revision) { Ok(()) } else { Err(BrokerError::Conflict) }
    }

    fn write(&mut self, now: Now, bucket: Bucket, key: &str, value: Option<Bytes>) -> u64 {
        self.revision += 1;
        let record = (bucket, Arc::from(key));
        let followed = ttl(bucket).is_none();
        if followed {
            self.order.insert(self.revision, record.clone());
        }
        let gone = value.is_none() && !followed;
        let kept = Kept { value, revision: self.revision, written: now.0, stored: now.1 };
        let before = if gone { self.entries.remove(&record) } else { self.entries.insert(record, kept) };
        if let Some(before) = before {
            self.order.remove(&before.revision);
        }
        self.news.notify_waiters();
        self.revision
    }
}

/// Now, on the process's clock and on the wall's (since 1970).
pub(super) type Now = (Time, Duration);

impl Kept {
    fn expired(&self, now: Now, bucket: Bucket) -> bool {
        ttl(bucket).is_some_and(|ttl| now.0.since(self.written) >= ttl)
    }
}

/// How long a record lives after its last write; for ever where there is none.
const fn ttl(bucket: Bucket) -> Option<Duration> {
    match bucket {
        Bucket::Leases => Some(LEASE_TTL),
        Bucket::Identity => None,
    }
}
