//! loop: who waits for a job on this ingress: one reader of all that happens to jobs, and those it wakes.

use shared::broker::{Broker, BrokerError, Bucket, Feed, Since};
use shared::clock::{self, Time};
use shared::error::{Code, Failure};
use shared::jobs::{self, Job, StoreError, Stored};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch::{Receiver, Sender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// How often one who waits looks by themselves, in case a word was lost.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How long the reader waits before it begins anew.
const PAUSE: Duration = Duration::from_secs(1);

/// Readers of events at one ingress, each of which costs a connection and, where its job is streamed, a consumer at the broker.
const READERS_MAX: usize = 4_096;

pub(crate) struct Watch {
    /// What wakes those who wait for a job's next change: by the record's key's last part, which is unique by itself.
    bells: Mutex<HashMap<Box<str>, Sender<()>>>,
    seats: Arc<Semaphore>,
}

impl Default for Watch {
    fn default() -> Self {
        Self { bells: Mutex::default(), seats: Arc::new(Semaphore::new(READERS_MAX)) }
    }
}

/// One who waits. Its drop ends the waiting.
pub(crate) struct Listener {
    watch: Arc<Watch>,
    id: Box<str>,
    rings: Receiver<()>,
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
            bell.send_replace(());
        }
    }

    /// A place among those who read events here.
    ///
    /// # Errors
    /// `overloaded`.
    pub(crate) fn seat(&self) -> Result<OwnedSemaphorePermit, Failure> {
        let message = "Too many read events at this server: read them at another, or ask for the job itself";
        let full = |_| Failure::new(Code::Overloaded, message).retry_after_ms(1_000);
        Arc::clone(&self.seats).try_acquire_owned().map_err(full)
    }

    pub(crate) fn listen(self: &Arc<Self>, id: &str) -> Listener {
        let rings = self.bells().entry(id.into()).or_default().subscribe();
        Listener { watch: Arc::clone(self), id: id.into(), rings }
    }

    /// Waits for a job's end.
    ///
    /// # Errors
    /// `deadline_exceeded`; `not_found` when its record is deleted meanwhile.
    pub(crate) async fn ended(self: &Arc<Self>, broker: &dyn Broker, job: Job, deadline: Time) -> Result<Job, Failure> {
        let mut listener = self.listen(job.id.as_str());
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

    fn bells(&self) -> MutexGuard<'_, HashMap<Box<str>, Sender<()>>> {
        self.bells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener {
    /// The job as it is after its next change, or when `wait` is over.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn next(&mut self, broker: &dyn Broker, known: &Job, wait: Duration) -> Result<Stored<Job>, StoreError> {
        self.rings.mark_unchanged(); // From now on, so that no change falls between the look and the wait.
        let now = look(broker, known).await?;
        if now.value != *known {
            return Ok(now);
        }
        let _ = timeout(wait, self.rung()).await;
        look(broker, known).await
    }

    /// Waits for the job's next change since this was last called, or until it is time to look anyway. Cancel-safe.
    pub(crate) async fn rung(&mut self) {
        let _ = timeout(LOOK_EVERY, self.rings.changed()).await;
    }
}

/// The job as it is now.
///
/// # Errors
/// Those of the store.
pub(crate) async fn look(broker: &dyn Broker, known: &Job) -> Result<Stored<Job>, StoreError> {
    jobs::get::<Job>(broker, &known.tenant, &known.id).await?.ok_or(StoreError::NotFound)
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut bells = self.watch.bells();
        if bells.get(&self.id).is_some_and(|bell| bell.receiver_count() == 1) {
            bells.remove(&self.id);
        }
    }
}
