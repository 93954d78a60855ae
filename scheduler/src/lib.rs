//! Who goes next, with whom, and where: the pure engine, and the service that performs what it decides.

mod acks;
mod alarm;
pub mod engine;
mod fallback;
mod looks;
mod mailbox;
mod metrics;
mod model;
mod outcomes;
mod ownership;
mod pull;
mod quota;
pub mod reservations;
mod service;
mod settled;
#[doc(hidden)]
pub mod simulated;
mod window;

pub use quota::{Ledger, Treasury};
pub use service::Scheduler;
