//! loop: keeps a directory up with the store: every replica holds all of it in memory and hears of each change as it is made.
//!
//! Whoever asks sees the last that was heard: a store that is away stops changes, not requests. [`LiveDirectory::is_outdated`]
//! tells when it has been away for too long, because a key may have been blocked in that time.

use super::directory::Directory;
use super::records::Reader;
use crate::broker::{Broker, BrokerError, Bucket, Entry, Feed, Follower, Since};
use crate::clock;
use crate::task::{self, Guarded};
use arc_swap::{ArcSwap, Guard};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long a quiet store may take to say that it is quiet.
const WAIT: Duration = Duration::from_secs(5);

/// A store that is empty is known to be so after this long.
const WAIT_FIRST: Duration = Duration::from_millis(100);

/// How long the store may be silent before a process should not be asked any more: what it holds may be outdated.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// The pause after a failure.
const PAUSE: Duration = Duration::from_millis(500);

/// The directory of the moment.
pub struct LiveDirectory {
    /// Read by every request, replaced whole by every change.
    current: Arc<ArcSwap<Directory>>,
    /// When the store was heard last, on this process's clock, in microseconds.
    heard_at: AtomicU64,
}

impl LiveDirectory {
    /// Reads the whole store over `file`, then follows it until the guard is dropped.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn follow(file: Directory, broker: Arc<dyn Broker>) -> Result<(Arc<Self>, Guarded), BrokerError> {
        let (place, directory) = Place::open(&file, broker.as_ref()).await?;
        let live = Arc::new(Self::fixed(directory));
        let follower = task::spawn_guarded("identity", keep_up(Arc::clone(&live), file, broker, place));
        Ok((live, follower))
    }

    /// One that follows nothing.
    pub fn fixed(directory: Directory) -> Self {
        Self { current: Arc::new(ArcSwap::from_pointee(directory)), heard_at: AtomicU64::new(clock::now().as_micros()) }
    }

    pub fn load(&self) -> Guard<Arc<Directory>> {
        self.current.load()
    }

    /// The place in which every change appears, for those who only read.
    pub fn place(&self) -> Arc<ArcSwap<Directory>> {
        Arc::clone(&self.current)
    }

    /// Whether the store has been silent for so long that this directory may be outdated.
    pub fn is_outdated(&self) -> bool {
        let heard_at = clock::Time(self.heard_at.load(Ordering::Relaxed));
        clock::now().since(heard_at) >= SILENCE_MAX
    }

    fn heard(&self) {
        self.heard_at.store(clock::now().as_micros(), Ordering::Relaxed);
    }

    fn replace(&self, directory: Directory) {
        self.current.store(Arc::new(directory));
    }
}

/// How far the store has been read.
struct Place {
    follower: Box<dyn Follower>,
    reader: Reader,
}

impl Place {
    /// Reads the store to its end, over a copy of `file`.
    async fn open(file: &Directory, broker: &dyn Broker) -> Result<(Self, Directory), BrokerError> {
        let follower = broker.follow(&Feed::Records(Bucket::Identity, None), Since::Start).await?;
        let (mut place, mut directory) = (Self { follower, reader: Reader::default() }, file.clone());
        let mut more = false;
        while let Some(entry) = place.follower.next(WAIT_FIRST).await? {
            place.enter(&entry, &mut directory);
            more = entry.more;
            if !more {
                break;
            }
        }
        if more { Err(BrokerError::Unavailable("the store was not read to its end".into())) } else { Ok((place, directory)) }
    }

    /// Says what it cannot make sense of, and leaves the directory as it is.
    fn enter(&mut self, entry: &Entry, directory: &mut Directory) {
        match self.reader.read(&entry.key, entry.value.as_deref()) {
            Ok(Some(change)) => {
                if let Err(ignored) = directory.apply(change) {
                    tracing::warn!("{ignored}");
                }
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(record = %entry.key, %error, "a record of the store is ignored"),
        }
    }
}

async fn keep_up(live: Arc<LiveDirectory>, file: Directory, broker: Arc<dyn Broker>, mut place: Place) {
    loop {
        match place.follower.next(WAIT).await {
            Ok(None) => live.heard(),
            Ok(Some(entry)) => {
                live.heard();
                let mut directory = Directory::clone(&live.load());
                place.enter(&entry, &mut directory);
                live.replace(directory);
            }
            Err(BrokerError::Gone) => {
                tracing::warn!("the store of tenants, roles and keys was made anew: it is read again");
                place = read_again(&live, &file, broker.as_ref()).await;
            }
            Err(error) => {
                tracing::warn!(%error, "changes of tenants, roles and keys are not heard");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// The last known good stays until the new is complete.
async fn read_again(live: &LiveDirectory, file: &Directory, broker: &dyn Broker) -> Place {
    loop {
        match Place::open(file, broker).await {
            Ok((place, directory)) => {
                live.replace(directory);
                live.heard();
                return place;
            }
            Err(error) => tracing::warn!(%error, "the store of tenants, roles and keys cannot be read"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::super::records::Kind;
    use super::*;
    use crate::broker::memory::MemoryBroker;
    use crate::config::parse;
    use bytes::Bytes;

    fn file() -> Directory {
        Directory::new(&parse("tenants: [{ name: ours, keys: [sk-aaaa] }]", "f").unwrap(), [7; 32])
    }

    fn tenant(name: &str, weight: u32) -> (String, Bytes) {
        (Kind::Tenant.record(name), format!(r#"{{"name":"{name}","weight":{weight}}}"#).into())
    }

    async fn weight(live: &LiveDirectory, name: &str, is: Option<u32>) {
        let told = async {
            while live.load().tenant(name).map(|tenant| tenant.record.weight) != is {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(1), told).await.unwrap_or_else(|_| panic!("{name} is not {is:?}"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_store_held_is_there_from_the_start_and_changes_follow() {
        let broker = MemoryBroker::new();
        let (key, value) = tenant("a", 2);
        let revision = broker.record_create(Bucket::Identity, &key, value).await.unwrap();
        let (live, _guard) = LiveDirectory::follow(file(), broker.clone()).await.unwrap();
        assert_eq!(live.load().tenant("a").unwrap().record.weight, 2);
        let revision = broker.record_update(Bucket::Identity, &key, tenant("a", 3).1, revision).await.unwrap();
        weight(&live, "a", Some(3)).await;
        broker.record_delete(Bucket::Identity, &key, revision).await.unwrap();
        weight(&live, "a", None).await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_makes_no_sense_takes_nothing_with_it() {
        let broker = MemoryBroker::new();
        broker.record_create(Bucket::Identity, "key.0123456789", Bytes::from_static(b"{")).await.unwrap();
        let (key, value) = tenant("ours", 9);
        broker.record_create(Bucket::Identity, &key, value).await.unwrap();
        let (key, value) = tenant("b", 2);
        broker.record_create(Bucket::Identity, &key, value).await.unwrap();
        let (live, _guard) = LiveDirectory::follow(file(), broker).await.unwrap();
        let weights = ["ours", "b"].map(|name| live.load().tenant(name).unwrap().record.weight);
        assert_eq!(weights, [1, 2], "the file's come first");
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_says_nothing_is_heard_as_long_as_it_lives() {
        let (live, guard) = LiveDirectory::follow(file(), MemoryBroker::new()).await.unwrap();
        tokio::time::sleep(SILENCE_MAX * 3).await;
        assert!(!live.is_outdated());
        drop(guard);
        tokio::time::sleep(SILENCE_MAX).await;
        assert!(live.is_outdated());
    }
}
