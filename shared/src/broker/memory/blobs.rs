//! core: one store of blobs, bounded in bytes and in age.

use crate::broker::BrokerError;
use crate::clock::Time;
use bytes::Bytes;
use std::collections::HashMap;
use std::time::Duration;

#[derive(Debug)]
pub(super) struct Blobs {
    entries: HashMap<Box<str>, (Time, Bytes)>,
    bytes: usize,
    bytes_max: usize,
    age_max: Duration,
}

impl Blobs {
    pub(super) fn new(bytes_max: usize, age_max: Duration) -> Self {
        Self { entries: HashMap::new(), bytes: 0, bytes_max, age_max }
    }

    pub(super) fn put(&mut self, now: Time, key: &str, blob: Bytes) -> Result<(), BrokerError> {
        self.delete(key);
        if self.bytes + blob.len() > self.bytes_max {
            self.drop_aged(now);
        }
        if self.bytes + blob.len() > self.bytes_max {
            return Err(BrokerError::Full);
        }
        self.bytes += blob.len();
        self.entries.insert(key.into(), (now, blob));
        Ok(())
    }

    pub(super) fn get(&self, now: Time, key: &str) -> Option<Bytes> {
        let (stored, blob) = self.entries.get(key)?;
        (now.since(*stored) < self.age_max).then(|| blob.clone())
    }

    pub(super) fn delete(&mut self, key: &str) {
        if let Some((_, blob)) = self.entries.remove(key) {
            self.bytes -= blob.len();
        }
    }

    fn drop_aged(&mut self, now: Time) {
        self.entries.retain(|_, (stored, _)| now.since(*stored) < self.age_max);
        self.bytes = self.entries.values().map(|(_, blob)| blob.len()).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGE: Duration = Duration::from_secs(60);

    #[test]
    fn full_means_full_until_a_blob_goes_or_ages() {
        let mut blobs = Blobs::new(10, AGE);
        blobs.put(Time::ZERO, "a", Bytes::from_static(b"123456")).unwrap();
        assert_eq!(blobs.put(Time::ZERO, "b", Bytes::from_static(b"12345")), Err(BrokerError::Full));
        assert_eq!(blobs.put(Time::ZERO + AGE, "b", Bytes::from_static(b"12345")), Ok(()));
        assert_eq!(blobs.get(Time::ZERO + AGE, "a"), None);
        blobs.delete("b");
        assert_eq!(blobs.put(Time::ZERO + AGE, "c", Bytes::from_static(b"1234567890")), Ok(()));
    }
}
