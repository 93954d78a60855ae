//! Batch in, answers out: a worker takes batches it has credit for, calls its backends and streams the answers back.

mod accept;
pub mod backend;
#[cfg(feature = "local")]
pub mod local;
mod metrics;
mod parcels;
mod run;
pub mod sandbox;
mod service;
#[doc(hidden)]
pub mod simulated;
mod spoken;
mod table;
pub mod usage;

pub use service::{StartError, Worker};
