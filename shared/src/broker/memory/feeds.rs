//! edge: the reading of feeds in process.

use super::{Shared, lock};
use crate::broker::{BrokerError, Entry, Feed, Follower, Since};
use crate::clock;
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

pub(super) struct MemoryFollower {
    shared: Arc<Shared>,
    feed: Feed,
    /// Entries stored before this are passed over, as time since 1970.
    from: Duration,
    last: u64,
    news: Arc<Notify>,
}

impl MemoryFollower {
    pub(super) fn open(shared: Arc<Shared>, feed: Feed, since: Since) -> Self {
        let (news, written) = match &feed {
            Feed::Records(bucket, _) => {
                let records = lock(shared.records(*bucket));
                (records.news.clone(), records.last())
            }
            Feed::Journal(journal, _) => {
                let pages = lock(shared.journal(*journal));
                (pages.news.clone(), pages.last())
            }
        };
        let from = if let Since::Time(time) = since { time } else { Duration::ZERO };
        Self { shared, feed, from, last: if since == Since::Now { written } else { 0 }, news }
    }

    fn look(&self) -> Option<Entry> {
        match &self.feed {
            Feed::Records(bucket, levels) => lock(self.shared.records(*bucket)).after(self.last, levels.as_ref()),
            Feed::Journal(journal, topic) => lock(self.shared.journal(*journal)).after(self.last, topic.as_ref()),
        }
    }

    /// The next entry that is not passed over.
    fn take(&mut self) -> Option<Entry> {
        loop {
            let entry = self.look()?;
            self.last = entry.sequence;
            if entry.stored >= self.from {
                return Some(entry);
            }
        }
    }
}

#[async_trait]
impl Follower for MemoryFollower {
    async fn next(&mut self, wait: Duration) -> Result<Option<Entry>, BrokerError> {
        let deadline = clock::instant(clock::now() + wait);
        let bell = Arc::clone(&self.news);
        loop {
            let mut news = std::pin::pin!(bell.notified());
            // Before the look, so that what comes between the look and the wait still rings.
            news.as_mut().enable();
            if let Some(entry) = self.take() {
                return Ok(Some(entry));
            }
            if wait.is_zero() {
                return Ok(None);
            }
            if tokio::time::timeout_at(deadline, news).await.is_err() {
                return Ok(None);
            }
        }
    }
}
