//! edge: the road as a handler sees it: a letter goes out to its model's lane, a ticket for the answer comes back.

use crate::claim::{self, BlobGuard, CLAIM_OVER};
use crate::metrics::Metrics;
use crate::pending::Pending;
use crate::publisher;
use crate::table::{Action, Entry, Table};
use crate::ticket::{Meter, Ticket};
use bytes::Bytes;
use shared::broker::{Address, Broker, Stored};
use shared::clock::{self, Time};
use shared::domain::{NodeId, RequestId, Token};
use shared::error::{Code, Failure};
use shared::outbox::Outbox;
use shared::wire::{Cancel, Envelope, Part, ToIngress};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;

/// Requests that may wait for one model's publisher. It drains 64 at a time without waiting for the broker, so a queue
/// this long means that nothing moves.
const QUEUE_MAX: usize = 16_384;

/// One request, ready to travel.
pub(crate) struct Letter {
    pub(crate) envelope: Envelope,
    pub(crate) body: Bytes,
    pub(crate) deadline: Time,
}

pub(crate) struct Road {
    pub(crate) id: NodeId,
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) metrics: Arc<Metrics>,
    outbox: Outbox,
    queues: HashMap<Token, mpsc::Sender<RequestId>>,
    /// A plain lock: held for a few map operations, never across an await.
    table: Mutex<Table>,
}

/// A model and the ids waiting for its publisher.
pub(crate) type Queue = (Token, mpsc::Receiver<RequestId>);

impl Road {
    /// The road, and one queue for each model, which wants a publisher.
    pub(crate) fn new(
        id: NodeId,
        broker: Arc<dyn Broker>,
        outbox: Outbox,
        metrics: Arc<Metrics>,
        models: impl Iterator<Item = Token>,
    ) -> (Arc<Self>, Vec<Queue>) {
        let (mut senders, mut queues) = (HashMap::new(), Vec::new());
        for model in models {
            let (sender, queue) = mpsc::channel(QUEUE_MAX);
            senders.insert(model.clone(), sender);
            queues.push((model, queue));
        }
        let road = Self { id, broker, metrics, outbox, queues: senders, table: Mutex::default() };
        (Arc::new(road), queues)
    }

    /// Sends a letter to its model's lane. The broker's word on it comes through the ticket.
    ///
    /// # Errors
    /// `overloaded` when its queue is full; what [`claim::store`] fails with.
    pub(crate) async fn send(self: &Arc<Self>, model: &Token, letter: Letter) -> Result<Ticket, Failure> {
        let (letter, blob) = self.check_claim(letter).await?;
        let Letter { envelope, body, deadline } = letter;
        let (id, stream) = (envelope.id, envelope.stream);
        let (pieces, answer) = mpsc::unbounded_channel();
        let meter = Meter::default();
        let draining = stream.then(|| meter.clone());
        let pending = Pending::new(stream);
        self.table().insert(Entry { pending, envelope, model: model.clone(), body, deadline, pieces, meter });
        let ticket = Ticket::new(id, Arc::clone(self), answer, draining, deadline, blob);
        if self.broker.is_local() {
            publisher::publish_now(self, model, id).await; // Nothing is gained by sending requests together.
        } else {
            self.queue(model, id)?;
        }
        Ok(ticket)
    }

    /// Leaves a large body in the blob store and a claim check in its place.
    async fn check_claim(&self, mut letter: Letter) -> Result<(Letter, Option<BlobGuard>), Failure> {
        if letter.body.len() <= CLAIM_OVER {
            return Ok((letter, None));
        }
        let body = std::mem::take(&mut letter.body);
        let (claim, guard) = claim::store(&self.broker, &self.id, letter.envelope.id, body, letter.deadline).await?;
        letter.envelope.claim = Some(claim);
        Ok((letter, Some(guard)))
    }

    fn queue(&self, model: &Token, id: RequestId) -> Result<(), Failure> {
        let queue = self.queues.get(model).expect("every configured model has a queue");
        queue.try_send(id).map_err(|_| Failure::new(Code::Overloaded, "Too much waits to be queued: try again").retry_after_ms(1_000))
    }

    /// Takes in what was posted to this ingress.
    pub(crate) fn hear(&self, messages: Vec<(ToIngress, Bytes)>) {
        let now = clock::now();
        let mut actions = Vec::new();
        let mut table = self.table();
        for (message, body) in messages {
            match message {
                ToIngress::Reply(reply) => actions.extend(table.hear(reply, body, now)),
                ToIngress::Held(held) => table.held(&held, now),
            }
        }
        drop(table);
        self.perform(actions);
    }

    /// Looks for lost requests.
    pub(crate) fn sweep(&self) {
        let actions = self.table().sweep(clock::now());
        self.perform(actions);
    }

    /// The caller of a request is gone or answered otherwise.
    pub(crate) fn abandon(&self, id: RequestId) {
        let action = self.table().abandon(id, clock::now());
        self.perform(action);
    }

    pub(crate) fn parts(&self, ids: &[RequestId]) -> Vec<(RequestId, Part)> {
        self.table().parts(ids, clock::now())
    }

    pub(crate) fn published(&self, ids: &[RequestId], stored: Stored) {
        self.table().published(ids, stored, clock::now());
    }

    pub(crate) fn refused(&self, ids: &[RequestId], failure: &Failure) {
        self.table().refused(ids, failure);
    }

    fn perform(&self, actions: impl IntoIterator<Item = Action>) {
        for action in actions {
            match action {
                Action::Cancel(cancel) => self.cancel(&cancel),
                Action::Publish(id, model) => self.publish_again(&model, id),
            }
        }
    }

    fn publish_again(&self, model: &Token, id: RequestId) {
        self.metrics.republished.inc();
        tracing::info!(request = %id, %model, "a lost request is published again");
        if let Err(failure) = self.queue(model, id) {
            self.refused(&[id], &failure);
        }
    }

    fn cancel(&self, cancel: &Cancel) {
        self.metrics.cancelled.inc();
        self.outbox.post(Address::Cancels, cancel, Bytes::new());
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
