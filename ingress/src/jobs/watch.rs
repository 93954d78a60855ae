//! loop: who waits for a job on this ingress: one reader of all that happens to jobs, and those it wakes.

use shared::broker::{Broker, BrokerError, Bucket, Feed, Since};
use shared::clock::{self, Time};
use shared::error::{Code, Failure};
use shared::jobs::{self, Job, StoreError, Stored};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout;

/// How often one who waits looks by themselves, in case a word was lost.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How long the reader waits before it begins anew.
const PAUSE: Duration = Duration::from_secs(1);

/// Whom a job's next change wakes, and how many they are.
#[derive(Default)]
struct Bell {
    rings: Arc<Notify>,
    listeners: usize,
}

#[derive(Default)]
pub(crate) struct Watch {
    /// By the record's key's last part, which is unique by itself.
    bells: Mutex<HashMap<Box<str>, Bell>>,
}

/// One who waits. Its drop ends the waiting.
pub(crate) struct Listener<'a> {
    watch: &'a Watch,
    id: Box<str>,
    rings: Arc<Notify>,
}

impl Watch {
    /// Follows what happens to jobs, until it is dropped.
    pub(crate) async fn run(self: Arc<Self>, broker: Arc<dyn Broker>) {
        loop {
            if let Err(error) = self.follow(broker.as_ref()).await {
                tracing::warn!(%error, "the records of jobs cannot be followed; trying again");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn follow(&self, broker: &dyn Broker) -> Result<(), BrokerError> {
        let mut follower = broker.follow(&Feed::Records(Bucket::Jobs, None), Since::Now).await?;
        loop {
            match follower.next(LOOK_EVERY).await {
                Ok(Some(entry)) => self.ring(entry.key.rsplit('.').next().unwrap_or_default()),
                Ok(None) => {}
                Err(BrokerError::Unavailable(_)) => tokio::time::sleep(PAUSE).await,
                Err(error) => return Err(error),
            }
        }
    }

    fn ring(&self, id: &str) {
        if let Some(bell) = self.bells().get(id) {
            bell.rings.notify_waiters();
        }
    }

    pub(crate) fn listen(&self, id: &str) -> Listener<'_> {
        let mut bells = self.bells();
        let bell = bells.entry(id.into()).or_default();
        bell.listeners += 1;
        Listener { watch: self, id: id.into(), rings: Arc::clone(&bell.rings) }
    }

    /// Waits for a job's end.
    ///
    /// # Errors
    /// `deadline_exceeded`; `not_found` when its record is deleted meanwhile.
    pub(crate) async fn ended(&self, broker: &dyn Broker, job: Job, deadline: Time) -> Result<Job, Failure> {
        let listener = self.listen(job.id.as_str());
        let mut job = job;
        while !job.state.is_terminal() {
            let left = deadline.since(clock::now());
            if left.is_zero() {
                let message = "The deadline passed before the job ended: ask for it by its Idempotency-Key again, or at /v1/jobs";
                return Err(Failure::new(Code::DeadlineExceeded, message));
            }
            job = listener.next(broker, &job, left).await.map_err(|error| crate::native::of_store(&error))?.value;
        }
        Ok(job)
    }

    fn bells(&self) -> MutexGuard<'_, HashMap<Box<str>, Bell>> {
        self.bells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener<'_> {
    /// The job as it is after its next change, or when `wait` is over.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn next(&self, broker: &dyn Broker, known: &Job, wait: Duration) -> Result<Stored<Job>, StoreError> {
        let rung = self.rings.notified();
        tokio::pin!(rung);
        rung.as_mut().enable(); // From now on, so that no change falls between the look and the wait.
        let look = || async { jobs::get::<Job>(broker, &known.tenant, &known.id).await?.ok_or(StoreError::NotFound) };
        let now = look().await?;
        if now.value != *known {
            return Ok(now);
        }
        let _ = timeout(wait.min(LOOK_EVERY), rung).await;
        look().await
    }
}

impl Drop for Listener<'_> {
    fn drop(&mut self) {
        let mut bells = self.watch.bells();
        if let Some(bell) = bells.get_mut(&self.id) {
            bell.listeners -= 1;
            if bell.listeners == 0 {
                bells.remove(&self.id);
            }
        }
    }
}
