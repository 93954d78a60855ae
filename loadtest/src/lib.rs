//! The load generator's parts, which the end-to-end tests share: an HTTP client, child processes, closed loops of callers.
//!
//! Speaks HTTP only and knows nothing of Tidemill's inside, so that it measures any gateway alike.

pub mod batching;
pub mod child;
pub mod client;
pub mod clock;
pub mod load;
pub mod nats;
pub mod report;
pub mod sse;
pub mod tag;
pub mod texts;
pub mod work;
