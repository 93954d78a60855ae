//! loop: sees to it that each batch that has not ended is driven by somebody: follows their records, takes leases, runs drivers.

use super::driver::Driver;
use super::tenure::{claim, fail};
use crate::gate::Gate;
use crate::jobs::notify;
use crate::lease::Lease;
use shared::broker::{BrokerError, Bucket, Feed, Follower, Since};
use shared::clock;
use shared::domain::Token;
use shared::jobs::{self, Batch, File, StoreError, Stored};
use shared::task::{self, Guarded};
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

/// Batches that one ingress drives at once. The others wait, in the order in which they came.
const DRIVEN_MAX: usize = 16;

/// How often leases that others hold are tried, and drivers that broke off are begun again.
const ROUND: Duration = Duration::from_secs(1);

/// Batches that have not ended, of all tenants: those past it wait until others have ended.
const KNOWN_MAX: usize = 100_000;

/// Runs until it is dropped, which gives up all that it drives: their leases run out.
pub(crate) async fn run(gate: Arc<Gate>) {
    loop {
        if let Err(error) = watch(&gate).await {
            tracing::warn!(%error, "the records of batches cannot be followed; trying again");
        }
        tokio::time::sleep(ROUND).await;
    }
}

async fn watch(gate: &Arc<Gate>) -> Result<(), BrokerError> {
    let mut follower = gate.broker().follow(&Feed::Records(Bucket::Batches, None), Since::Start).await?;
    let mut desk = Desk { gate: Arc::clone(gate), waiting: BTreeMap::new(), driven: HashMap::new(), tried: None };
    loop {
        desk.take_up(follower.as_mut()).await?;
        desk.assign();
    }
}

/// When a batch was created, and its id: the order in which they are taken.
type Place = (u64, Token);

struct Desk {
    gate: Arc<Gate>,
    /// Batches that have not ended, with their tenants.
    waiting: BTreeMap<Place, Box<str>>,
    driven: HashMap<Token, Guarded>,
    /// The one that was tried last: with another ingress at work, the first of them are often taken.
    tried: Option<Place>,
}

impl Desk {
    /// Takes in what has changed, for a round.
    async fn take_up(&mut self, follower: &mut dyn Follower) -> Result<(), BrokerError> {
        let mut wait = ROUND;
        loop {
            match follower.next(wait).await {
                Ok(Some(entry)) => {
                    match jobs::of_entry::<Batch>(&entry) {
                        Ok(Some(stored)) => self.note(&stored.value),
                        Ok(None) => {}
                        Err(error) => tracing::error!(%error, "a batch's record is passed over"),
                    }
                    if !entry.more {
                        return Ok(());
                    }
                    wait = Duration::ZERO;
                }
                Ok(None) | Err(BrokerError::Unavailable(_)) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn note(&mut self, batch: &Batch) {
        let place = (batch.created_ms, batch.id.clone());
        if batch.state.is_terminal() {
            self.waiting.remove(&place);
        } else if self.waiting.len() < KNOWN_MAX {
            self.waiting.insert(place, batch.tenant.clone());
        }
    }

    fn assign(&mut self) {
        self.driven.retain(|_, driver| !driver.is_finished());
        let after = self.tried.take().map_or(Bound::Unbounded, Bound::Excluded);
        let behind = self.waiting.range((after, Bound::Unbounded));
        for (place, tenant) in behind.chain(&self.waiting).take(self.waiting.len()) {
            if self.driven.len() >= DRIVEN_MAX {
                return;
            }
            if !self.driven.contains_key(&place.1) {
                let driver = drive(Arc::clone(&self.gate), tenant.clone(), place.1.clone());
                self.driven.insert(place.1.clone(), task::spawn_guarded("batch", driver));
                self.tried = Some(place.clone());
            }
        }
    }
}

/// Drives a batch if nobody else does.
async fn drive(gate: Arc<Gate>, tenant: Box<str>, id: Token) {
    let lease = match Lease::take(&gate.road.broker, &id, &gate.road.id).await {
        Ok(Some(lease)) => lease,
        Ok(None) => return,
        Err(error) => return tracing::debug!(%error, batch = %id, "a batch's lease cannot be taken now"),
    };
    let fence = lease.revision();
    match lease.during(take_on(&gate, &tenant, &id, fence)).await {
        Some(Ok(())) => {}
        Some(Err(error)) => tracing::warn!(%error, batch = %id, "a batch is interrupted; it is taken up again"),
        None => tracing::warn!(batch = %id, "a batch's lease was lost; whoever has it goes on"),
    }
}

async fn take_on(gate: &Arc<Gate>, tenant: &str, id: &Token, fence: u64) -> Result<(), StoreError> {
    let Some(stored) = jobs::get::<Batch>(gate.broker(), tenant, id).await? else { return Ok(()) };
    if stored.value.state.is_terminal() {
        return Ok(());
    }
    let ended = match jobs::get::<File>(gate.broker(), tenant, &stored.value.input).await? {
        Some(Stored { value: file, .. }) => {
            let claimed = claim(gate.broker(), &stored.value, fence, file.lines, clock::unix_ms()).await?;
            Driver::resume(Arc::<Gate>::clone(gate), claimed, file).await?.run().await?
        }
        None => fail(gate.as_ref(), &stored.value, fence).await?,
    };
    notify::of_batch(gate, &ended).await // If this process ends first, the sweeper does.
}
