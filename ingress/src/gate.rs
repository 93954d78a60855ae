//! edge: what every handler shares.

use crate::admission::Admission;
use crate::auth::Auth;
use crate::bodies::Bodies;
use crate::compose::Order;
use crate::exchange::{Arrival, Exchange};
use crate::jobs::Watch;
use crate::metrics::Metrics;
use crate::peers::Peers;
use crate::refusals::Account;
use crate::road::Road;
use crate::webhooks::Webhooks;
use arc_swap::Guard;
use prometheus::Registry;
use shared::broker::Broker;
use shared::clock;
use shared::config::{Config, Model};
use shared::domain::{Lane, ModelKind, Operation};
use shared::error::{Code, Failure};
use shared::identity::{Caller, Directory};
use shared::quota::Quota;
use shared::wire::{Encoding, Envelope};
use std::collections::HashMap;
use std::sync::Arc;

/// Requests of one tenant, and of one key, that may wait here for a limit where `queued` does not say.
const QUEUED_UNLESS_SAID: u32 = 256;

pub(crate) struct Gate {
    pub(crate) config: Arc<Config>,
    pub(crate) auth: Auth,
    pub(crate) models: HashMap<Arc<str>, usize>,
    pub(crate) admission: Admission,
    pub(crate) bodies: Arc<Bodies>,
    pub(crate) road: Arc<Road>,
    /// Who waits here for jobs.
    pub(crate) watch: Arc<Watch>,
    /// Who is told when deferred work has ended.
    pub(crate) webhooks: Arc<Webhooks>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) registry: Registry,
    /// Not ready before a worker is there: for the one process that runs every role.
    pub(crate) require_worker: bool,
    pub(crate) started_at_unix: u64,
}

impl Gate {
    pub(crate) fn broker(&self) -> &dyn Broker {
        self.road.broker.as_ref()
    }

    /// Everybody who may call, as they are known at this moment.
    pub(crate) fn directory(&self) -> Guard<Arc<Directory>> {
        self.auth.directory().load()
    }

    pub(crate) fn begin(&self, arrival: Arrival, op: Option<Operation>) -> Exchange {
        Exchange::begin(arrival, Arc::clone(&self.metrics), op)
    }

    /// The model of a public name, which must be there for this caller and able to do `op`.
    ///
    /// # Errors
    /// `model_not_found`, `operation_not_supported`.
    pub(crate) fn model(&self, caller: &Caller, name: &str, op: Operation) -> Result<(&Model, Arc<str>), Failure> {
        let known = self.models.get_key_value(name).filter(|(name, _)| caller.may_use(name));
        let (name, index) = known.ok_or_else(model_not_found)?;
        let model = &self.config.models[*index];
        if model.kind != op.kind() {
            let can = if model.kind == ModelKind::Array { "embeddings" } else { "chat/completions, completions and responses" };
            let message = format!("The model `{name}` serves /v1/{can} only: call that, or choose another model");
            return Err(Failure::new(Code::OperationNotSupported, message).param("model"));
        }
        Ok((model, Arc::clone(name)))
    }

    /// An envelope with all that does not depend on the body's content. `remaining_ms` is filled in at every publish.
    pub(crate) fn envelope(&self, order: Order<'_>, model: &Model) -> Envelope {
        let Order { id, op, caller, traceparent, .. } = order;
        Envelope {
            id,
            tenant: caller.tenant.name.as_ref().into(),
            key: caller.key.as_ref().map(|key| key.id.as_ref().into()),
            model: model.name.as_str().into(),
            lane: Lane::Interactive,
            op,
            remaining_ms: 0,
            tokens_in: 0,
            tokens_out: 0,
            items: 1,
            longest: 0,
            bytes: 0,
            compat: 0,
            ingress: self.road.id.clone(),
            stream: false,
            encoding: Encoding::Float,
            model_at: None,
            params: "".into(),
            traceparent,
            claim: None,
            asked: None,
            job: None,
        }
    }

    /// Whose limits a caller's requests are counted against; nothing where there are none.
    pub(crate) fn account(&self, caller: &Caller) -> Option<Arc<Account>> {
        let (of_tenant, of_key) = (&caller.tenant.quota, caller.key.as_ref().map(|key| &key.quota));
        if of_tenant.is_unlimited() && of_key.is_none_or(|quota| quota.is_unlimited()) {
            return None;
        }
        let queued = |quota: &Quota| quota.queued.unwrap_or(QUEUED_UNLESS_SAID);
        let queued = (queued(of_tenant), of_key.map_or(u32::MAX, |quota| queued(quota)));
        let key = caller.key.as_ref().map(|key| Arc::clone(&key.id));
        Some(Arc::new(Account { tenant: Arc::clone(&caller.tenant.name), key, queued }))
    }

    /// Why no request should be sent here now.
    pub(crate) fn unready(&self) -> Option<&'static str> {
        if self.admission.is_draining() {
            return Some("draining");
        }
        if !self.road.broker.is_connected() {
            return Some("the broker is not connected");
        }
        if self.auth.directory().is_outdated() {
            return Some("changes of tenants, roles and keys are not heard");
        }
        (self.require_worker && !self.peers.has_worker(clock::now())).then_some("no worker is there yet")
    }
}

pub(crate) fn model_not_found() -> Failure {
    // The name is not repeated: it is the caller's text, of any length.
    Failure::new(Code::ModelNotFound, "This model is not served here: choose one of GET /v1/models").param("model")
}
