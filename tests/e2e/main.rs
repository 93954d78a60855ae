//! The end-to-end tests: one file for each promise, all against the real executable. `harness` starts and judges it.

mod admin;
mod backend_failure;
mod background;
mod bad_input;
mod batches;
mod chaos;
mod comparison;
mod compose;
mod dead_letters;
mod deferred;
mod drain;
mod embed;
mod embed_many;
mod fairness;
mod faults;
mod harness;
mod identity;
mod kills;
mod limits;
mod night;
mod quickstart;
mod redis_trouble;
mod sdk;
mod shared_limits;
mod tls;
mod webhooks;
