//! edge: tells an ingress how a tenant stands within its limits, for the administration.

use crate::quota::Ledger;
use bytes::Bytes;
use shared::broker::Address;
use shared::domain::NodeId;
use shared::outbox::Outbox;
use shared::task;
use shared::wire::{AskLook, Looked, ToIngress};
use std::sync::Arc;

/// Keys answered for in one look: more than a tenant has that limits of their own. One turn of the ledger reads them all.
const KEYS_MAX: usize = 1_000;

#[derive(Clone)]
pub(crate) struct Looks {
    pub(crate) id: NodeId,
    pub(crate) ledger: Ledger,
    pub(crate) outbox: Outbox,
}

impl Looks {
    /// Looks and answers, beside the caller. An answer that is lost is one that the ingress does without.
    pub(crate) fn answer(&self, asked: AskLook) {
        let looks = self.clone();
        task::spawn("look", async move {
            let keys: Vec<Arc<str>> = asked.keys.iter().take(KEYS_MAX).map(|key| Arc::from(&**key)).collect();
            let (look, shared) = looks.ledger.look(&asked.tenant, &keys).await;
            let looked = Looked { ask: asked.ask, from: looks.id, shared, look };
            looks.outbox.post(Address::Ingress(asked.from), &ToIngress::Looked(looked), Bytes::new());
        });
    }
}
