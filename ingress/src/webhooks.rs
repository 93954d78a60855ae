//! loop: webhooks: who is told that deferred work has ended, at least once, over whatever happens to processes and targets.
//!
//! Each delivery that is due is a record of the broker, so it survives every process. Every ingress follows the records;
//! whoever takes one by compare-and-set posts it, and what happened is written back. A crash between the post and that word
//! means a second post under the same `webhook-id`, by which a receiver knows it.

mod agenda;
mod courier;
mod delivery;
mod event;
mod run;
mod signature;
#[cfg(test)]
mod tests;

pub(crate) use event::Event;

use crate::metrics::WebhookMetrics;
use crate::service::StartError;
use agenda::Agenda;
use courier::Courier;
pub(crate) use delivery::Delivery;
use prometheus::Registry;
use shared::broker::{Broker, BrokerError, Bucket};
use shared::config::{Config, Webhook};
use shared::domain::{NodeId, Token};
use shared::task::{self, Guarded};
use shared::{clock, tls};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Deliveries of one tenant that may wait, given up ones included: a day of one every nine seconds. Past it new ones are
/// refused: a target that has been down for so long will not read them all.
const PER_TENANT_MAX: usize = 10_000;

/// The webhooks of all tenants, as one ingress serves them. Cheap to share.
pub(crate) struct Webhooks {
    id: NodeId,
    broker: Arc<dyn Broker>,
    /// By tenant; those that have any.
    targets: HashMap<Box<str>, Vec<Webhook>>,
    courier: Courier,
    metrics: WebhookMetrics,
    /// A lock for a few map operations, never across an await.
    agenda: Mutex<Agenda>,
}

impl Webhooks {
    /// Begins to deliver what is due, until the guard is dropped.
    ///
    /// # Errors
    /// The records cannot be followed; metrics that are in the registry already.
    pub(crate) async fn start(
        config: &Config,
        broker: Arc<dyn Broker>,
        id: NodeId,
        registry: &Registry,
    ) -> Result<(Arc<Self>, Guarded), StartError> {
        let tls = tls::client(None).expect("without files of its own it reads none");
        let of_tenant = |tenant: &shared::config::Tenant| (tenant.name.as_str().into(), tenant.webhooks.clone());
        let webhooks = Arc::new(Self {
            id,
            broker,
            targets: config.tenants.iter().filter(|tenant| !tenant.webhooks.is_empty()).map(of_tenant).collect(),
            courier: Courier::new(config.webhooks.clone(), tls),
            metrics: WebhookMetrics::new(registry)?,
            agenda: Mutex::default(),
        });
        let follower = run::follow(&webhooks).await?;
        let task = task::spawn_guarded("webhooks", run::run(Arc::clone(&webhooks), follower));
        Ok((webhooks, task))
    }

    /// Whether a tenant wants to be told of anything.
    pub(crate) fn concern(&self, tenant: &str) -> bool {
        self.targets.contains_key(tenant)
    }

    /// Has a tenant told of an event. Announcing the same event again changes nothing while it is being delivered.
    ///
    /// # Errors
    /// `Unavailable`: announce it again. What cannot be kept because too many wait is lost with a warning.
    pub(crate) async fn announce(&self, tenant: &str, event: &Event) -> Result<(), BrokerError> {
        let targets = self.targets.get(tenant).map_or(&[][..], Vec::as_slice);
        for webhook in targets.iter().filter(|webhook| webhook.events.contains(&event.kind())) {
            let delivery = Delivery::new(tenant, event, webhook.url.as_str(), self.id.as_str(), now_ms());
            self.create(tenant, &delivery).await?;
        }
        Ok(())
    }

    async fn create(&self, tenant: &str, delivery: &Delivery) -> Result<(), BrokerError> {
        let is_full = self.agenda().count(&Token::of_name(tenant)) >= PER_TENANT_MAX;
        let (key, bytes) = (delivery.key(), delivery.to_bytes());
        let created = if is_full { Err(BrokerError::Full) } else { self.broker.record_create(Bucket::Hooks, &key, bytes).await };
        match created {
            Ok(_) | Err(BrokerError::Conflict) => {}
            Err(BrokerError::Full) => self.lost(tenant, delivery),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn lost(&self, tenant: &str, delivery: &Delivery) {
        tracing::warn!(tenant, event = %delivery.event, "a webhook is lost: too many wait; look at the tenant's targets");
        self.metrics.ended("lost");
    }

    /// How often an event is to be delivered again, from now on and with a day's patience: once for each target that has
    /// not had it.
    ///
    /// # Errors
    /// `Unavailable`.
    pub(crate) async fn redeliver(&self, event: &str) -> Result<usize, BrokerError> {
        let mut renewed = 0;
        let keys = self.agenda().keys_of_event(event);
        for key in keys {
            let Some((mut delivery, revision)) = self.read(&key).await? else { continue };
            delivery.renew(self.id.as_str(), now_ms());
            match self.broker.record_update(Bucket::Hooks, &key, delivery.to_bytes(), revision).await {
                Ok(_) => renewed += 1,
                // It is being delivered at this moment, or has been.
                Err(BrokerError::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(renewed)
    }

    /// Deliveries that wait or were given up, of one tenant or of all.
    ///
    /// # Errors
    /// `Unavailable`.
    pub(crate) async fn list(&self, tenant: Option<&str>, limit: usize) -> Result<Vec<Delivery>, BrokerError> {
        let keys = self.agenda().keys(tenant.map(Token::of_name).as_ref(), limit);
        let mut deliveries = Vec::new();
        for key in keys {
            deliveries.extend(self.read(&key).await?.map(|(delivery, _)| delivery));
        }
        Ok(deliveries)
    }

    /// A delivery as it stands now, with its revision.
    async fn read(&self, key: &str) -> Result<Option<(Delivery, u64)>, BrokerError> {
        let record = self.broker.record_get(Bucket::Hooks, key).await?;
        Ok(record.and_then(|record| Some((Delivery::read(&record.value)?, record.revision))))
    }

    fn target(&self, delivery: &Delivery) -> Option<&Webhook> {
        self.targets.get(&*delivery.tenant)?.iter().find(|webhook| webhook.url.as_str() == &*delivery.url)
    }

    fn agenda(&self) -> MutexGuard<'_, Agenda> {
        self.agenda.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The wall clock, in milliseconds since 1970: deliveries outlive processes and move between machines.
fn now_ms() -> u64 {
    u64::try_from(clock::unix().as_millis()).unwrap_or(u64::MAX)
}
