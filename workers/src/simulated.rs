//! core: what the simulation of the whole system reaches of this crate's inside. For it alone.

pub use crate::accept::accept;
pub use crate::backend::BackendError;
pub use crate::parcels::Parcels;
pub use crate::run::{Begun, Groups, Job, Over, begin_one};
pub use crate::spoken::Spoken;
pub use crate::table::{Entry, Report, Table};

use crate::backend::classify;
use shared::wire::Fault;
use std::time::Duration;

/// What a call comes to that fails so.
pub fn spoilt(fault: Fault, retry_after_ms: Option<u32>) -> BackendError {
    match fault {
        Fault::Connect => classify::unreachable("nobody there".into()),
        Fault::Broken => classify::broken("the peer is gone"),
        Fault::RateLimited => classify::status(429, retry_after_ms, None),
        Fault::Unavailable => classify::status(503, retry_after_ms, None),
        Fault::ServerError => classify::status(500, retry_after_ms, None),
        Fault::Timeout => classify::timed_out(Duration::ZERO),
        Fault::Malformed => classify::malformed(&"no answer"),
        Fault::Missing => classify::status(404, None, None),
        Fault::Denied => classify::status(401, None, None),
        Fault::Rejected => classify::status(400, None, None),
    }
}
