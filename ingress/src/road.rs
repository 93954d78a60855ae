//! edge: the road as a handler sees it: a letter goes out to its model's lane, a ticket for the answer comes back.

use crate::claim::{self, BlobGuard, CLAIM_OVER};
use crate::forecasts::Forecasts;
use crate::looks::Looks;
use crate::metrics::Metrics;
use crate::pending::Pending;
use crate::publisher;
use crate::refusals::{Account, Refusals};
use crate::table::{Action, Entry, EventSizes, Table};
use crate::ticket::{Meter, Terms, Ticket};
use bytes::Bytes;
use shared::broker::{Address, Broker, Stored};
use shared::clock::{self, Time};
use shared::config::Model;
use shared::domain::{NodeId, RequestId, Token};
use shared::error::{Code, Failure};
use shared::outbox::Outbox;
use shared::quota::Refusal;
use shared::wire::{Cancel, Envelope, Part, Resend, ToIngress, ToWorker};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;

/// Requests that may wait for one model's publisher. It drains 64 at a time without waiting for the broker, so a queue
/// this long means that nothing moves.
const QUEUE_MAX: usize = 16_384;

/// One request, ready to travel.
pub(crate) struct Letter {
    pub(crate) envelope: Envelope,
    pub(crate) body: Bytes,
    pub(crate) deadline: Time,
    /// Whose limits it is counted against; nothing where there are none.
    pub(crate) account: Option<Arc<Account>>,
}

pub(crate) struct Road {
    pub(crate) id: NodeId,
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) looks: Looks,
    pub(crate) forecasts: Arc<Forecasts>,
    outbox: Outbox,
    queues: HashMap<Token, mpsc::Sender<RequestId>>,
    /// A plain lock: held for a few map operations, never across an await.
    table: Mutex<Table>,
    /// Another; never taken together with the table's.
    refusals: Mutex<Refusals>,
    /// How long a request waits for a limit.
    max_wait: Duration,
}

/// A request's place among those that wait for a limit.
pub(crate) struct Place {
    road: Arc<Road>,
    account: Arc<Account>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.road.refusals().waited(&self.account);
    }
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
        models: &[Model],
        max_wait: Duration,
    ) -> (Arc<Self>, Vec<Queue>) {
        let (mut senders, mut queues) = (HashMap::new(), Vec::new());
        for model in models {
            let (sender, queue) = mpsc::channel(QUEUE_MAX);
            senders.insert(model.token.clone(), sender);
            queues.push((model.token.clone(), queue));
        }
        let forecasts = Arc::new(Forecasts::new(models));
        let looks = Looks::new(id.clone(), outbox.clone());
        let road = Self {
            id,
            broker,
            metrics,
            looks,
            forecasts,
            outbox,
            queues: senders,
            table: Mutex::default(),
            refusals: Mutex::default(),
            max_wait,
        };
        (Arc::new(road), queues)
    }

    /// Sends a letter to its model's lane. The broker's word on it comes through the ticket.
    ///
    /// # Errors
    /// `overloaded` when its queue is full, or so long that the letter would wait in it beyond its time; what
    /// [`claim::store`] fails with.
    pub(crate) async fn send(self: &Arc<Self>, model: &Token, letter: Letter) -> Result<Ticket, Failure> {
        self.forecasts.admit(model, letter.deadline, clock::now()).inspect_err(|_| self.metrics.shed(&letter.envelope.model))?;
        let (letter, blob) = self.check_claim(letter).await?;
        let Letter { envelope, body, deadline, account } = letter;
        let (id, stream) = (envelope.id, envelope.stream);
        let (pieces, answer) = mpsc::unbounded_channel();
        let meter = Meter::default();
        let draining = stream.then(|| meter.clone());
        let pending = Pending::new(stream);
        let now = clock::now();
        let entry = Entry {
            pending,
            envelope,
            model: model.clone(),
            body,
            deadline,
            pieces,
            meter,
            events: EventSizes::default(),
            account,
            waits: false,
            lies_in: None,
        };
        let refusal = entry.account.as_ref().and_then(|account| self.refusals().find(account, entry.tokens(), now));
        self.table().insert(Entry { waits: refusal.is_some(), ..entry });
        let terms = Terms { id, pieces: answer, draining, deadline, patience: now + self.max_wait, blob };
        let mut ticket = Ticket::new(Arc::clone(self), terms);
        match refusal {
            Some(refusal) => ticket.refuse(refusal),
            None => self.set_out(model, id).await?,
        }
        Ok(ticket)
    }

    async fn set_out(&self, model: &Token, id: RequestId) -> Result<(), Failure> {
        if self.broker.is_local() {
            publisher::publish_now(self, model, id).await; // Nothing is gained by sending requests together.
            return Ok(());
        }
        self.queue(model, id)
    }

    /// Sends a request that has waited for a limit, unless another was refused meanwhile: then this one is, too.
    ///
    /// # Errors
    /// `overloaded` when its model's queue is full.
    pub(crate) async fn send_again(&self, id: RequestId) -> Result<Option<Refusal>, Failure> {
        let waits = self.table().get(id).and_then(|entry| Some((entry.account.clone()?, entry.tokens())));
        let refusal = waits.and_then(|(account, tokens)| self.refusals().find(&account, tokens, clock::now()));
        if refusal.is_some() {
            return Ok(refusal);
        }
        let model = self.table().set_out(id);
        if let Some(model) = model {
            self.set_out(&model, id).await?;
        }
        Ok(None)
    }

    /// A place among those of a request's account that wait for a limit. `None`: all are taken.
    pub(crate) fn wait(self: &Arc<Self>, id: RequestId) -> Option<Place> {
        let account = self.table().get(id).and_then(|entry| entry.account.clone())?;
        let taken = self.refusals().wait(&account);
        taken.then(|| Place { road: Arc::clone(self), account })
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
        let (mut actions, mut refused) = (Vec::new(), Vec::new());
        let mut table = self.table();
        for (message, body) in messages {
            match message {
                ToIngress::Reply(reply) => actions.extend(table.hear(reply, body, now)),
                ToIngress::Held(held) => table.held(&held, now),
                ToIngress::Moved(moved) => table.moved(moved, now),
                ToIngress::Looked(looked) => self.looks.heard(looked),
                ToIngress::Refused { id, refusal } => refused.extend(table.give_back(id, refusal).map(|whom| (whom, refusal))),
            }
        }
        drop(table);
        for ((account, tokens), refusal) in refused {
            self.refusals().note(&account, tokens, refusal, now);
        }
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
                Action::Ask(worker, resend) => self.ask(worker, &resend),
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

    fn ask(&self, worker: NodeId, resend: &Resend) {
        self.metrics.asked_again.inc();
        self.outbox.post(Address::Worker(worker), &ToWorker::Resend(*resend), Bytes::new());
    }

    fn cancel(&self, cancel: &Cancel) {
        self.metrics.cancelled.inc();
        self.outbox.post(Address::Cancels, cancel, Bytes::new());
    }

    /// Nobody waits for these deferred requests any more.
    pub(crate) fn call_off(&self, ids: Vec<RequestId>) {
        self.cancel(&Cancel { ids, exec: None });
    }

    fn refusals(&self) -> MutexGuard<'_, Refusals> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
