//! core: how many requests may be in flight, in all and of one tenant. A permit is a guard: dropping it makes room.

use crate::auth::TenantIndex;
use prometheus::IntGauge;
use shared::config::Limits;
use shared::error::{Code, Failure};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What a semaphore can count and wait for at once.
const PERMITS_MAX: usize = u32::MAX as usize >> 3;

pub(crate) struct Admission {
    all: Arc<Semaphore>,
    all_max: u32,
    by_tenant: Vec<Arc<Semaphore>>,
    in_flight: IntGauge,
    draining: AtomicBool,
}

/// One request's place.
pub(crate) struct Permit {
    _all: OwnedSemaphorePermit,
    _tenant: OwnedSemaphorePermit,
    in_flight: IntGauge,
}

impl Admission {
    /// `in_flight` is kept at the number of permits given out.
    pub(crate) fn new(limits: &Limits, tenants: usize, in_flight: IntGauge) -> Self {
        let all_max = limits.in_flight_max.min(PERMITS_MAX);
        let tenant_max = limits.in_flight_per_tenant_max.min(PERMITS_MAX);
        Self {
            all: Arc::new(Semaphore::new(all_max)),
            all_max: u32::try_from(all_max).expect("PERMITS_MAX is a u32"),
            by_tenant: (0..tenants).map(|_| Arc::new(Semaphore::new(tenant_max))).collect(),
            in_flight,
            draining: AtomicBool::new(false),
        }
    }

    /// # Errors
    /// `draining`, or `too_many_in_flight`.
    pub(crate) fn admit(&self, tenant: TenantIndex) -> Result<Permit, Failure> {
        if self.is_draining() {
            return Err(Failure::new(Code::Draining, "This server is shutting down: try again, at another").retry_after_ms(1_000));
        }
        let of_tenant = Arc::clone(&self.by_tenant[tenant]).try_acquire_owned();
        let tenant = of_tenant.map_err(|_| too_many("Too many of your requests are in flight: wait for some to end"))?;
        let of_all = Arc::clone(&self.all).try_acquire_owned();
        let all = of_all.map_err(|_| too_many("Too many requests are in flight here: try again"))?;
        self.in_flight.inc();
        Ok(Permit { _all: all, _tenant: tenant, in_flight: self.in_flight.clone() })
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

fn too_many(message: &str) -> Failure {
    Failure::new(Code::TooManyInFlight, message).retry_after_ms(1_000)
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.in_flight.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission() -> Admission {
        let limits = Limits { in_flight_max: 3, in_flight_per_tenant_max: 2, ..Limits::default() };
        Admission::new(&limits, 3, IntGauge::new("in_flight", "x").unwrap())
    }

    #[test]
    fn a_tenant_and_the_whole_have_their_own_bounds() {
        let admission = admission();
        let held = [admission.admit(0).unwrap(), admission.admit(0).unwrap()];
        assert_eq!(admission.admit(0).err().unwrap().code, Code::TooManyInFlight);
        let other = admission.admit(1).unwrap();
        let full = admission.admit(2).err().unwrap();
        assert_eq!((full.code, full.retry_after_ms), (Code::TooManyInFlight, Some(1_000)));
        assert_eq!(admission.in_flight.get(), 3);
        drop((held, other));
        assert_eq!(admission.in_flight.get(), 0);
        assert!(admission.admit(2).is_ok(), "a refused request has left no permit behind");
    }

    #[tokio::test]
    async fn draining_admits_nobody_and_ends_when_the_last_has_gone() {
        let admission = admission();
        let last = admission.admit(0).unwrap();
        admission.close();
        assert_eq!(admission.admit(1).err().unwrap().code, Code::Draining);
        let mut idle = Box::pin(admission.idle());
        assert!(futures::poll!(idle.as_mut()).is_pending());
        drop(last);
        idle.await;
    }
}
