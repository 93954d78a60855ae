//! What two roles need and nothing else: domain types, the wire, the broker port with its two edges,
//! configuration, telemetry, TLS, and the one place each for clock, randomness and task spawning.

pub mod broker;
pub mod calendar;
pub mod clock;
pub mod config;
pub mod domain;
pub mod entropy;
pub mod error;
pub mod gather;
pub mod global;
pub mod hear;
pub mod identity;
pub mod jobs;
pub mod outbox;
pub mod quota;
pub mod task;
pub mod telemetry;
pub mod tls;
pub mod tombstones;
pub mod usage;
pub mod wire;
