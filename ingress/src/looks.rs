//! edge: asks the schedulers how a tenant stands within its limits, because only their ledgers know; for the administration.

use bytes::Bytes;
use shared::broker::Address;
use shared::domain::NodeId;
use shared::entropy;
use shared::outbox::Outbox;
use shared::wire::{AskLook, Looked, ToScheduler};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Time for the answers to come: longer than a scheduler waits for its Redis. Whoever is later is left out.
const WAIT: Duration = Duration::from_secs(6);

pub(crate) struct Looks {
    id: NodeId,
    outbox: Outbox,
    /// Who waits for answers: no more than requests of the administration are under way.
    asked: Mutex<HashMap<u64, mpsc::Sender<Looked>>>,
}

/// Answers are awaited until this is dropped.
struct Question<'a> {
    looks: &'a Looks,
    ask: u64,
}

impl Looks {
    pub(crate) fn new(id: NodeId, outbox: Outbox) -> Self {
        Self { id, outbox, asked: Mutex::default() }
    }

    /// The live usage of a tenant and of its `keys`, in each scheduler's ledger; in one entry where they share it.
    pub(crate) async fn look(&self, schedulers: &[NodeId], tenant: &str, keys: &[Box<str>]) -> Vec<Looked> {
        let (heard, mut answers) = mpsc::channel(schedulers.len().max(1));
        let question = self.ask(heard);
        for scheduler in schedulers {
            let asked = AskLook { ask: question.ask, from: self.id.clone(), tenant: tenant.into(), keys: keys.into() };
            self.outbox.post(Address::Scheduler(scheduler.clone()), &ToScheduler::Look(asked), Bytes::new());
        }
        let mut all = Vec::with_capacity(schedulers.len());
        let gather = async {
            while all.len() < schedulers.len() {
                let Some(answer) = answers.recv().await else { return };
                if answer.shared {
                    all = vec![answer];
                    return;
                }
                all.push(answer);
            }
        };
        let _ = timeout(WAIT, gather).await; // What has come by then is shown.
        all
    }

    /// A scheduler has answered. Nobody may wait for it any more.
    pub(crate) fn heard(&self, looked: Looked) {
        if let Some(waiting) = self.asked().get(&looked.ask) {
            let _ = waiting.try_send(looked); // There is room for one answer of each.
        }
    }

    fn ask(&self, heard: mpsc::Sender<Looked>) -> Question<'_> {
        let ask = entropy::draw();
        self.asked().insert(ask, heard);
        Question { looks: self, ask }
    }

    fn asked(&self) -> MutexGuard<'_, HashMap<u64, mpsc::Sender<Looked>>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        self.looks.asked().remove(&self.ask);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::broker::memory::MemoryBroker;
    use shared::broker::{Attached, Broker};
    use shared::hear::messages;
    use shared::quota::Look;
    use std::sync::Arc;

    fn node(name: &str) -> NodeId {
        NodeId::parse(name).unwrap()
    }

    /// A scheduler that answers each question from its own ledger, or from a shared one.
    async fn scheduler(broker: &Arc<MemoryBroker>, looks: &Arc<Looks>, name: &str, shared: bool) -> Attached {
        let (looks, from) = (Arc::clone(looks), node(name));
        let answer = move |frame: Bytes| {
            for (message, _) in messages::<ToScheduler>(&frame) {
                let ToScheduler::Look(AskLook { ask, .. }) = message else { panic!("{message:?}") };
                looks.heard(Looked { ask, from: from.clone(), shared, look: Look::default() });
            }
        };
        broker.attach(&Address::Scheduler(node(name)), Arc::new(answer)).await.unwrap()
    }

    async fn answered(shared: bool) -> Vec<NodeId> {
        let broker = MemoryBroker::new();
        let looks = Arc::new(Looks::new(node("ingress"), Outbox::new(broker.clone())));
        let _one = scheduler(&broker, &looks, "one", shared).await;
        let _two = scheduler(&broker, &looks, "two", shared).await;
        let all = looks.look(&["one", "two", "gone"].map(node), "t", &[]).await;
        assert!(looks.asked().is_empty(), "nobody waits any more");
        all.into_iter().map(|looked| looked.from).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn each_ledger_is_looked_at_and_one_that_is_silent_is_left_out() {
        assert_eq!(answered(false).await, ["one", "two"].map(node));
    }

    #[tokio::test(start_paused = true)]
    async fn a_ledger_that_all_share_is_shown_once() {
        assert_eq!(answered(true).await, ["one"].map(node));
    }
}
