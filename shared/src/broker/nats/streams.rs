//! edge: making the streams, checking that nobody made them otherwise, knowing their incarnation.
//!
//! The interactive lane is in memory, so a server that restarts loses the whole stream. Whoever uses a stream therefore
//! asks for its incarnation first; the answer is remembered for one connection and a few seconds.

use super::fault::Fault;
use super::layout::{StreamId, differences};
use super::link::{Link, bounded, repeat};
use super::{BrokerError, Options};
use crate::clock::{self, Time};
use async_nats::jetstream::stream::{Config, Info, StorageType};
use serde_json::json;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::OnceCell;

/// How long an incarnation is believed without asking again, on one connection: a stream that was deleted and made anew
/// behind our back, by hand or by a cluster, is noticed within this.
pub(super) const TRUST: Duration = Duration::from_secs(10);

/// Which stream this is, and over which connection we learnt it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Incarnation {
    pub(super) connects: u64,
    /// When the stream was created, in nanoseconds since 1970.
    pub(super) epoch: u64,
}

#[derive(Debug)]
pub(super) struct Streams {
    pub(super) link: Link,
    options: Options,
    /// A lock for the pointer only; who waits for the server waits at the cell, together.
    known: [Mutex<Known>; StreamId::COUNT],
}

#[derive(Clone, Debug, Default)]
struct Known {
    connects: u64,
    since: Time,
    epoch: Arc<OnceCell<u64>>,
}

impl Streams {
    pub(super) fn new(link: Link, options: Options) -> Self {
        Self { link, options, known: Default::default() }
    }

    /// The stream as it stands now, made if it was not there.
    pub(super) async fn incarnation(&self, id: StreamId) -> Result<Incarnation, Fault> {
        let known = self.known(id);
        let epoch = known.epoch.get_or_try_init(|| self.ensure(id)).await?;
        Ok(Incarnation { connects: known.connects, epoch: *epoch })
    }

    /// Acts on a stream that is there, and again while `again` says so, for 5 s at most.
    pub(super) async fn using<T, F>(
        &self,
        id: StreamId,
        again: fn(&Fault) -> bool,
        act: impl Fn(Incarnation) -> F,
    ) -> Result<T, BrokerError>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        let attempt = || async {
            let done = act(self.incarnation(id).await?).await;
            if matches!(done, Err(Fault::Absent)) {
                self.forget(id);
            }
            done
        };
        bounded(repeat(again, attempt)).await
    }

    /// Ask anew next time: somebody found it gone.
    pub(super) fn forget(&self, id: StreamId) {
        *self.lock(id) = Known::default();
    }

    fn known(&self, id: StreamId) -> Known {
        let (connects, now) = (self.link.connects(), clock::now());
        let mut known = self.lock(id);
        if known.connects != connects || now.since(known.since) >= TRUST {
            *known = Known { connects, since: now, epoch: Arc::default() };
        }
        known.clone()
    }

    fn lock(&self, id: StreamId) -> std::sync::MutexGuard<'_, Known> {
        self.known[id.index()].lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ensure(&self, id: StreamId) -> Result<u64, Fault> {
        let wanted = id.config(&self.options, self.link.replicas(&self.options));
        let info = match self.link.api::<Info>(format!("STREAM.INFO.{}", id.name()), "").await {
            Err(Fault::Absent) => self.create(&wanted).await?,
            found => found?,
        };
        let differences = differences(&wanted, &info.config);
        if !differences.is_empty() {
            let sentence = format!("stream {} has {}: change it, or delete it when it is empty", id.name(), differences.join(", "));
            return Err(Fault::Final(BrokerError::Unfit(sentence)));
        }
        Ok(u64::try_from(info.created.unix_timestamp_nanos()).unwrap_or(0))
    }

    /// Two processes may do this at once: the second is answered with what the first made.
    async fn create(&self, wanted: &Config) -> Result<Info, Fault> {
        match self.link.api(format!("STREAM.CREATE.{}", wanted.name), json!(wanted).to_string()).await {
            Err(Fault::Final(BrokerError::Full)) => Err(Fault::Final(BrokerError::Unfit(no_room(wanted)))),
            Err(Fault::Final(error)) => Err(Fault::Final(BrokerError::Unfit(format!("stream {} cannot be made: {error}", wanted.name)))),
            other => other,
        }
    }
}

/// JetStream reserves what a stream may hold when it is made: of three quarters of the free disk unless it is told more.
fn no_room(wanted: &Config) -> String {
    let limit = if wanted.storage == StorageType::File { "max_file_store" } else { "max_memory_store" };
    let (name, mebibytes) = (&wanted.name, wanted.max_bytes / (1024 * 1024));
    format!("stream {name} wants {mebibytes} MiB, more than JetStream has left: raise its {limit}, or lower nats.max_bytes")
}
