//! loop: the worker's process: takes dispatches, accepts what it has room for, runs it, and says what it has.

mod executions;
mod intake;
mod returns;

pub(crate) use executions::Executions;

use crate::backend::{Backend, BuildError, http};
use crate::metrics::Metrics;
use crate::spoken::Spoken;
use crate::table::Table;
use crate::usage::Recorder;
use bytes::Bytes;
use intake::{Intake, Served};
use shared::broker::{Address, Attached, Broker, BrokerError};
use shared::clock::{self, millis};
use shared::config::{Config, Model};
use shared::domain::{NodeId, Token};
use shared::hear::messages;
use shared::outbox::Outbox;
use shared::task::{self, Guarded};
use shared::wire::{BackendCredit, Cancel, Heartbeat, Held, ModelCredit, ToIngress};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Credit older than 1.5 s counts for nothing, so it is said again well before.
const HEARTBEAT: Duration = Duration::from_millis(500);

/// How often what runs is named to the ingresses that wait for it, and what it must be older than.
const HELD_EVERY: Duration = Duration::from_secs(1);

/// How often a drain looks whether everything has ended.
const DRAIN_POLL: Duration = Duration::from_millis(20);

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error(transparent)]
    Backend(#[from] BuildError),
    #[error("a metric could not be registered: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error("model `{0}` is not in the configuration: name models that are")]
    UnknownModel(String),
}

/// What the tasks of one worker share. A blocking mutex guards the table: held for a look-up, never across an await.
pub(crate) struct Shop {
    pub(crate) id: NodeId,
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) outbox: Outbox,
    pub(crate) metrics: Metrics,
    pub(crate) recorder: Recorder,
    served: HashMap<Token, Served>,
    table: Mutex<Table>,
    /// Another lock like it; the two are never held together.
    spoken: Mutex<Spoken>,
    /// Tasks that run an execution: the last answers of one are sent after it has left the table.
    executing: AtomicUsize,
}

impl Shop {
    fn is_idle(&self) -> bool {
        self.table().executions() == 0 && self.executing.load(Ordering::Acquire) == 0
    }

    pub(crate) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spoken(&self) -> MutexGuard<'_, Spoken> {
        self.spoken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running worker. Dropping it stops it at once; [`Worker::drain`] lets it finish first.
pub struct Worker {
    shop: Arc<Shop>,
    _ears: Vec<Attached>,
    _tasks: Vec<Guarded>,
}

impl Worker {
    /// Connects the backends of `models` (all when `None`), listens, and announces its credit.
    ///
    /// # Errors
    /// A model that is not configured, a backend that cannot be set up, a broker that cannot be listened to.
    pub async fn start(
        config: &Config,
        models: Option<&[String]>,
        broker: Arc<dyn Broker>,
        id: NodeId,
        registry: &prometheus::Registry,
    ) -> Result<Self, StartError> {
        let mut clients = http::Clients::default();
        let mut served = HashMap::new();
        for model in chosen(config, models)? {
            served.insert(model.token.clone(), Served::new(model, &mut clients)?);
        }
        let outbox = Outbox::new(Arc::clone(&broker));
        let metrics = Metrics::new(registry)?;
        let shop = Arc::new(Shop {
            id: id.clone(),
            broker: Arc::clone(&broker),
            outbox,
            recorder: Recorder::start(Arc::clone(&broker), metrics.clone()),
            metrics,
            served,
            table: Mutex::default(),
            spoken: Mutex::default(),
            executing: AtomicUsize::new(0),
        });
        let (intake, alive, cancels) = (Intake::new(Arc::clone(&shop)), Arc::clone(&shop), Arc::clone(&shop));
        let ears = vec![
            broker.attach(&Address::Worker(id), Arc::new(move |frame| intake.hear(&frame))).await?,
            broker.attach(&Address::Heartbeats, Arc::new(move |frame| hear_heartbeats(&alive, &frame))).await?,
            broker.attach(&Address::Cancels, Arc::new(move |frame| hear_cancels(&cancels, &frame))).await?,
        ];
        let tasks = vec![
            task::spawn_guarded("worker credit", announce_credit(Arc::clone(&shop))),
            task::spawn_guarded("worker held", announce_held(Arc::clone(&shop))),
        ];
        Ok(Self { shop, _ears: ears, _tasks: tasks })
    }

    /// Takes nothing new, finishes what runs, at most until `limit`, and says goodbye.
    pub async fn drain(self, limit: Duration) {
        self.shop.table().drain();
        announce(&self.shop);
        let finished = async {
            while !self.shop.is_idle() {
                tokio::time::sleep(DRAIN_POLL).await;
            }
        };
        if tokio::time::timeout(limit, finished).await.is_err() {
            tracing::warn!(running = self.shop.table().executions(), "the drain deadline passed; what still runs is dropped");
        }
        self.shop.recorder.settled().await;
        let leaving = Heartbeat::Leaving { id: self.shop.id.clone() };
        self.shop.outbox.post(Address::Heartbeats, &leaving, Bytes::new());
        self.shop.outbox.flushed().await;
    }
}

fn chosen<'a>(config: &'a Config, names: Option<&[String]>) -> Result<Vec<&'a Model>, StartError> {
    match names {
        None => Ok(config.models.iter().collect()),
        Some(names) => names.iter().map(|name| config.model(name).ok_or_else(|| StartError::UnknownModel(name.clone()))).collect(),
    }
}

fn hear_cancels(shop: &Shop, frame: &Bytes) {
    for (Cancel { ids, exec }, _) in messages(frame) {
        shop.table().cancel(clock::now(), &ids, exec);
    }
}

fn hear_heartbeats(shop: &Shop, frame: &Bytes) {
    for (heartbeat, _) in messages(frame) {
        match heartbeat {
            Heartbeat::Ingress { id } => shop.table().ingress_seen(clock::now(), id),
            Heartbeat::Probe { .. } => announce(shop),
            Heartbeat::Worker { .. } | Heartbeat::Scheduler { .. } | Heartbeat::Leaving { .. } => {}
        }
    }
}

async fn announce_credit(shop: Arc<Shop>) {
    let mut tick = tokio::time::interval(HEARTBEAT);
    loop {
        tick.tick().await;
        shop.table().cancel_orphans(clock::now());
        announce(&shop);
    }
}

/// Says what this worker can take and what it runs. One that drains can take nothing.
fn announce(shop: &Shop) {
    let (models, running) = {
        let table = shop.table();
        let is_draining = table.is_draining();
        let models = shop.served.iter().map(|(token, served)| ModelCredit {
            model: token.clone(),
            backends: served.backends.iter().map(|(credit, backend)| offer(credit, millis(backend.rests()), is_draining)).collect(),
            running: table.running(token),
        });
        (models.collect(), table.executions())
    };
    shop.metrics.running(running);
    shop.outbox.post(Address::Heartbeats, &Heartbeat::Worker { id: shop.id.clone(), models }, Bytes::new());
}

fn offer(credit: &BackendCredit, rest_ms: u32, is_draining: bool) -> BackendCredit {
    let concurrency = if is_draining { 0 } else { credit.concurrency };
    BackendCredit { concurrency, rest_ms, ..credit.clone() }
}

async fn announce_held(shop: Arc<Shop>) {
    let mut tick = tokio::time::interval(HELD_EVERY);
    loop {
        tick.tick().await;
        shop.spoken().forget(clock::now());
        let held = shop.table().held(clock::now().saturating_sub(HELD_EVERY));
        for (ingress, ids) in held {
            let message = ToIngress::Held(Held { from: shop.id.clone(), ids, passed: Vec::new() });
            shop.outbox.post(Address::Ingress(ingress), &message, Bytes::new());
        }
    }
}

impl Served {
    fn new(model: &Model, clients: &mut http::Clients) -> Result<Self, BuildError> {
        let mut backends = Vec::with_capacity(model.backends.len());
        for config in &model.backends {
            let credit = BackendCredit {
                name: config.name.as_str().into(),
                concurrency: config.concurrency,
                tokens: config.tokens_max,
                shared: !config.per_worker,
                rest_ms: 0,
            };
            backends.push((credit, Backend::new(config, clients)?));
        }
        Ok(Self { name: model.name.as_str().into(), max_items: model.batching.max_items, price: model.price, backends })
    }
}
