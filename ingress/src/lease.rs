//! edge: a lease in the broker: who holds it does what only one ingress should do. It runs out [`LEASE_TTL`] after its last renewal.

use bytes::Bytes;
use shared::broker::{Broker, BrokerError, Bucket, LEASE_TTL};
use shared::domain::{NodeId, Token};
use std::sync::Arc;
use std::time::Duration;

/// A round of renewal may fail without the lease being lost.
const RENEW_EVERY: Duration = Duration::from_millis(500);
const _: () = assert!(RENEW_EVERY.as_millis() * 4 < LEASE_TTL.as_millis());

pub(crate) struct Lease {
    broker: Arc<dyn Broker>,
    key: Token,
    holder: NodeId,
    revision: u64,
}

impl Lease {
    /// Takes a lease that nobody holds.
    ///
    /// # Errors
    /// `Unavailable`.
    pub(crate) async fn take(broker: &Arc<dyn Broker>, key: &Token, holder: &NodeId) -> Result<Option<Self>, BrokerError> {
        match broker.record_create(Bucket::Leases, key.as_str(), value(holder)).await {
            Ok(revision) => Ok(Some(Self { broker: Arc::clone(broker), key: key.clone(), holder: holder.clone(), revision })),
            Err(BrokerError::Conflict) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Grows from each holder to the next.
    pub(crate) const fn revision(&self) -> u64 {
        self.revision
    }

    /// Does `work` for as long as the lease is held, and gives it back. `None`: it was lost first, and the work was dropped.
    pub(crate) async fn during<T>(mut self, work: impl Future<Output = T>) -> Option<T> {
        let done = tokio::select! {
            done = work => Some(done),
            () = self.keep() => None,
        };
        if done.is_some()
            && let Err(error) = self.broker.record_delete(Bucket::Leases, self.key.as_str(), self.revision).await
        {
            tracing::debug!(%error, "a lease was left to run out");
        }
        done
    }

    /// Renews until it is lost.
    async fn keep(&mut self) {
        let mut left = LEASE_TTL;
        loop {
            tokio::time::sleep(RENEW_EVERY).await;
            match self.broker.record_update(Bucket::Leases, self.key.as_str(), value(&self.holder), self.revision).await {
                Ok(revision) => (self.revision, left) = (revision, LEASE_TTL),
                Err(BrokerError::Conflict) => return,
                Err(_) => left = left.saturating_sub(RENEW_EVERY),
            }
            if left.is_zero() {
                return;
            }
        }
    }
}

fn value(holder: &NodeId) -> Bytes {
    Bytes::copy_from_slice(holder.as_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::broker::memory::MemoryBroker;
    use std::future::pending;

    #[tokio::test(start_paused = true)]
    async fn one_holds_it_until_the_work_is_done() {
        let broker: Arc<dyn Broker> = MemoryBroker::new();
        let (key, one, two) = (Token::parse("batch_1").unwrap(), Token::parse("one").unwrap(), Token::parse("two").unwrap());
        let lease = Lease::take(&broker, &key, &one).await.unwrap().unwrap();
        let mut work = std::pin::pin!(lease.during(tokio::time::sleep(LEASE_TTL * 3)));
        assert!(tokio::time::timeout(LEASE_TTL * 2, work.as_mut()).await.is_err());
        assert!(Lease::take(&broker, &key, &two).await.unwrap().is_none(), "it is renewed while the work goes on");
        assert_eq!(work.await, Some(()));
        let taken = Lease::take(&broker, &key, &two).await.unwrap().unwrap();
        drop(taken);
        tokio::time::sleep(LEASE_TTL * 2).await;
        assert!(Lease::take(&broker, &key, &one).await.unwrap().is_some(), "a dead holder's runs out");
    }

    #[tokio::test(start_paused = true)]
    async fn work_ends_when_the_lease_is_anothers() {
        let broker: Arc<dyn Broker> = MemoryBroker::new();
        let (key, one) = (Token::parse("batch_1").unwrap(), Token::parse("one").unwrap());
        let lease = Lease::take(&broker, &key, &one).await.unwrap().unwrap();
        broker.record_delete(Bucket::Leases, "batch_1", lease.revision).await.unwrap();
        broker.record_create(Bucket::Leases, "batch_1", Bytes::from_static(b"two")).await.unwrap();
        assert_eq!(lease.during(pending::<()>()).await, None);
    }
}
