//! The load generator: scenarios, contenders, a mock backend, and the parts that the end-to-end tests share.
//!
//! Speaks HTTP only and knows nothing of Tidemill's inside, so that it measures any gateway alike.

pub mod arena;
pub mod backend;
pub mod batching;
pub mod child;
pub mod client;
pub mod clock;
pub mod compare;
pub mod connection;
pub mod contender;
pub mod draw;
pub mod exchange;
pub mod growth;
pub mod http1;
pub mod load;
pub mod measure;
pub mod nats;
pub mod plot;
pub mod process;
pub mod relay;
pub mod report;
pub mod scenario;
pub mod schedule;
pub mod sse;
pub mod tag;
pub mod texts;
mod watchdog;
pub mod work;
