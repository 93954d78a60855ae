//! edge: which ledger counts: this process's own, or one that all schedulers share.

use shared::domain::RequestId;
use shared::quota::fallback::SharedLedger;
use shared::quota::memory::MemoryLedger;
use shared::quota::{Look, Reserve, Seed, Seeded, Settle, Turn};
use std::sync::Arc;

#[derive(Clone)]
pub enum Ledger {
    /// Counts for this process alone: right where one scheduler owns every model.
    Own(Arc<MemoryLedger>),
    /// In Redis, for all schedulers.
    Shared(Arc<SharedLedger>),
}

impl Ledger {
    /// This process's own, which answers at once.
    pub(super) fn own(&self) -> Option<&MemoryLedger> {
        match self {
            Self::Own(ledger) => Some(ledger),
            Self::Shared(_) => None,
        }
    }

    /// Settles, then reserves, each in the order told.
    pub(super) async fn turn(&self, ended: &[Settle], asked: &[Reserve]) -> Turn {
        match self {
            Self::Own(ledger) => Turn {
                settled: ended.iter().map(|ended| ledger.settle(ended)).collect(),
                decisions: asked.iter().map(|asked| ledger.reserve(asked)).collect(),
            },
            Self::Shared(ledger) => ledger.turn(ended, asked).await,
        }
    }

    pub(super) async fn renew(&self, tenant: &str, ids: &[RequestId]) {
        match self {
            Self::Own(ledger) => ledger.renew(tenant, ids),
            Self::Shared(ledger) => ledger.renew(tenant, ids).await,
        };
    }

    /// The live usage of a tenant and of the keys asked for, and whether it is that of all schedulers together.
    pub(crate) async fn look(&self, tenant: &str, keys: &[Arc<str>]) -> (Look, bool) {
        match self {
            Self::Own(ledger) => (ledger.look(tenant, keys), false),
            Self::Shared(ledger) => (ledger.look(tenant, keys).await, !ledger.is_away()),
        }
    }

    pub(super) async fn seed(&self, seed: &Seed) -> Seeded {
        match self {
            Self::Own(ledger) => ledger.seed(seed),
            Self::Shared(ledger) => ledger.seed(seed).await,
        }
    }
}
