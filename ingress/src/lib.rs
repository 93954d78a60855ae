//! HTTP in, envelope out, answer back.
//!
//! Read `chat.rs` first: one request's road from its bytes to its answer. Then, in call order:
//! `entry.rs` (who is calling, may they, the body), `compose.rs` with `check/` (is the body sound, for which model), `road.rs` (out to the lane, back from
//! the inbox) with `table.rs` and `pending.rs` (what is waited for, and when it is lost), `answer.rs` (back to the caller). `admin.rs` is another
//! listener's: who may call at all, who changed that, and what was used.

mod admin;
mod admission;
mod answer;
mod auth;
mod backoff;
mod batches;
mod bodies;
mod body;
mod chat;
mod check;
mod claim;
mod compose;
mod entry;
mod exchange;
mod files;
mod forecasts;
mod gate;
mod headers;
mod idempotency;
mod jobs;
mod jwt;
mod lease;
mod listing;
mod looks;
#[doc(hidden)]
pub mod measured;
mod metrics;
mod missing;
mod models;
mod native;
mod patience;
mod peers;
mod pending;
mod probes;
mod publisher;
mod pulse;
mod query;
mod rate_limit;
mod refusal;
mod refusals;
mod responses;
mod road;
mod routes;
mod server;
mod service;
#[doc(hidden)]
pub mod simulated;
mod strangers;
mod table;
mod ticket;
mod tls;
mod webhooks;

pub use jwt::SourceError;
pub use service::{Ingress, StartError};
