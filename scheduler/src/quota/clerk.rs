//! loop: what has to wait for the ledger, in order: orders in, verdicts out by mail.
//!
//! An account whose budget is not known is seeded from the usage journal by a task of its own, so that nobody else waits
//! for the reading; its requests are parked until then.

use super::{Ledger, Verdict};
use crate::metrics::QuotaMetrics;
use shared::domain::RequestId;
use shared::quota::{Reserve, Settle};
use shared::task::{self, Guarded};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Orders that may wait: each request of an owner's full window, asked for and settled.
const ORDERS_MAX: usize = 16_384;

/// Orders taken up at once, which travel to a shared ledger together.
const ROUND_MAX: usize = 64;

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
    pub(super) fn start(ledger: Ledger, metrics: QuotaMetrics, tell: impl Fn(Verdict) + Send + Sync + 'static) -> Self {
        let (orders, queue) = mpsc::channel(ORDERS_MAX);
        let desk = Desk { ledger, metrics, tell };
        Self { orders, _task: task::spawn_guarded("quota", desk.run(queue)) }
    }

    /// An order too many is dropped: a request is then not placed and expires, a reservation runs out.
    pub(super) fn order(&self, order: Order) {
        if self.orders.try_send(order).is_err() {
            tracing::warn!("an order for the quota ledger was dropped: too many wait for it");
        }
    }
}

struct Desk<F> {
    ledger: Ledger,
    metrics: QuotaMetrics,
    tell: F,
}

impl<F: Fn(Verdict) + Send + Sync> Desk<F> {
    async fn run(self, mut orders: mpsc::Receiver<Order>) {
        let mut round = Vec::with_capacity(ROUND_MAX);
        while orders.recv_many(&mut round, ROUND_MAX).await > 0 {
            self.work(round.drain(..)).await;
        }
    }

    /// Neighbours of one kind go to the ledger together; kinds keep their order.
    async fn work(&self, round: impl Iterator<Item = Order>) {
        let (mut asked, mut ended) = (Vec::new(), Vec::new());
        for order in round {
            match order {
                Order::Reserve(reserve) => {
                    self.settle(&mut ended).await;
                    asked.push(reserve);
                }
                Order::Settle(settle) => {
                    self.reserve(&mut asked).await;
                    ended.push(settle);
                }
                Order::Renew(tenant, ids) => self.ledger.renew(&tenant, &ids).await,
                Order::Ring(ring) => {
                    self.reserve(&mut asked).await;
                    self.settle(&mut ended).await;
                    let _ = ring.send(()); // Whoever waited may have given up.
                }
            }
        }
        self.reserve(&mut asked).await;
        self.settle(&mut ended).await;
    }

    async fn reserve(&self, asked: &mut Vec<Reserve>) {
        if asked.is_empty() {
            return;
        }
        let decisions = self.ledger.reserve(asked).await;
        for (asked, decision) in asked.drain(..).zip(decisions) {
            (self.tell)(Verdict::of(&asked, decision));
        }
    }

    async fn settle(&self, ended: &mut Vec<Settle>) {
        if ended.is_empty() {
            return;
        }
        let settled = self.ledger.settle(ended).await;
        settled.into_iter().for_each(|settled| self.metrics.settled(settled));
        ended.clear();
    }
}
