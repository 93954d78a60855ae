//! loop: what has to wait for the ledger, in order: orders in, verdicts out by mail.
//!
//! An account whose budget is not known is seeded from the usage journal by a task of its own, so that nobody else waits
//! for the reading; its tenant's requests are parked until then.

use super::{Ledger, Verdict, seeding};
use crate::metrics::QuotaMetrics;
use foldhash::{HashMap, HashMapExt};
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use shared::broker::Broker;
use shared::domain::RequestId;
use shared::quota::{Decision, Reserve, Settle};
use shared::task::{self, Guarded};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Orders that may wait: each request of an owner's full window, asked for and settled.
const ORDERS_MAX: usize = 16_384;

/// Orders taken up at once, which travel to a shared ledger together.
const ROUND_MAX: usize = 64;

/// Tenants seeded at once; the requests of others are refused until there is room.
const SEEDINGS_MAX: usize = 64;

/// Tenants whose reservations are renewed at once.
const RENEWALS_MAX: usize = 16;

/// Sums that a request waits for, one after the other.
const ROUNDS_MAX: u8 = 3;

/// Until the usage journal holds every call that had ended when it was summed: its writers are 50 ms behind, and a busy
/// machine adds to that.
const CATCH_UP: Duration = Duration::from_secs(2);

pub(super) enum Order {
    Reserve(Reserve),
    Settle(Settle),
    Renew(Arc<str>, Vec<RequestId>),
    /// Everything before is done: say so.
    Ring(oneshot::Sender<()>),
}

pub(super) struct Clerk {
    orders: mpsc::Sender<Order>,
    _task: Guarded,
}

impl Clerk {
    pub(super) fn start(
        ledger: Ledger,
        broker: Arc<dyn Broker>,
        metrics: QuotaMetrics,
        tell: impl Fn(Verdict) + Send + Sync + 'static,
    ) -> Self {
        let (orders, queue) = mpsc::channel(ORDERS_MAX);
        let desk = Desk {
            ledger,
            broker,
            metrics,
            tell,
            parked: HashMap::new(),
            seedings: FuturesUnordered::new(),
            confirmations: FuturesUnordered::new(),
            to_renew: HashMap::new(),
            renewals: FuturesUnordered::new(),
        };
        Self { orders, _task: task::spawn_guarded("quota", desk.run(queue)) }
    }

    /// An order too many is dropped: a request is then not placed and expires, a reservation runs out.
    pub(super) fn order(&self, order: Order) {
        if self.orders.try_send(order).is_err() {
            tracing::warn!("an order for the quota ledger was dropped: too many wait for it");
        }
    }
}

/// The tenant whose seeding has ended, and whether the ledger has been told.
type Seeded = (Arc<str>, bool);

struct Desk<F> {
    ledger: Ledger,
    broker: Arc<dyn Broker>,
    metrics: QuotaMetrics,
    tell: F,
    /// Requests that wait until their tenant is seeded: no more than the owner's window holds.
    parked: HashMap<Arc<str>, (Vec<Reserve>, u8)>,
    seedings: FuturesUnordered<BoxFuture<'static, Seeded>>,
    /// Tenants that are summed once more: no more than were seeded lately.
    confirmations: FuturesUnordered<BoxFuture<'static, ()>>,
    /// Of each tenant what is open, as it was said last.
    to_renew: HashMap<Arc<str>, Vec<RequestId>>,
    /// Beside the rounds: nobody's request waits until every tenant is renewed.
    renewals: FuturesUnordered<BoxFuture<'static, ()>>,
}

impl<F: Fn(Verdict) + Send + Sync> Desk<F> {
    async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let mut round = Vec::with_capacity(ROUND_MAX);
        loop {
            tokio::select! {
                taken = orders.recv_many(&mut round, ROUND_MAX) => {
                    if taken == 0 {
                        return;
                    }
                    self.work(round.drain(..)).await;
                }
                Some(seeded) = self.seedings.next() => self.seeded(seeded).await,
                Some(()) = self.confirmations.next() => {}
                Some(()) = self.renewals.next() => self.renew(),
            }
        }
    }

    /// What has ended goes to the ledger with what is asked, and first. Nothing is turned round by that: a request is
    /// settled after its verdict has come, which is another round.
    async fn work(&mut self, round: impl Iterator<Item = Order>) {
        let (mut ended, mut asked) = (Vec::new(), Vec::new());
        for order in round {
            match order {
                Order::Reserve(reserve) => asked.push(reserve),
                Order::Settle(settle) => ended.push(settle),
                Order::Renew(tenant, ids) => drop(self.to_renew.insert(tenant, ids)),
                Order::Ring(ring) => {
                    self.turn(&mut ended, &mut asked).await;
                    let _ = ring.send(()); // Whoever waited may have given up.
                }
            }
        }
        self.renew();
        self.turn(&mut ended, &mut asked).await;
    }

    fn renew(&mut self) {
        while self.renewals.len() < RENEWALS_MAX
            && let Some(tenant) = self.to_renew.keys().next().cloned()
            && let Some(ids) = self.to_renew.remove(&tenant)
        {
            let ledger = self.ledger.clone();
            self.renewals.push(async move { ledger.renew(&tenant, &ids).await }.boxed());
        }
    }

    async fn turn(&mut self, ended: &mut Vec<Settle>, asked: &mut Vec<Reserve>) {
        if ended.is_empty() && asked.is_empty() {
            return;
        }
        let turn = self.ledger.turn(ended, asked).await;
        turn.settled.into_iter().for_each(|settled| self.metrics.settled(settled));
        for (asked, decision) in asked.drain(..).zip(turn.decisions) {
            match decision {
                Decision::Unseeded => self.park(asked),
                decision => (self.tell)(Verdict::of(&asked, decision)),
            }
        }
        ended.clear();
    }

    /// It waits until its tenant's use has been summed.
    fn park(&mut self, asked: Reserve) {
        if let Some((parked, _)) = self.parked.get_mut(&asked.tenant) {
            return parked.push(asked);
        }
        if self.parked.len() == SEEDINGS_MAX {
            return (self.tell)(Verdict::of(&asked, Decision::Unseeded));
        }
        self.sum_for(Arc::clone(&asked.tenant), vec![asked], 1);
    }

    /// The `round`th sum that these wait for, which names their keys.
    fn sum_for(&mut self, tenant: Arc<str>, waiting: Vec<Reserve>, round: u8) {
        let mut keys: Vec<Arc<str>> = waiting.iter().filter_map(|asked| asked.key.clone()).collect();
        keys.sort_unstable();
        keys.dedup();
        self.seedings.push(seed(self.ledger.clone(), Arc::clone(&self.broker), Arc::clone(&tenant), keys).boxed());
        self.parked.insert(tenant, (waiting, round));
    }

    async fn seeded(&mut self, (tenant, seeded): Seeded) {
        self.unpark(Arc::clone(&tenant), seeded).await;
        if seeded && self.confirmations.len() < SEEDINGS_MAX {
            self.confirmations.push(confirm(self.ledger.clone(), Arc::clone(&self.broker), tenant).boxed());
        }
    }

    /// Asks again for those that waited. Who is unseeded still waits for another sum: they came while the last one was made and it did
    /// not name their key, the day has just changed, or Redis came or went meanwhile.
    async fn unpark(&mut self, tenant: Arc<str>, seeded: bool) {
        let (waited, round) = self.parked.remove(&tenant).unwrap_or_default();
        if !seeded {
            return waited.iter().for_each(|asked| (self.tell)(Verdict::of(asked, Decision::Unseeded)));
        }
        let decisions = self.ledger.turn(&[], &waited).await.decisions;
        let mut unseeded = Vec::new();
        for (asked, decision) in waited.into_iter().zip(decisions) {
            match decision {
                Decision::Unseeded if round < ROUNDS_MAX => unseeded.push(asked),
                decision => (self.tell)(Verdict::of(&asked, decision)),
            }
        }
        if !unseeded.is_empty() {
            self.sum_for(tenant, unseeded, round + 1);
        }
    }
}

async fn seed(ledger: Ledger, broker: Arc<dyn Broker>, tenant: Arc<str>, keys: Vec<Arc<str>>) -> Seeded {
    match seeding::sum(&*broker, &tenant, &keys, false).await {
        Ok(sum) => {
            ledger.seed(&sum).await;
            (tenant, true)
        }
        Err(error) => {
            tracing::warn!(%error, "what a tenant has used is not known: its requests are refused until it is");
            (tenant, false)
        }
    }
}

/// A ledger that has lost its memory has also lost what it had been told and the journal did not hold yet. So the sum is made
/// once more when the journal must hold it.
async fn confirm(ledger: Ledger, broker: Arc<dyn Broker>, tenant: Arc<str>) {
    tokio::time::sleep(CATCH_UP).await;
    match seeding::sum(&*broker, &tenant, &[], true).await {
        Ok(sum) => drop(ledger.seed(&sum).await),
        Err(error) => tracing::warn!(%error, "what a tenant has used could not be summed once more: its last moments may not be counted"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use shared::broker::memory::MemoryBroker;
    use shared::quota::memory::MemoryLedger;
    use shared::quota::{Quota, Quotas};

    fn asked(key: &str) -> Reserve {
        let budget = |tokens| Arc::new(Quota { tokens_per_day: Some(tokens), ..Quota::default() });
        let quotas = Quotas { tenant: budget(1_000), key: Some(budget(100)) };
        let id = shared::entropy::request_id();
        Reserve { id, tenant: "tenant".into(), key: Some(key.into()), quotas, tokens: 1, nano_usd: 0 }
    }

    /// What is said of requests of one tenant that come together, by their keys.
    async fn said_of(keys: &[&str]) -> Vec<(String, Decision)> {
        let (said, mut heard) = mpsc::unbounded_channel();
        let metrics = Metrics::new(&prometheus::Registry::new()).unwrap().of_quota("model");
        let ledger = Ledger::Own(Arc::new(MemoryLedger::default()));
        let clerk = Clerk::start(ledger, MemoryBroker::new(), metrics, move |verdict| said.send(verdict).unwrap());
        keys.iter().for_each(|key| clerk.order(Order::Reserve(asked(key))));
        let mut all = Vec::new();
        while all.len() < keys.len() {
            let verdict = heard.recv().await.expect("the clerk lives");
            all.push((verdict.account.key.unwrap().to_string(), verdict.decision));
        }
        all
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_unseeded_after_a_sum_made_for_another_key_waits_for_one_that_names_theirs() {
        for (key, decision) in said_of(&["one", "two", "three", "two", "four", "five"]).await {
            assert!(matches!(decision, Decision::Granted(_)), "{key}: {decision:?}");
        }
    }
}
