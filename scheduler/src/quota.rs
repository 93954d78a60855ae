//! edge: one owner's dealings with the quota ledger: reserve before a request may wait, settle when it has ended.
//!
//! Who has no limits is never counted. A ledger in this process is asked on the spot; one that others share is asked by the
//! clerk (`quota/clerk.rs`), a task of its own, and its word comes by mail: the engine waits for neither.

mod clerk;
mod ledger;
mod seeding;

pub use ledger::Ledger;

use crate::engine::{Event, Item};
use crate::metrics::QuotaMetrics;
use crate::reservations::{Account, Reservations};
use arc_swap::ArcSwap;
use clerk::{Clerk, Order};
use shared::broker::Broker;
use shared::clock::Time;
use shared::config::Model;
use shared::domain::RequestId;
use shared::identity::Directory;
use shared::quota::{Decision, Quotas, RENEW_EVERY_MS, Refusal, Reserve, Settle, Standing, Whose};
use shared::wire::{ItemDone, Usage};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// What all owners of a scheduler share.
#[derive(Clone)]
pub struct Treasury {
    pub directory: Arc<ArcSwap<Directory>>,
    pub ledger: Ledger,
}

impl Treasury {
    /// A tenant's share of a contended model, relative to the others', as it is now.
    pub(crate) fn weight(&self, tenant: &str) -> u32 {
        self.directory.load().tenant(tenant).map_or(1, |tenant| tenant.record.weight)
    }
}

/// What the ledger says of a request, on its way to the engine.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) id: RequestId,
    account: Account,
    decision: Decision,
}

pub(crate) struct Counter {
    treasury: Treasury,
    model: Model,
    reservations: Reservations,
    clerk: Clerk,
    metrics: QuotaMetrics,
    renew_at: Time,
}

impl Counter {
    /// `tell` is called with the verdicts that do not come at once.
    pub(crate) fn new(
        treasury: Treasury,
        broker: Arc<dyn Broker>,
        model: Model,
        metrics: QuotaMetrics,
        now: Time,
        tell: impl Fn(Verdict) + Send + Sync + 'static,
    ) -> Self {
        let clerk = Clerk::start(treasury.ledger.clone(), broker, metrics.clone(), tell);
        Self { treasury, model, reservations: Reservations::default(), clerk, metrics, renew_at: now + renew_every() }
    }

    /// Asks for a request's place within its limits. `None`: the verdict comes later.
    pub(crate) fn reserve(&mut self, item: &Item) -> Option<Event> {
        let Some(quotas) = self.quotas(item) else { return Some(Event::Reserved(item.id)) };
        let (tenant, key) = (Arc::clone(&item.tenant), item.key.clone());
        let usage = Usage { input: item.tokens_in, output: item.tokens_out };
        let (tokens, nano_usd) = (u64::from(item.tokens_in) + u64::from(item.tokens_out), self.model.price.cost(usage));
        let asked = Reserve { id: item.id, tenant, key, quotas, tokens, nano_usd };
        match self.treasury.ledger.own().map(|ledger| ledger.reserve(&asked)) {
            None | Some(Decision::Unseeded) => {
                self.clerk.order(Order::Reserve(asked));
                None
            }
            Some(decision) => self.rule(Verdict::of(&asked, decision)),
        }
    }

    /// Takes a verdict to the engine. `awaited`: it still holds the request.
    pub(crate) fn hear(&mut self, verdict: Verdict, awaited: bool) -> Option<Event> {
        let (id, granted) = (verdict.id, matches!(verdict.decision, Decision::Granted(_)));
        let event = self.rule(verdict);
        if granted && !awaited {
            self.unused(id);
            return None;
        }
        event
    }

    fn rule(&mut self, Verdict { id, account, decision }: Verdict) -> Option<Event> {
        match decision {
            Decision::Granted(standing) => {
                self.reservations.granted(id, account, standing);
                Some(Event::Reserved(id))
            }
            Decision::Refused(refusal) => {
                self.metrics.refused(&refusal);
                Some(Event::QuotaRefused { id, refusal })
            }
            // The clerk seeds and asks again; it has not come to an end in time.
            Decision::Unseeded => Some(Event::QuotaRefused { id, refusal: Refusal::unavailable(self.whose_budget(&account.tenant)) }),
        }
    }

    /// How the limits stood when the request was admitted.
    pub(crate) fn standing(&self, id: RequestId) -> Option<Box<Standing>> {
        self.reservations.standing(id).map(Box::new)
    }

    /// The engine has let a request go, and no worker has it.
    pub(crate) fn unused(&mut self, id: RequestId) {
        if let Some(settle) = self.reservations.unused(id) {
            self.settle(settle);
        }
    }

    /// A request comes that is not here, and no worker has it: nobody will say how it ended before.
    pub(crate) fn forget(&mut self, id: RequestId) {
        self.reservations.forget(id);
    }

    /// Workers have ended requests, which others may run still.
    pub(crate) fn done(&mut self, items: &[ItemDone], runs_besides: impl Fn(RequestId) -> bool) {
        if self.reservations.is_empty() {
            return;
        }
        for item in items {
            if let Some(settle) = self.reservations.done(item, runs_besides(item.id), |usage| self.model.price.cost(usage)) {
                self.settle(settle);
            }
        }
    }

    /// Renews what is open, in time, and lets run out what is neither held nor run here any more.
    pub(crate) fn tend(&mut self, now: Time, alive: impl Fn(RequestId) -> bool) {
        if now < self.renew_at {
            return;
        }
        self.renew_at = now + renew_every();
        self.reservations.forget_all_but(alive);
        for (tenant, ids) in self.reservations.by_tenant() {
            self.clerk.order(Order::Renew(tenant, ids));
        }
    }

    pub(crate) fn report(&self) {
        self.metrics.open(self.reservations.len());
    }

    /// Rings when all that was said so far is in the ledger.
    pub(crate) fn when_settled(&self, ring: oneshot::Sender<()>) {
        self.clerk.order(Order::Ring(ring));
    }

    fn settle(&self, settle: Settle) {
        match self.treasury.ledger.own() {
            Some(ledger) => self.metrics.settled(ledger.settle(&settle)),
            None => self.clerk.order(Order::Settle(settle)),
        }
    }

    /// Whose budget cannot be kept where one cannot: a tenant without one is not shut for the sake of one key.
    fn whose_budget(&self, tenant: &str) -> Whose {
        let directory = self.treasury.directory.load();
        let has_one = directory.tenant(tenant).is_some_and(|tenant| tenant.quota.has_budget());
        if has_one { Whose::Tenant } else { Whose::Key }
    }

    /// The limits of a request's tenant and key; nothing where there are none.
    fn quotas(&self, item: &Item) -> Option<Quotas> {
        let directory = self.treasury.directory.load();
        let tenant = directory.tenant(&item.tenant).map(|tenant| Arc::clone(&tenant.quota)).unwrap_or_default();
        let key = item.key.as_deref().and_then(|id| directory.quota_of_key(id)).cloned();
        (key.is_some() || !tenant.is_unlimited()).then_some(Quotas { tenant, key })
    }
}

impl Verdict {
    fn of(asked: &Reserve, decision: Decision) -> Self {
        let account = Account { tenant: Arc::clone(&asked.tenant), key: asked.key.clone() };
        Self { id: asked.id, account, decision }
    }
}

const fn renew_every() -> Duration {
    Duration::from_millis(RENEW_EVERY_MS)
}
