//! edge: what of a redelivered frame has its outcome already: it is taken out, so that only the rest runs.

use shared::broker::{Broker, BrokerError, Delivery};
use shared::domain::Token;
use shared::jobs::{self, Outcome, StoreError};
use shared::wire::{Envelope, FrameWriter, JobRef, Part, decode};
use std::collections::HashMap;
use std::sync::Arc;

/// The delivery without the requests that have ended; nothing, and the frame acked, when all have. A frame that comes for the
/// first time is passed as it is.
///
/// # Errors
/// `Unavailable`: it comes again.
pub async fn trim(broker: &Arc<dyn Broker>, delivery: Delivery) -> Result<Option<Delivery>, BrokerError> {
    let Ok(parts) = decode(&delivery.frame) else { return Ok(Some(delivery)) }; // The owner says so, and drops it.
    let may_have_ended = delivery.attempt > 1 || parts.first().and_then(reference).is_some_and(|(_, of)| of.again);
    if !may_have_ended {
        return Ok(Some(delivery));
    }
    let mut known: HashMap<(Token, u32), Vec<Outcome>> = HashMap::new();
    let (mut writer, mut left) = (FrameWriter::new(), 0);
    for part in &parts {
        let ended = match reference(part) {
            Some((tenant, of)) => has_ended(broker.as_ref(), &mut known, &tenant, &of).await?,
            None => false,
        };
        if !ended {
            writer.push(part);
            left += 1;
        }
    }
    if left == parts.len() {
        return Ok(Some(delivery));
    }
    tracing::info!(ended = parts.len() - left, left, "a frame came again: what of it has its outcome is not run again");
    if left == 0 {
        broker.ack_verified(&delivery.token).await?;
        return Ok(None);
    }
    Ok(Some(Delivery { frame: writer.take(), ..delivery }))
}

fn reference(part: &Part) -> Option<(Box<str>, JobRef)> {
    let envelope: Envelope = part.decode().ok()?;
    Some((envelope.tenant, *envelope.job?))
}

async fn has_ended(
    broker: &dyn Broker,
    known: &mut HashMap<(Token, u32), Vec<Outcome>>,
    tenant: &str,
    of: &JobRef,
) -> Result<bool, BrokerError> {
    let place = (of.job.clone(), of.part);
    if !known.contains_key(&place) {
        let outcomes = jobs::outcomes(broker, &jobs::topic(&of.job, of.part)).await?;
        known.insert(place.clone(), outcomes.into_iter().map(|(outcome, _)| outcome).collect());
    }
    let Some(outcome) = known[&place].iter().find(|outcome| outcome.row == of.row) else { return Ok(false) };
    if !of.line {
        end(broker, tenant, of, outcome).await?;
    }
    Ok(true)
}

/// Whoever wrote the outcome did not live to end the job.
async fn end(broker: &dyn Broker, tenant: &str, of: &JobRef, outcome: &Outcome) -> Result<(), BrokerError> {
    match jobs::conclude(broker, tenant, &of.job, &jobs::end(outcome)).await {
        Err(StoreError::Broker(error)) => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
