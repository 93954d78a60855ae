//! edge: which ledger counts: this process's own, or one that all schedulers share.

use shared::domain::RequestId;
use shared::quota::memory::MemoryLedger;
use shared::quota::{Decision, Reserve, Seed, Seeded, Settle, Settled};
use std::sync::Arc;

#[derive(Clone)]
pub enum Ledger {
    /// Counts for this process alone: right where one scheduler owns every model.
    Own(Arc<MemoryLedger>),
}

impl Ledger {
    /// Decides at once, where that takes no waiting.
    pub(super) fn reserve_here(&self, asked: &Reserve) -> Option<Decision> {
        let Self::Own(ledger) = self;
        Some(ledger.reserve(asked))
    }

    pub(super) fn settle_here(&self, ended: &Settle) -> Option<Settled> {
        let Self::Own(ledger) = self;
        Some(ledger.settle(ended))
    }

    pub(super) fn renew_here(&self, tenant: &Arc<str>, ids: &[RequestId]) -> bool {
        let Self::Own(ledger) = self;
        ledger.renew(tenant, ids);
        true
    }

    pub(super) async fn reserve(&self, asked: &[Reserve]) -> Vec<Decision> {
        let Self::Own(ledger) = self;
        asked.iter().map(|asked| ledger.reserve(asked)).collect()
    }

    pub(super) async fn settle(&self, ended: &[Settle]) -> Vec<Settled> {
        let Self::Own(ledger) = self;
        ended.iter().map(|ended| ledger.settle(ended)).collect()
    }

    pub(super) async fn renew(&self, tenant: &Arc<str>, ids: &[RequestId]) {
        let Self::Own(ledger) = self;
        ledger.renew(tenant, ids);
    }

    pub(super) async fn seed(&self, seed: &Seed) -> Seeded {
        let Self::Own(ledger) = self;
        ledger.seed(seed)
    }
}
