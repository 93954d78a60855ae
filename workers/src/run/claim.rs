//! edge: fetches the body of a request that was too large for a frame, and checks that it is the one that was left.

use super::Job;
use bytes::Bytes;
use shared::broker::{Broker, BrokerError, Store};
use shared::clock::{self, Time};
use shared::error::{Code, Failure};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long after a store that did not answer it is asked again.
const PAUSE: Duration = Duration::from_secs(1);

/// The request's body: as it came, or from the blob store by its claim check. A store that is away is asked until then.
///
/// # Errors
/// `broker_unavailable` when it cannot be read by then, `lost` when it is gone or not the one that was left.
pub(super) async fn body(broker: &dyn Broker, job: &Job, until: Time) -> Result<Bytes, Failure> {
    let envelope = &job.envelope;
    let Some(claim) = &envelope.claim else { return Ok(job.body.clone()) };
    let store = if claim.kept { Store::Files } else { Store::Claims };
    let asked = ask(|| broker.blob_get(store, &claim.key), &job.cancel, until).await;
    let blob = asked.map_err(|error| {
        tracing::warn!(%error, request = %envelope.id, "a claimed body cannot be read");
        let told = "The request's body could not be read back from the queue's store; try again.";
        Failure::new(Code::BrokerUnavailable, told).retry_after_ms(1_000)
    })?;
    let blob = blob.filter(|blob| blake3::hash(blob).as_bytes()[..] == claim.hash[..]);
    blob.ok_or_else(|| Failure::new(Code::Lost, "The request's body was lost on its way to the worker; send the request again."))
}

/// What the store answers, asked again and again until then, or until nobody waits for it any more.
async fn ask<T, F>(get: impl Fn() -> F, cancel: &CancellationToken, until: Time) -> Result<T, BrokerError>
where
    F: Future<Output = Result<T, BrokerError>>,
{
    loop {
        match get().await {
            Err(error) if cancel.is_cancelled() || clock::now() + PAUSE >= until => return Err(error),
            Err(error) => tracing::debug!(%error, "a claimed body is asked for again"),
            answered => return answered,
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// What came of a store that is away for so many questions, after how many questions and how long.
    async fn asked(away: u32, cancel: CancellationToken, patience: Duration) -> (bool, u32, Duration) {
        let (began, asked) = (clock::now(), AtomicU32::new(0));
        let get = || {
            let n = asked.fetch_add(1, Ordering::Relaxed);
            std::future::ready(if n < away { Err(BrokerError::Unavailable("it is away".into())) } else { Ok(()) })
        };
        let answer = ask(get, &cancel, began + patience).await;
        (answer.is_ok(), asked.load(Ordering::Relaxed), clock::now().since(began))
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_is_away_is_asked_until_it_answers() {
        assert_eq!(asked(3, CancellationToken::new(), 10 * PAUSE).await, (true, 4, 3 * PAUSE));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_longer_for_it_than_for_the_answer() {
        assert_eq!(asked(99, CancellationToken::new(), 3 * PAUSE).await, (false, 3, 2 * PAUSE));
        let cancelled = CancellationToken::new();
        cancelled.cancel();
        assert_eq!(asked(99, cancelled, 10 * PAUSE).await, (false, 1, Duration::ZERO));
    }
}
