//! edge: who drives a batch, on its record: taken with a lease, and given an end without a driver where its input is gone.

use super::driver::{OPEN_MAX, index};
use super::output;
use super::segment::row_id;
use super::yard::Yard;
use shared::broker::{Broker, BrokerError, Journal, Topic};
use shared::domain::{RequestId, Token};
use shared::error::{Code, Failure};
use shared::jobs::{self, Batch, BatchState, StoreError, Stored};

/// Puts on record that whoever has the lease `fence` drives the batch from now on.
///
/// # Errors
/// `Conflict` when it has ended, or somebody with a later lease drives it; those of the store.
pub async fn claim(broker: &dyn Broker, batch: &Batch, fence: u64, lines: u64, now_ms: u64) -> Result<Stored<Batch>, StoreError> {
    let claimed = jobs::change(broker, &batch.tenant, &batch.id, |batch: &mut Batch| {
        if batch.state.is_terminal() || batch.driver >= fence {
            return false;
        }
        batch.driver = fence;
        if batch.state == BatchState::Validating {
            (batch.state, batch.in_progress_ms, batch.counts.total) = (BatchState::InProgress, Some(now_ms), lines);
        }
        true
    });
    let claimed = claimed.await?;
    if claimed.value.driver == fence { Ok(claimed) } else { Err(BrokerError::Conflict.into()) }
}

/// Ends a batch whose input is not there any more, for whoever has the lease `fence`: nobody waits for its lines under way.
///
/// # Errors
/// `Conflict` when it has ended, or somebody with a later lease drives it; those of the store.
pub(super) async fn fail(yard: &dyn Yard, batch: &Batch, fence: u64) -> Result<Batch, StoreError> {
    let (broker, now_ms) = (yard.broker().as_ref(), yard.unix_ms());
    output::show(broker, batch).await?; // First: who reads that it has ended reads its files next.
    let failed = jobs::change(broker, &batch.tenant, &batch.id, |batch: &mut Batch| {
        let fails = !batch.state.is_terminal() && batch.driver <= fence;
        if fails {
            (batch.driver, batch.state, batch.ended_ms) = (fence, BatchState::Failed, Some(now_ms));
            batch.failure = Some(Box::new(input_gone()));
        }
        fails
    });
    let failed = failed.await?.value;
    if (failed.driver, failed.state) != (fence, BatchState::Failed) {
        return Err(BrokerError::Conflict.into());
    }
    yard.call_off(under_way(&failed, index(yard.segment_lines_max())));
    erase_results(broker, &failed.id).await;
    tracing::warn!(batch = %failed.id, tenant = %failed.tenant, "a batch has failed: its input file is gone");
    Ok(failed)
}

fn input_gone() -> Failure {
    let message = "The input file was deleted before the batch had read it: upload it again, and create another batch";
    Failure::new(Code::NotFound, message).param("input_file_id")
}

/// The lines that may be under way, and some that are not: which are there only the input says.
fn under_way(batch: &Batch, rows_max: u32) -> Vec<RequestId> {
    let segments = (batch.settled..).take(OPEN_MAX);
    segments.flat_map(|segment| (0..rows_max).map(move |row| row_id(&batch.id, segment, row))).collect()
}

/// Removes what came of the lines of a batch that has ended. Best effort: what stays ages away.
pub(super) async fn erase_results(broker: &dyn Broker, batch: &Token) {
    if let Err(error) = broker.erase(Journal::Results, &Topic::from(batch), None).await {
        tracing::debug!(%error, "the results of a batch were left to age away");
    }
}
