//! core: records with compare-and-set, whose revisions grow over the whole bucket and never come again.

use crate::broker::{BrokerError, Bucket, LEASE_TTL, Record};
use crate::clock::Time;
use bytes::Bytes;
use std::collections::HashMap;
use std::time::Duration;

/// Records at once: a lease per model and part, with plenty to spare.
const RECORDS_MAX: usize = 100_000;

#[derive(Debug, Default)]
pub(super) struct Records {
    entries: HashMap<(Bucket, Box<str>), Entry>,
    revision: u64,
}

#[derive(Debug)]
struct Entry {
    record: Record,
    written: Time,
}

impl Records {
    pub(super) fn create(&mut self, now: Time, bucket: Bucket, key: &str, value: Bytes) -> Result<u64, BrokerError> {
        if self.get(now, bucket, key).is_some() {
            return Err(BrokerError::Conflict);
        }
        if self.entries.len() >= RECORDS_MAX {
            self.entries.retain(|(bucket, _), entry| !entry.expired(now, *bucket));
        }
        if self.entries.len() >= RECORDS_MAX {
            return Err(BrokerError::Full);
        }
        Ok(self.write(now, bucket, key, value))
    }

    pub(super) fn update(&mut self, now: Time, bucket: Bucket, key: &str, value: Bytes, revision: u64) -> Result<u64, BrokerError> {
        self.check(now, bucket, key, revision)?;
        Ok(self.write(now, bucket, key, value))
    }

    pub(super) fn delete(&mut self, now: Time, bucket: Bucket, key: &str, revision: u64) -> Result<(), BrokerError> {
        self.check(now, bucket, key, revision)?;
        self.entries.remove(&(bucket, key.into()));
        self.revision += 1;
        Ok(())
    }

    pub(super) fn get(&self, now: Time, bucket: Bucket, key: &str) -> Option<Record> {
        let entry = self.entries.get(&(bucket, key.into()))?;
        (!entry.expired(now, bucket)).then(|| entry.record.clone())
    }

    fn check(&self, now: Time, bucket: Bucket, key: &str, revision: u64) -> Result<(), BrokerError> {
        let current = self.get(now, bucket, key).map(|record| record.revision);
        if current == Some(revision) { Ok(()) } else { Err(BrokerError::Conflict) }
    }

    fn write(&mut self, now: Time, bucket: Bucket, key: &str, value: Bytes) -> u64 {
        self.revision += 1;
        let record = Record { value, revision: self.revision };
        self.entries.insert((bucket, key.into()), Entry { record, written: now });
        self.revision
    }
}

impl Entry {
    fn expired(&self, now: Time, bucket: Bucket) -> bool {
        now.since(self.written) >= ttl(bucket)
    }
}

const fn ttl(bucket: Bucket) -> Duration {
    match bucket {
        Bucket::Leases => LEASE_TTL,
    }
}
