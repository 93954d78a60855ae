//! edge: what a batch's driver asks of the ingress that it runs in.

use super::lines::SEGMENT_LINES_MAX;
use super::publish::{self, Batched};
use crate::gate::Gate;
use bytes::Bytes;
use shared::broker::Broker;
use shared::clock::{self, Time};
use shared::domain::{Lane, RequestId};
use shared::error::Failure;
use shared::identity::Caller;
use shared::jobs::Batch;
use shared::wire::JobRef;
use std::sync::Arc;

/// Makes a line's request of its place, its id and its body, or says what its caller would be told.
pub type Composer<'a> = Box<dyn Fn(JobRef, RequestId, Bytes) -> Result<Batched, Failure> + Send + 'a>;

/// Two things are behind this: an ingress, and the simulation of one.
pub trait Yard: Send + Sync {
    fn broker(&self) -> &Arc<dyn Broker>;

    fn now(&self) -> Time;

    fn unix_ms(&self) -> u64;

    /// Bytes of the longest line that may be a request.
    fn line_bytes_max(&self) -> usize;

    fn segment_lines_max(&self) -> usize {
        SEGMENT_LINES_MAX
    }

    /// For the lines of a batch, with the rights that whoever created it has now.
    fn composer<'a>(&'a self, batch: &'a Batch) -> Composer<'a>;

    /// Nobody waits for these any more.
    fn call_off(&self, ids: Vec<RequestId>);
}

impl Yard for Gate {
    fn broker(&self) -> &Arc<dyn Broker> {
        &self.road.broker
    }

    fn now(&self) -> Time {
        clock::now()
    }

    fn unix_ms(&self) -> u64 {
        clock::unix_ms()
    }

    fn line_bytes_max(&self) -> usize {
        self.config.limits.body_bytes_max
    }

    fn composer<'a>(&'a self, batch: &'a Batch) -> Composer<'a> {
        let caller = caller(self, batch);
        Box::new(move |of, id, body| publish::compose(self, caller.as_ref(), batch, of, id, body))
    }

    fn call_off(&self, ids: Vec<RequestId>) {
        self.road.call_off(ids);
    }
}

fn caller(gate: &Gate, Batch { tenant, role, key, scope, op, .. }: &Batch) -> Result<Caller, Failure> {
    let scope = scope.clone().map(Arc::new);
    let caller = gate.directory().acting(tenant, role, key.as_deref(), scope, clock::unix_seconds())?;
    caller.may_call(*op, Lane::Bulk)?;
    Ok(caller)
}
