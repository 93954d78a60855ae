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
    since: Since,
    last: u64,
    news: Arc<Notify>,
}

impl MemoryFollower {
    pub(super) fn open(shared: Arc<Shared>, feed: Feed, since: Since) -> Self {
        let news = match &feed {
            Feed::Records(_) => lock(&shared.records).news.clone(),
            Feed::Journal(journal, _) => lock(&shared.journals).of(*journal).news.clone(),
        };
        Self { shared, feed, since, last: 0, news }
    }

    fn look(&self) -> Option<Entry> {
        match &self.feed {
            Feed::Records(bucket) => lock(&self.shared.records).after(self.last, *bucket),
            Feed::Journal(journal, topic) => lock(&self.shared.journals).of(*journal).after(self.last, topic.as_ref(), self.since),
        }
    }
}

#[async_trait]
impl Follower for MemoryFollower {
    async fn next(&mut self, wait: Duration) -> Result<Option<Entry>, BrokerError> {
        let deadline = clock::instant(clock::now() + wait);
        loop {
            let mut news = std::pin::pin!(self.news.notified());
            // Before the look, so that what comes between the look and the wait still rings.
            news.as_mut().enable();
            if let Some(entry) = self.look() {
                self.last = entry.sequence;
                return Ok(Some(entry));
            }
            if tokio::time::timeout_at(deadline, news).await.is_err() {
                return Ok(None);
            }
        }
    }
}
