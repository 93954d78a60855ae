//! loop: follows the records of deliveries, takes what is due, posts it, writes back what became of it.

use super::courier::Undelivered;
use super::delivery::Delivery;
use super::{Webhooks, now_ms};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use shared::broker::{BrokerError, Bucket, Entry, Feed, Follower, Since};
use shared::config::shown;
use shared::entropy;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// Deliveries under way at once: enough for a burst, few enough for a process's descriptors.
const AT_ONCE: usize = 64;

/// How long a quiet store may take to say that it is quiet.
const WAIT: Duration = Duration::from_secs(5);

/// The pause after a failure of the broker.
const PAUSE: Duration = Duration::from_millis(500);

/// Without anything due it is looked again after this long.
const IDLE: Duration = Duration::from_secs(60);

pub(super) async fn follow(webhooks: &Webhooks) -> Result<Box<dyn Follower>, BrokerError> {
    webhooks.broker.follow(&Feed::Records(Bucket::Hooks, None), Since::Start).await
}

/// For ever.
pub(super) async fn run(webhooks: Arc<Webhooks>, mut follower: Box<dyn Follower>) {
    let mut running = FuturesUnordered::new();
    loop {
        while running.len() < AT_ONCE
            && let Some(key) = webhooks.take()
        {
            running.push(webhooks.attempt(key));
        }
        let has_room = running.len() < AT_ONCE;
        tokio::select! {
            heard = follower.next(WAIT) => webhooks.hear(heard, &mut follower).await,
            Some(()) = running.next() => {}
            () = sleep(webhooks.until_due()), if has_room => {}
        }
    }
}

impl Webhooks {
    fn take(&self) -> Option<Arc<str>> {
        self.agenda().take(now_ms())
    }

    fn until_due(&self) -> Duration {
        let due = self.agenda().next_ms();
        due.map_or(IDLE, |due| Duration::from_millis(due.saturating_sub(now_ms())))
    }

    async fn hear(&self, heard: Result<Option<Entry>, BrokerError>, follower: &mut Box<dyn Follower>) {
        match heard {
            Ok(None) => {}
            Ok(Some(entry)) => self.enter(&entry),
            Err(BrokerError::Gone) => {
                tracing::warn!("the records of webhooks were made anew: they are read again");
                self.agenda().clear();
                self.follow_again(follower).await;
            }
            Err(error) => {
                tracing::debug!(%error, "webhooks are not heard of");
                sleep(PAUSE).await;
            }
        }
    }

    async fn follow_again(&self, follower: &mut Box<dyn Follower>) {
        loop {
            match follow(self).await {
                Ok(again) => return *follower = again,
                Err(error) => tracing::debug!(%error, "webhooks cannot be followed"),
            }
            sleep(PAUSE).await;
        }
    }

    fn enter(&self, entry: &Entry) {
        let Some(value) = &entry.value else { return self.agenda().remove(&entry.key) };
        match Delivery::read(value) {
            Some(delivery) => self.agenda().enter(&entry.key, &delivery, self.id.as_str(), entropy::draw()),
            None => tracing::warn!(record = %entry.key, "a record of webhooks is ignored"),
        }
    }

    /// Does what is due about one delivery.
    async fn attempt(&self, key: Arc<str>) {
        let again = match self.try_one(&key).await {
            Ok(()) => None,
            Err(error) => {
                tracing::debug!(%error, "a webhook waits for the broker");
                Some(now_ms() + u64::try_from(PAUSE.as_millis()).unwrap_or(u64::MAX))
            }
        };
        self.agenda().ended(&key, again);
    }

    /// Whoever loses a compare-and-set leaves the delivery to whoever has won it.
    async fn try_one(&self, key: &str) -> Result<(), BrokerError> {
        let Some((mut delivery, revision)) = self.read(key).await? else {
            self.agenda().remove(key);
            return Ok(());
        };
        if delivery.due_ms() > now_ms() {
            return Ok(());
        }
        if delivery.is_given_up() {
            return self.forget(key, revision).await;
        }
        delivery.take(now_ms());
        let taken = self.broker.record_update(Bucket::Hooks, key, delivery.to_bytes(), revision).await;
        match won(taken)? {
            Some(revision) => self.deliver(key, delivery, revision).await,
            None => Ok(()),
        }
    }

    async fn deliver(&self, key: &str, mut delivery: Delivery, revision: u64) -> Result<(), BrokerError> {
        let Some(webhook) = self.target(&delivery) else {
            delivery.give_up("the target is no longer in the configuration", now_ms());
            return self.write_back(key, &delivery, revision).await;
        };
        let outcome = self.courier.deliver(webhook, &delivery, now_ms() / 1_000).await;
        let Err(why) = outcome else {
            self.metrics.ended("delivered");
            return self.forget(key, revision).await;
        };
        match why {
            Undelivered::Gone => delivery.give_up(&why.to_string(), now_ms()),
            _ => delivery.failed(&why.to_string(), now_ms(), entropy::draw()),
        }
        tracing::debug!(tenant = %delivery.tenant, event = %delivery.event, target = %shown(&webhook.url), %why, "a webhook was not taken");
        self.write_back(key, &delivery, revision).await
    }

    /// Nobody else hears of it for certain; they find out when they look.
    async fn forget(&self, key: &str, revision: u64) -> Result<(), BrokerError> {
        if won(self.broker.record_delete(Bucket::Hooks, key, revision).await)?.is_some() {
            self.agenda().remove(key);
        }
        Ok(())
    }

    async fn write_back(&self, key: &str, delivery: &Delivery, revision: u64) -> Result<(), BrokerError> {
        self.metrics.ended(if delivery.is_given_up() { "given_up" } else { "failed" });
        if delivery.is_given_up() {
            let why = delivery.last.as_deref().unwrap_or_default();
            tracing::warn!(tenant = %delivery.tenant, event = %delivery.event, why, "a webhook is given up");
        }
        won(self.broker.record_update(Bucket::Hooks, key, delivery.to_bytes(), revision).await).map(drop)
    }
}

/// A compare-and-set that was lost is somebody else's success.
fn won<T>(written: Result<T, BrokerError>) -> Result<Option<T>, BrokerError> {
    match written {
        Ok(done) => Ok(Some(done)),
        Err(BrokerError::Conflict) => Ok(None),
        Err(error) => Err(error),
    }
}
