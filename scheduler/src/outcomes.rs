//! loop: puts on record what failed here of the deferred lanes, apart from the engine's loop, which acks a frame only when
//! that is done.

use bytes::Bytes;
use shared::broker::Broker;
use shared::domain::RequestId;
use shared::error::Failure;
use shared::jobs::{self, Commit, Outcome};
use shared::task::{self, Guarded};
use shared::wire::{Envelope, Part, Usage};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Failures that may wait: more than the deferred lanes' windows hold.
const WAITING_MAX: usize = 16_384;

/// Failures taken up at once.
const ROUND_MAX: usize = 256;

/// A deferred request that failed before any worker had it.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) id: RequestId,
    /// Its encoded [`Envelope`].
    pub(crate) envelope: Bytes,
    pub(crate) failure: Failure,
}

pub(crate) struct Registrar {
    failed: mpsc::Sender<Failed>,
    _task: Guarded,
}

impl Registrar {
    /// `tell` is called with each request whose outcome is on record.
    pub(crate) fn start(broker: Arc<dyn Broker>, tell: impl Fn(RequestId) + Send + Sync + 'static) -> Self {
        let (failed, queue) = mpsc::channel(WAITING_MAX);
        Self { failed, _task: task::spawn_guarded("outcomes", run(broker, queue, tell)) }
    }

    pub(crate) fn record(&self, failed: Failed) {
        if self.failed.try_send(failed).is_err() {
            tracing::error!("a failure was not put on record: too many wait for that; the request stays until its frame comes again");
        }
    }
}

async fn run(broker: Arc<dyn Broker>, mut queue: mpsc::Receiver<Failed>, tell: impl Fn(RequestId)) {
    let mut round = Vec::with_capacity(ROUND_MAX);
    while queue.recv_many(&mut round, ROUND_MAX).await > 0 {
        commit(&*broker, &round).await;
        round.drain(..).for_each(|failed| tell(failed.id));
    }
}

async fn commit(broker: &dyn Broker, failed: &[Failed]) {
    jobs::commit(broker, failed.iter().filter_map(Failed::commit).collect()).await;
}

impl Failed {
    fn commit(&self) -> Option<Commit> {
        let envelope: Envelope = Part { head: self.envelope.clone(), body: Bytes::new() }.decode().ok()?;
        let of = *envelope.job?;
        let failure = Some(Box::new(self.failure.clone()));
        let outcome = Outcome { row: of.row, id: self.id, exec: None, failure, usage: Usage::default(), blob: None };
        Some(Commit { tenant: envelope.tenant, of, outcome, body: Bytes::new() })
    }
}
