//! loop: the scheduler's process: keeps its leases, routes what it hears to the models it owns.

use crate::acks::Acks;
use crate::engine::Event;
use crate::fallback::Forwarder;
use crate::looks::Looks;
use crate::metrics::Metrics;
use crate::model::{self, ModelHandle, Office};
use crate::ownership::Peers;
use crate::quota::Treasury;
use bytes::Bytes;
use shared::broker::{Address, Attached, Broker, BrokerError, Bucket, LEASE_TTL};
use shared::clock::{self, Time, millis};
use shared::config::{Config, Model};
use shared::domain::{Lane, NodeId, Token};
use shared::hear::messages;
use shared::outbox::Outbox;
use shared::task::{self, Guarded};
use shared::wire::{Cancel, Heartbeat, Returned, ToScheduler, Wait};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How often leases are renewed and sought, and this scheduler's heartbeat is sent.
const ROUND: Duration = Duration::from_millis(500);

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error("a metric could not be registered: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// A running scheduler. Dropping it stops it at once; [`Scheduler::drain`] hands its models over first.
pub struct Scheduler {
    office: Office,
    desk: Arc<Desk>,
    keeper: Guarded,
    _ears: Vec<Attached>,
}

impl Scheduler {
    /// Listens, then begins to take its share of the models.
    ///
    /// # Errors
    /// When the broker cannot be listened to.
    pub async fn start(
        config: &Config,
        treasury: Treasury,
        broker: Arc<dyn Broker>,
        id: NodeId,
        registry: &prometheus::Registry,
    ) -> Result<Self, StartError> {
        let outbox = Outbox::new(Arc::clone(&broker));
        let office = Office {
            id: id.clone(),
            forwarder: Forwarder::start(Arc::clone(&broker), outbox.clone()),
            models: config.models.as_slice().into(),
            outbox,
            acks: Acks::new(Arc::clone(&broker)),
            metrics: Metrics::new(registry)?,
            broker: Arc::clone(&broker),
            treasury,
        };
        let looks = Looks { id: id.clone(), ledger: office.treasury.ledger.clone(), outbox: office.outbox.clone() };
        let desk = Arc::new(Desk::new(looks));
        let addresses = [Address::Scheduler(id), Address::Heartbeats, Address::Cancels];
        let mut ears = Vec::with_capacity(addresses.len());
        for address in addresses {
            let (desk, at) = (Arc::clone(&desk), address.clone());
            ears.push(broker.attach(&address, Arc::new(move |frame| desk.hear(&at, &frame))).await?);
        }
        let keeper = Keeper { office: office.clone(), models: config.models.clone(), desk: Arc::clone(&desk) };
        let keeper = task::spawn_guarded("leases", keeper.run());
        Ok(Self { office, desk, keeper, _ears: ears })
    }

    /// Gives every model up: what waits goes back to the lanes, the leases are free for the next owner.
    pub async fn drain(self) {
        drop(self.keeper);
        let leaving = Heartbeat::Leaving { id: self.office.id.clone() };
        self.office.outbox.post(Address::Heartbeats, &leaving, Bytes::new());
        for owned in self.desk.close() {
            hand_over(&self.office, owned).await;
        }
        self.office.outbox.flushed().await;
    }
}

/// An owned model.
#[derive(Debug)]
struct Owned {
    model: Model,
    lease: Lease,
    handle: ModelHandle,
}

/// A lease: its current revision, and when it was last renewed.
#[derive(Clone, Copy, Debug)]
struct Lease {
    revision: u64,
    renewed: Time,
}

/// Where messages for the owned models are left. A blocking mutex: held for a look-up, never across an await.
struct Desk {
    inner: Mutex<DeskState>,
    looks: Looks,
}

struct DeskState {
    owned: HashMap<Token, Owned>,
    peers: Peers,
}

impl Desk {
    fn new(looks: Looks) -> Self {
        let peers = Peers::new(looks.id.clone());
        Self { inner: Mutex::new(DeskState { owned: HashMap::new(), peers }), looks }
    }

    fn with<T>(&self, f: impl FnOnce(&mut DeskState) -> T) -> T {
        f(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn close(&self) -> Vec<Owned> {
        self.with(|state| state.owned.drain().map(|(_, owned)| owned).collect())
    }

    fn tell(&self, model: &Token, event: Event) {
        self.with(|state| {
            if let Some(owned) = state.owned.get(model) {
                owned.handle.tell(event);
            }
        });
    }

    fn give_back(&self, returned: Returned, bodies: Bytes) {
        self.with(|state| {
            if let Some(owned) = state.owned.get(&returned.model) {
                owned.handle.give_back(returned, bodies);
            }
        });
    }

    fn tell_all(&self, event: &Event) {
        self.with(|state| state.owned.values().for_each(|owned| owned.handle.tell(event.clone())));
    }

    /// Takes in a frame that was posted to `at`.
    fn hear(&self, at: &Address, frame: &Bytes) {
        match at {
            Address::Heartbeats => messages(frame).into_iter().for_each(|(heartbeat, _)| self.hear_heartbeat(heartbeat)),
            Address::Cancels => messages(frame).into_iter().for_each(|(cancel, _)| self.hear_cancel(cancel)),
            _ => messages(frame).into_iter().for_each(|(message, body)| self.hear_mail(message, body)),
        }
    }

    fn hear_heartbeat(&self, heartbeat: Heartbeat) {
        match heartbeat {
            Heartbeat::Worker { id, models } => {
                for credit in models {
                    let event = Event::Heartbeat { worker: id.clone(), backends: credit.backends, running: credit.running };
                    self.tell(&credit.model, event);
                }
            }
            Heartbeat::Scheduler { id, owns, .. } => self.with(|state| state.peers.heard(clock::now(), id, owns)),
            Heartbeat::Ingress { id } => self.tell_all(&Event::IngressSeen(id)),
            Heartbeat::Leaving { id } => {
                self.with(|state| state.peers.left(&id));
                self.tell_all(&Event::WorkerLeft(id));
            }
            Heartbeat::Probe { .. } => {}
        }
    }

    fn hear_cancel(&self, cancel: Cancel) {
        if cancel.exec.is_none() {
            self.tell_all(&Event::Cancelled(cancel.ids));
        }
    }

    fn hear_mail(&self, message: ToScheduler, body: Bytes) {
        match message {
            ToScheduler::Accept { worker, model, batch } => self.tell(&model, Event::Accepted { worker, batch }),
            ToScheduler::Refuse { worker, model, batch, reason } => {
                tracing::debug!(%worker, ?reason, "a worker refused a batch");
                self.tell(&model, Event::Refused { worker, batch });
            }
            ToScheduler::Freed { worker, model, batch, items } => self.tell(&model, Event::Freed { worker, batch, items }),
            ToScheduler::Done { worker, model, batch, items } => self.tell(&model, Event::Done { worker, batch, items }),
            ToScheduler::Returned(returned) => self.give_back(returned, body),
            ToScheduler::Look(asked) => self.looks.answer(asked),
        }
    }
}

/// The lanes of a model in which something waits.
fn waits(model: &Token, handle: &ModelHandle) -> impl Iterator<Item = Wait> {
    let of_lanes = Lane::ALL.into_iter().zip(handle.waits()).filter(|(_, wait)| wait.requests > 0);
    of_lanes.map(|(lane, wait)| Wait { model: model.clone(), lane, requests: wait.requests, ms: wait.time.map(millis), span: wait.span })
}

struct Keeper {
    office: Office,
    models: Vec<Model>,
    desk: Arc<Desk>,
}

impl Keeper {
    async fn run(self) {
        let all: Vec<Token> = self.models.iter().map(|m| m.token.clone()).collect();
        let mut round = tokio::time::interval(ROUND);
        round.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            round.tick().await;
            self.renew().await;
            let plan = self.desk.with(|state| {
                let owned: HashSet<Token> = state.owned.keys().cloned().collect();
                state.peers.plan(clock::now(), &all, &owned)
            });
            if let Some(owned) = plan.release.and_then(|model| self.take(&model)) {
                tracing::info!(model = %owned.model.name, "lets a model go to a scheduler that has less");
                hand_over(&self.office, owned).await;
            }
            for model in plan.seek {
                self.seek(&model).await;
            }
            self.office.outbox.post(Address::Heartbeats, &self.heartbeat(), Bytes::new());
        }
    }

    fn heartbeat(&self) -> Heartbeat {
        let id = self.office.id.clone();
        self.desk.with(|state| {
            let waits = state.owned.iter().flat_map(|(model, owned)| waits(model, &owned.handle)).collect();
            Heartbeat::Scheduler { id, owns: state.owned.keys().cloned().collect(), waits }
        })
    }

    async fn renew(&self) {
        let leases: Vec<(Token, Lease)> = self.desk.with(|state| state.owned.iter().map(|(m, o)| (m.clone(), o.lease)).collect());
        for (model, lease) in leases {
            let asked = clock::now();
            let written = self.office.broker.record_update(Bucket::Leases, model.as_str(), self.name(), lease.revision).await;
            match written {
                Ok(revision) => self.renewed(&model, Lease { revision, renewed: asked }),
                Err(BrokerError::Conflict) => self.recover(&model, asked).await,
                Err(error) if clock::now().since(lease.renewed) >= LEASE_TTL => self.lose(&model, &error.to_string()),
                Err(_) => {} // The lease still runs; the next round tries again.
            }
        }
    }

    async fn seek(&self, model: &Token) {
        let Some(config) = self.models.iter().find(|m| m.token == *model) else { return };
        let asked = clock::now();
        let Ok(revision) = self.office.broker.record_create(Bucket::Leases, model.as_str(), self.name()).await else { return };
        tracing::info!(model = %config.name, revision, "took over a model");
        let handle = model::start(self.office.clone(), config, revision);
        let owned = Owned { model: config.clone(), lease: Lease { revision, renewed: asked }, handle };
        self.desk.with(|state| state.owned.insert(model.clone(), owned));
        self.office.metrics.of_model(&config.name).owns(true);
        self.office.outbox.post(Address::Heartbeats, &Heartbeat::Probe { from: self.office.id.clone() }, Bytes::new());
    }

    /// The lease is not as it was left: written by an earlier renewal whose answer was lost, or somebody else's.
    async fn recover(&self, model: &Token, asked: Time) {
        match self.office.broker.record_get(Bucket::Leases, model.as_str()).await {
            Ok(Some(record)) if record.value == self.name() => self.renewed(model, Lease { revision: record.revision, renewed: asked }),
            Ok(_) => self.lose(model, "another scheduler has the lease"),
            Err(error) => self.lose(model, &error.to_string()),
        }
    }

    fn renewed(&self, model: &Token, lease: Lease) {
        self.desk.with(|state| {
            if let Some(owned) = state.owned.get_mut(model) {
                owned.lease = lease;
            }
        });
    }

    /// Stops at once: somebody else may be dispatching already.
    fn lose(&self, model: &Token, why: &str) {
        if let Some(owned) = self.take(model) {
            tracing::warn!(model = %owned.model.name, why, "lost a model");
            self.office.metrics.of_model(&owned.model.name).owns(false);
        }
    }

    fn take(&self, model: &Token) -> Option<Owned> {
        self.desk.with(|state| state.owned.remove(model))
    }

    fn name(&self) -> Bytes {
        Bytes::copy_from_slice(self.office.id.as_str().as_bytes())
    }
}

/// Gives one model up in good order: its work, then its lease.
async fn hand_over(office: &Office, owned: Owned) {
    owned.handle.surrender().await;
    office.acks.flushed().await;
    office.metrics.of_model(&owned.model.name).owns(false);
    if let Err(error) = office.broker.record_delete(Bucket::Leases, owned.model.token.as_str(), owned.lease.revision).await {
        tracing::debug!(%error, model = %owned.model.name, "the lease was not released; it will run out");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::Ledger;
    use shared::broker::memory::MemoryBroker;
    use shared::wire::{FrameWriter, Part};

    #[test]
    fn a_message_that_cannot_be_read_takes_no_other_with_it() {
        let (me, other, model) = (NodeId::parse("me").unwrap(), NodeId::parse("other").unwrap(), Token::of_model("m"));
        let outbox = Outbox::new(MemoryBroker::new());
        let desk = Desk::new(Looks { id: me, ledger: Ledger::Own(Arc::default()), outbox });
        let mut frame = FrameWriter::new();
        frame.push(&Part::encode(&"from a newer release", Bytes::new()));
        frame.push(&Part::encode(&Heartbeat::Scheduler { id: other, owns: vec![model.clone()], waits: Vec::new() }, Bytes::new()));
        let sought = || desk.with(|state| state.peers.plan(clock::now(), std::slice::from_ref(&model), &HashSet::new()).seek);
        assert_eq!(sought(), std::slice::from_ref(&model));
        desk.hear(&Address::Heartbeats, &frame.take());
        assert!(sought().is_empty(), "its owner was heard");
    }
}
