//! core: the books of the calls that failed: how often each request was tried, and whether that is enough for it to fail.

use crate::spec::Spec;
use shared::domain::{Lane, RequestId};
use shared::error::{Code, Failure};
use shared::wire::Fault;
use std::collections::BTreeMap;
use std::time::Duration;

/// Bad ends in a row that shut a backend, if each of them was a timeout.
const SHUT_AFTER: u32 = 3;

/// A caller on the line does not wait longer for a backend that is left alone.
const PATIENCE_MS: u32 = 2_000;

/// Calls after which a request fails.
const fn calls_max(lane: Lane) -> u32 {
    match lane {
        Lane::Interactive => 3,
        Lane::Async => 5,
        Lane::Bulk => 8,
    }
}

#[derive(Default)]
pub(crate) struct Tries {
    of: BTreeMap<RequestId, Tried>,
    calls: u32,
    /// A backend asked to be left alone for longer than a caller waits.
    has_rested: bool,
}

#[derive(Clone, Copy, Default)]
struct Tried {
    failed: u32,
    /// Once, in a way that no other try cures.
    for_good: bool,
}

impl Tries {
    pub(crate) fn call_failed(&mut self, failure: &Failure) {
        self.calls += 1;
        self.has_rested |= failure.retry_after_ms.is_some_and(|ms| ms > PATIENCE_MS);
    }

    /// A request was in a call that failed, and was not called again there.
    pub(crate) fn failed(&mut self, id: RequestId, fault: Fault) {
        let tried = self.of.entry(id).or_default();
        tried.failed += 1;
        tried.for_good |= !fault.is_curable();
    }

    fn of(&self, id: RequestId) -> Tried {
        self.of.get(&id).copied().unwrap_or_default()
    }

    /// How much a deadline may have moved that goes to and fro as often as the request, if each way takes so long.
    pub(crate) fn drift(&self, id: RequestId, each: Duration) -> Duration {
        each * 2 * self.of(id).failed
    }

    /// Whether a request may end with what its backends said. Who waits on the line does not wait for one that is shut.
    pub(crate) fn allow(&self, spec: &Spec, code: Code) -> bool {
        let Tried { failed, for_good } = self.of(spec.id);
        let is_hopeless = spec.lane == Lane::Interactive && (self.calls >= SHUT_AFTER || self.has_rested);
        match code {
            Code::BackendUnavailable => is_hopeless,
            Code::BackendRejected => spec.guilty && for_good,
            Code::BackendUnreachable | Code::BackendStatus | Code::BackendRateLimited | Code::BackendTimeout | Code::BackendMalformed => {
                for_good || failed >= calls_max(spec.lane) || failed > 0 && (is_hopeless || !spec.patient)
            }
            _ => false,
        }
    }
}
