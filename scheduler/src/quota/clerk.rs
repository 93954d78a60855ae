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
                Order::Renew(tenant, ids) => self.ledger.renew(&tenant, &ids).await,
                Order::Ring(ring) => {
                    self.turn(&mut ended, &mut asked).await;
                    let _ = ring.send(()); // Whoever waited may have given up.
                }
            }
        }
        self.turn(&mut ended, &mut asked).await;
    }

    async fn turn(&mut self, ended: &mut Vec<Settle>, asked: &mut Vec<Reserve>) {
        if ended.is_empty() && asked.is_empty() {
            return;
        }
        let turn = self.ledger.turn(ended, asked).await;
        turn.settled.into_iter().for_each(|settled| self.metrics.settled(settled));
        for (asked, decision) in asked.drain(..).zip(turn.decisions) {
            match decision {
                Decision::Unseeded => self.park(asked, 1),
                decision => (self.tell)(Verdict::of(&asked, decision)),
            }
        }
        ended.clear();
    }

    /// It waits for a sum, which is its `round`th.
    fn park(&mut self, asked: Reserve, round: u8) {
        let tenant = Arc::clone(&asked.tenant);
        if let Some((parked, _)) = self.parked.get_mut(&tenant) {
            return parked.push(asked);
        }
        if self.parked.len() == SEEDINGS_MAX {
            return (self.tell)(Verdict::of(&asked, Decision::Unseeded));
        }
        self.seedings.push(seed(self.ledger.clone(), Arc::clone(&self.broker), Arc::clone(&tenant), asked.key.clone()).boxed());
        self.parked.insert(tenant, (vec![asked], round));
    }

    async fn seeded(&mut self, (tenant, seeded): Seeded) {
        self.unpark(&tenant, seeded).await;
        if seeded && self.confirmations.len() < SEEDINGS_MAX {
            self.confirmations.push(confirm(self.ledger.clone(), Arc::clone(&self.broker), tenant).boxed());
        }
    }

    /// Asks again for those that waited. Who is unseeded still waits for another sum: a key that the last one did not name, the day
    /// has just changed, or Redis came or went meanwhile.
    async fn unpark(&mut self, tenant: &Arc<str>, seeded: bool) {
        let (waited, round) = self.parked.remove(tenant).unwrap_or_default();
        if !seeded {
            return waited.iter().for_each(|asked| (self.tell)(Verdict::of(asked, Decision::Unseeded)));
        }
        let decisions = self.ledger.turn(&[], &waited).await.decisions;
        for (asked, decision) in waited.into_iter().zip(decisions) {
            match decision {
                Decision::Unseeded if round < ROUNDS_MAX => self.park(asked, round + 1),
                decision => (self.tell)(Verdict::of(&asked, decision)),
            }
        }
    }
}

async fn seed(ledger: Ledger, broker: Arc<dyn Broker>, tenant: Arc<str>, key: Option<Arc<str>>) -> Seeded {
    match seeding::sum(&*broker, &tenant, key.as_ref(), false).await {
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
    match seeding::sum(&*broker, &tenant, None, true).await {
        Ok(sum) => drop(ledger.seed(&sum).await),
        Err(error) => tracing::warn!(%error, "what a tenant has used could not be summed once more: its last moments may not be counted"),
    }
}
