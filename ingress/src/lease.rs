//! edge: a lease in the broker: who holds it does what only one ingress should do. It runs out [`LEASE_TTL`] after its last renewal.

use bytes::Bytes;
use shared::broker::{Broker, BrokerError, Bucket, LEASE_TTL};
use shared::clock::{self, Time};
use shared::domain::{NodeId, Token};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// A round of renewal may fail without the lease being lost.
const RENEW_EVERY: Duration = Duration::from_millis(500);
const _: () = assert!(RENEW_EVERY.as_millis() * 4 < LEASE_TTL.as_millis());

pub(crate) struct Lease {
    broker: Arc<dyn Broker>,
    key: Token,
    holder: NodeId,
    revision: u64,
    /// When what renewed it last was asked for: it does not run out sooner than [`LEASE_TTL`] from then.
    renewed_at: Time,
}

impl Lease {
    /// Takes a lease that nobody holds.
    ///
    /// # Errors
    /// `Unavailable`.
    pub(crate) async fn take(broker: &Arc<dyn Broker>, key: &Token, holder: &NodeId) -> Result<Option<Self>, BrokerError> {
        let renewed_at = clock::now();
        match broker.record_create(Bucket::Leases, key.as_str(), value(holder)).await {
            Ok(revision) => Ok(Some(Self { broker: Arc::clone(broker), key: key.clone(), holder: holder.clone(), revision, renewed_at })),
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
        let (broker, key, value) = (Arc::clone(&self.broker), self.key.clone(), value(&self.holder));
        let renew = |revision| broker.record_update(Bucket::Leases, key.as_str(), value.clone(), revision);
        let done = tokio::select! {
            done = work => Some(done),
            () = self.keep(renew) => None,
        };
        if done.is_some()
            && let Err(error) = self.broker.record_delete(Bucket::Leases, self.key.as_str(), self.revision).await
        {
            tracing::debug!(%error, "a lease was left to run out");
        }
        done
    }

    /// How long nobody else can have it.
    fn left(&self) -> Duration {
        LEASE_TTL.saturating_sub(clock::now().since(self.renewed_at))
    }

    /// Renews until it is lost, or may be: a renewal that fails costs as long as it took.
    async fn keep<F: Future<Output = Result<u64, BrokerError>>>(&mut self, renew: impl Fn(u64) -> F) {
        loop {
            tokio::time::sleep(RENEW_EVERY.min(self.left())).await;
            let (asked_at, left) = (clock::now(), self.left());
            if left.is_zero() {
                return;
            }
            match timeout(left, renew(self.revision)).await {
                Ok(Ok(revision)) => (self.revision, self.renewed_at) = (revision, asked_at),
                Ok(Err(BrokerError::Conflict)) | Err(_) => return,
                Ok(Err(_)) => {}
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

    #[tokio::test(start_paused = true)]
    async fn it_is_given_up_when_it_may_have_run_out_however_long_renewals_take() {
        let broker: Arc<dyn Broker> = MemoryBroker::new();
        let (key, one) = (Token::parse("batch_1").unwrap(), Token::parse("one").unwrap());
        for takes in [Duration::ZERO, RENEW_EVERY * 2, LEASE_TTL * 2] {
            let (mut lease, began) = (Lease::take(&broker, &key, &one).await.unwrap().unwrap(), clock::now());
            let fails = |_: u64| async move {
                tokio::time::sleep(takes).await;
                Err(BrokerError::Unavailable("no answer".into()))
            };
            lease.keep(fails).await;
            let held = clock::now().since(began);
            assert!(held > LEASE_TTL - RENEW_EVERY && held < LEASE_TTL + Duration::from_millis(50), "{takes:?}: {held:?}");
            tokio::time::sleep(LEASE_TTL).await;
        }
    }
}
