//! loop: the ingress as its process sees it: start, address, drain.

use crate::admission::Admission;
use crate::auth::Auth;
use crate::batches::steward;
use crate::bodies::Bodies;
use crate::forecasts::Forecasts;
use crate::gate::Gate;
use crate::jobs::sweeper;
use crate::jwt::{SourceError, Tokens};
use crate::metrics::{Metrics, TlsMetrics};
use crate::peers::Peers;
use crate::road::{Queue, Road};
use crate::server::Server;
use crate::tls::Tls;
use crate::webhooks::Webhooks;
use crate::{admin, publisher, pulse, routes};
use axum::Router;
use bytes::Bytes;
use prometheus::Registry;
use shared::broker::{Address, Attached, Broker, BrokerError};
use shared::config::Config;
use shared::domain::NodeId;
use shared::hear::messages;
use shared::identity::LiveDirectory;
use shared::outbox::Outbox;
use shared::task::{self, Guarded};
use shared::tls::TlsError;
use shared::wire::Heartbeat;
use shared::{clock, entropy};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Time for answers that are complete to be written out while draining, after the last request has ended.
const WRITE_OUT: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on {addr}: {cause}; free the address or choose another with `listen`")]
    Bind { addr: SocketAddr, cause: io::Error },
    #[error("tls: {0}")]
    Tls(#[from] TlsError),
    #[error("the ingress cannot use the broker: {0}")]
    Broker(#[from] BrokerError),
    #[error("the keys of an issuer cannot be had: {0}")]
    Issuer(#[from] SourceError),
    #[error("the ingress's metrics are registered already: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// A running ingress. Dropping it stops it at once; [`Ingress::drain`] lets running work finish.
pub struct Ingress {
    gate: Arc<Gate>,
    server: Server,
    admin: Option<Server>,
    outbox: Outbox,
    pulse: Guarded,
    _ears: [Attached; 2],
    _publishers: Vec<Guarded>,
    _renewal: Option<Guarded>,
    _keepers: [Guarded; 3],
    _webhooks: Guarded,
}

impl Ingress {
    /// Listens for replies, then for requests of those whom `directory` knows. With `require_worker`, `/readyz` also waits for a worker.
    ///
    /// # Errors
    /// Certificates that cannot be used, a port that cannot be bound, a broker that refuses, metrics that are in the
    /// registry already.
    pub async fn start(
        config: Arc<Config>,
        broker: Arc<dyn Broker>,
        directory: Arc<LiveDirectory>,
        id: NodeId,
        registry: &Registry,
        require_worker: bool,
    ) -> Result<Self, StartError> {
        let (tls, renewal) = secured(&config, registry)?.unzip();
        let outbox = Outbox::new(Arc::clone(&broker));
        let metrics = Arc::new(Metrics::new(registry)?);
        let (road, queues) = Road::new(
            id.clone(),
            Arc::clone(&broker),
            outbox.clone(),
            Arc::clone(&metrics),
            &config.models,
            Duration::from_millis(config.limits.max_wait_ms),
        );
        let peers = Arc::new(Peers::default());
        let (replies, forecasts, beats) = (Arc::clone(&road), Arc::clone(&road.forecasts), Arc::clone(&peers));
        let ears = [
            broker.attach(&Address::Ingress(id), Arc::new(move |frame| replies.hear(messages(&frame)))).await?,
            broker.attach(&Address::Heartbeats, Arc::new(move |frame| hear_beats(&forecasts, &beats, &frame))).await?,
        ];
        let publishers = queues.into_iter().map(|queue| publish(&road, queue)).collect();
        let pulse = task::spawn_guarded("pulse", pulse::run(Arc::clone(&road), outbox.clone()));

        let (webhooks, deliveries) = Webhooks::start(&config, Arc::clone(&broker), road.id.clone(), registry).await?;
        let auth = Auth::new(directory, tokens(&config)?);
        let gate = Arc::new(gate(config, auth, road, peers, webhooks, registry, require_worker));
        let admin = match &gate.config.admin {
            Some(admin) => Some(bind(admin.listen, &gate, tls.clone(), admin::router(Arc::clone(&gate))).await?),
            None => None,
        };
        let server = bind(gate.config.listen, &gate, tls, routes::router(Arc::clone(&gate))).await?;
        let keepers = [
            task::spawn_guarded("jobs", Arc::clone(&gate.watch).run(Arc::clone(&gate.road.broker))),
            task::spawn_guarded("sweeper", sweeper::run(Arc::clone(&gate))),
            task::spawn_guarded("steward", steward::run(Arc::clone(&gate))),
        ];
        Ok(Self {
            gate,
            server,
            admin,
            outbox,
            pulse,
            _ears: ears,
            _publishers: publishers,
            _renewal: renewal,
            _keepers: keepers,
            _webhooks: deliveries,
        })
    }

    /// Where the administration listens, if it does.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(Server::addr)
    }

    /// Where it listens: the configured address, with the port that the system chose for port 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// Takes no new work, lets running work finish within `limits.drain_timeout_ms`, ends the connections, says goodbye.
    pub async fn drain(self) {
        let Self { gate, server, admin, outbox, pulse, _ears, _publishers, _renewal, _keepers, _webhooks } = self;
        gate.admission.close();
        let patience = Duration::from_millis(gate.config.limits.drain_timeout_ms);
        if tokio::time::timeout(patience, gate.admission.idle()).await.is_err() {
            tracing::warn!("running work did not finish in time: it is cancelled");
        }
        server.stop(WRITE_OUT).await;
        if let Some(admin) = admin {
            admin.stop(WRITE_OUT).await;
        }
        drop(pulse);
        outbox.post(Address::Heartbeats, &Heartbeat::Leaving { id: gate.road.id.clone() }, Bytes::new());
        outbox.flushed().await;
        if let Err(error) = gate.road.broker.flush().await {
            tracing::debug!(%error, "the last messages may not have left");
        }
    }
}

fn secured(config: &Config, registry: &Registry) -> Result<Option<(Arc<Tls>, Guarded)>, StartError> {
    let Some(files) = &config.tls else { return Ok(None) };
    let handshake_within = Duration::from_millis(config.limits.header_timeout_ms);
    Ok(Some(Tls::open(files, handshake_within, TlsMetrics::new(registry)?)?))
}

async fn bind(addr: SocketAddr, gate: &Gate, tls: Option<Arc<Tls>>, router: Router) -> Result<Server, StartError> {
    let server = Server::bind(addr, &gate.config.limits, tls, gate.metrics.connections_refused.clone(), router).await;
    server.map_err(|cause| StartError::Bind { addr, cause })
}

fn hear_beats(forecasts: &Forecasts, peers: &Peers, frame: &Bytes) {
    let now = clock::now();
    for (beat, _) in messages(frame) {
        forecasts.hear(&beat, now);
        peers.hear(beat, now);
    }
}

fn publish(road: &Arc<Road>, queue: Queue) -> Guarded {
    task::spawn_guarded("publisher", publisher::run(Arc::clone(road), queue))
}

fn tokens(config: &Config) -> Result<Option<Tokens>, SourceError> {
    (!config.issuers.is_empty()).then(|| Tokens::start(&config.issuers, entropy::secret())).transpose()
}

fn gate(
    config: Arc<Config>,
    auth: Auth,
    road: Arc<Road>,
    peers: Arc<Peers>,
    webhooks: Arc<Webhooks>,
    registry: &Registry,
    require_worker: bool,
) -> Gate {
    let metrics = Arc::clone(&road.metrics);
    Gate {
        auth,
        models: config.models.iter().enumerate().map(|(index, model)| (model.name.as_str().into(), index)).collect(),
        admission: Admission::new(&config.limits, metrics.in_flight.clone()),
        bodies: Bodies::new(config.limits.bodies_bytes_max, metrics.body_bytes.clone()),
        road,
        watch: Arc::default(),
        webhooks,
        peers,
        metrics,
        registry: registry.clone(),
        require_worker,
        started_at_unix: clock::unix_seconds(),
        config,
    }
}
