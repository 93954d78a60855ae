//! core: how many requests may be in flight, in all and of one tenant. A permit is a guard: dropping it makes room.

use foldhash::HashMap;
use foldhash::fast::FixedState;
use prometheus::IntGauge;
use shared::config::Limits;
use shared::error::{Code, Failure};
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What a semaphore can count and wait for at once.
const PERMITS_MAX: usize = u32::MAX as usize >> 3;

/// So many that two cores seldom want the same lock.
const SHARDS: usize = 16;

pub(crate) struct Admission {
    all: Arc<Semaphore>,
    all_max: u32,
    tenants: Arc<Tenants>,
    in_flight: IntGauge,
    draining: AtomicBool,
}

/// The requests in flight of each tenant that has any: tenants come and go, and there are never more of them here than
/// requests in flight.
struct Tenants {
    max: usize,
    shards: [Mutex<HashMap<Arc<str>, usize>>; SHARDS],
}

/// One request's place.
pub(crate) struct Permit {
    _all: OwnedSemaphorePermit,
    _tenant: TenantPermit,
    in_flight: IntGauge,
}

struct TenantPermit {
    name: Arc<str>,
    tenants: Arc<Tenants>,
}

impl Admission {
    /// `in_flight` is kept at the number of permits given out.
    pub(crate) fn new(limits: &Limits, in_flight: IntGauge) -> Self {
        let all_max = limits.in_flight_max.min(PERMITS_MAX);
        Self {
            all: Arc::new(Semaphore::new(all_max)),
            all_max: u32::try_from(all_max).expect("PERMITS_MAX is a u32"),
            tenants: Arc::new(Tenants { max: limits.in_flight_per_tenant_max, shards: Default::default() }),
            in_flight,
            draining: AtomicBool::new(false),
        }
    }

    /// # Errors
    /// `draining`, or `too_many_in_flight`.
    pub(crate) fn admit(&self, tenant: &Arc<str>) -> Result<Permit, Failure> {
        if self.is_draining() {
            return Err(Failure::new(Code::Draining, "This server is shutting down: try again, at another").retry_after_ms(1_000));
        }
        let of_tenant = Tenants::try_acquire(&self.tenants, tenant);
        let of_tenant = of_tenant.ok_or_else(|| too_many("Too many of your requests are in flight: wait for some to end"))?;
        let of_all = Arc::clone(&self.all).try_acquire_owned();
        let all = of_all.map_err(|_| too_many("Too many requests are in flight here: try again"))?;
        self.in_flight.inc();
        Ok(Permit { _all: all, _tenant: of_tenant, in_flight: self.in_flight.clone() })
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Admits nobody from now on.
    pub(crate) fn close(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Waits until nobody is in flight.
    pub(crate) async fn idle(&self) {
        drop(self.all.acquire_many(self.all_max).await);
    }
}

impl Tenants {
    fn try_acquire(this: &Arc<Self>, name: &Arc<str>) -> Option<TenantPermit> {
        let mut counts = this.counts(name);
        if let Some(count) = counts.get_mut(name) {
            if *count >= this.max {
                return None;
            }
            *count += 1;
        } else {
            counts.insert(Arc::clone(name), 1);
        }
        Some(TenantPermit { name: Arc::clone(name), tenants: Arc::clone(this) })
    }

    fn release(&self, name: &Arc<str>) {
        let mut counts = self.counts(name);
        let Some(count) = counts.get_mut(name) else { return };
        *count -= 1;
        if *count == 0 {
            counts.remove(name);
        }
    }

    fn counts(&self, name: &str) -> MutexGuard<'_, HashMap<Arc<str>, usize>> {
        let hash = FixedState::default().hash_one(name);
        let shard = usize::try_from(hash % SHARDS as u64).expect("below the number of shards");
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn too_many(message: &str) -> Failure {
    Failure::new(Code::TooManyInFlight, message).retry_after_ms(1_000)
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.in_flight.dec();
    }
}

impl Drop for TenantPermit {
    fn drop(&mut self) {
        self.tenants.release(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission() -> Admission {
        let limits = Limits { in_flight_max: 3, in_flight_per_tenant_max: 2, ..Limits::default() };
        Admission::new(&limits, IntGauge::new("in_flight", "x").unwrap())
    }

    fn names() -> [Arc<str>; 3] {
        ["a", "b", "c"].map(Arc::from)
    }

    #[test]
    fn a_tenant_and_the_whole_have_their_own_bounds() {
        let (admission, [a, b, c]) = (admission(), names());
        let held = [admission.admit(&a).unwrap(), admission.admit(&a).unwrap()];
        assert_eq!(admission.admit(&a).err().unwrap().code, Code::TooManyInFlight);
        let other = admission.admit(&b).unwrap();
        let full = admission.admit(&c).err().unwrap();
        assert_eq!((full.code, full.retry_after_ms), (Code::TooManyInFlight, Some(1_000)));
        assert_eq!(admission.in_flight.get(), 3);
        drop((held, other));
        assert_eq!(admission.in_flight.get(), 0);
        assert!(admission.tenants.shards.iter().all(|shard| shard.lock().unwrap().is_empty()), "who has no request is forgotten");
        assert!(admission.admit(&c).is_ok(), "a refused request has left no permit behind");
    }

    #[tokio::test]
    async fn draining_admits_nobody_and_ends_when_the_last_has_gone() {
        let (admission, [a, b, _]) = (admission(), names());
        let last = admission.admit(&a).unwrap();
        admission.close();
        assert_eq!(admission.admit(&b).err().unwrap().code, Code::Draining);
        let mut idle = Box::pin(admission.idle());
        assert!(futures::poll!(idle.as_mut()).is_pending());
        drop(last);
        idle.await;
    }
}
