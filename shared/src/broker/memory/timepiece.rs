//! core: whose time a broker in process keeps: this process's, or one that a simulation tells.

use super::records::Now;
use crate::clock::{self, Time};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[derive(Clone, Debug, Default)]
pub(super) enum Timepiece {
    #[default]
    Process,
    /// Microseconds, and so the wall's since 1970.
    Told(Arc<AtomicU64>),
}

impl Timepiece {
    pub(super) fn now(&self) -> Time {
        match self {
            Self::Process => clock::now(),
            Self::Told(micros) => Time(micros.load(Ordering::Relaxed)),
        }
    }

    pub(super) fn unix(&self) -> Duration {
        match self {
            Self::Process => clock::unix(),
            Self::Told(micros) => Duration::from_micros(micros.load(Ordering::Relaxed)),
        }
    }

    pub(super) fn both(&self) -> Now {
        (self.now(), self.unix())
    }
}
