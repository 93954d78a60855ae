//! core: how long each model's queue is, as its owner says. A call that would only be refused at its deadline is refused at
//! once, before it is queued.

use shared::clock::{Time, millis};
use shared::config::Model;
use shared::domain::{Lane, NodeId, Token};
use shared::error::{Code, Failure};
use shared::wire::{Heartbeat, Wait};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// An owner's word counts for so long: several of its heartbeats.
const STALE_AFTER: Duration = Duration::from_secs(2);

/// Callers are not sent away for longer: the forecast does not see so far.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Forecasts {
    /// How long a call may wait, by model, where that is limited. Immutable.
    patience: HashMap<Token, Duration>,
    waits: Mutex<HashMap<Token, Said>>,
}

/// What an owner said of a model.
#[derive(Clone, Debug)]
struct Said {
    by: NodeId,
    at: Time,
    lanes: [Option<Queue>; Lane::ALL.len()],
}

/// What waits in a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Queue {
    pub(crate) requests: u64,
    /// Unknown while nothing is served.
    pub(crate) time: Option<Duration>,
}

impl Forecasts {
    pub(crate) fn new(models: &[Model]) -> Self {
        let patience = models.iter().filter_map(|model| Some((model.token.clone(), Duration::from_millis(model.max_queue_ms?)))).collect();
        Self { patience, waits: Mutex::default() }
    }

    pub(crate) fn hear(&self, beat: &Heartbeat, now: Time) {
        if let Heartbeat::Scheduler { id, waits, .. } = beat {
            self.note(id, waits, now);
        }
    }

    /// All that an owner says replaces all that it said.
    fn note(&self, by: &NodeId, waits: &[Wait], now: Time) {
        let mut known = self.known();
        if known.is_empty() && waits.is_empty() {
            return;
        }
        known.retain(|_, said| said.by != *by && now.since(said.at) < STALE_AFTER);
        for wait in waits {
            let fresh = || Said { by: by.clone(), at: now, lanes: Default::default() };
            let time = wait.ms.map(|ms| Duration::from_millis(ms.into()));
            known.entry(wait.model.clone()).or_insert_with(fresh).lanes[wait.lane.index()] = Some(Queue { requests: wait.requests, time });
        }
    }

    /// What waits in a lane; `None`: nothing, as far as is known.
    pub(crate) fn queue(&self, model: &Token, lane: Lane, now: Time) -> Option<Queue> {
        self.known().get(model).filter(|said| now.since(said.at) < STALE_AFTER)?.lanes[lane.index()]
    }

    /// Lets a call through that may hope to be served in time.
    ///
    /// # Errors
    /// `overloaded`, with the time after which the queue may be short enough.
    pub(crate) fn admit(&self, model: &Token, deadline: Time, now: Time) -> Result<(), Failure> {
        let Some(wait) = self.queue(model, Lane::Interactive, now).and_then(|queue| queue.time) else { return Ok(()) };
        let left = deadline.since(now);
        let patience = self.patience.get(model).map_or(left, |patience| left.min(*patience));
        if wait <= patience {
            return Ok(());
        }
        let message = format!(
            "The model's queue is about {} s long, more than this request may wait ({} s): try again later, or submit it as a job",
            wait.as_secs(),
            patience.as_secs()
        );
        let after = (wait - patience).clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX);
        Err(Failure::new(Code::Overloaded, message).retry_after_ms(millis(after)))
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Token, Said>> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_millis(1_000);

    fn forecasts(patience: Option<Duration>) -> Forecasts {
        Forecasts { patience: patience.into_iter().map(|patience| (model(), patience)).collect(), waits: Mutex::default() }
    }

    fn model() -> Token {
        Token::of_model("m")
    }

    fn beat(by: &str, lane: Lane, ms: Option<u32>) -> Heartbeat {
        let waits = vec![Wait { model: model(), lane, requests: 9, ms }];
        Heartbeat::Scheduler { id: NodeId::parse(by).unwrap(), owns: vec![model()], waits }
    }

    fn admit(forecasts: &Forecasts, now: Time) -> Result<(), Failure> {
        forecasts.admit(&model(), now + Duration::from_secs(10), now)
    }

    #[test]
    fn a_call_is_refused_when_the_queue_is_longer_than_its_time() {
        let forecasts = forecasts(None);
        forecasts.hear(&beat("s", Lane::Interactive, Some(10_000)), NOW);
        assert_eq!(admit(&forecasts, NOW), Ok(()));
        forecasts.hear(&beat("s", Lane::Interactive, Some(13_000)), NOW);
        let refused = admit(&forecasts, NOW).unwrap_err();
        assert_eq!((refused.code, refused.retry_after_ms), (Code::Overloaded, Some(3_000)));
        forecasts.hear(&beat("s", Lane::Interactive, Some(999_000)), NOW);
        assert_eq!(admit(&forecasts, NOW).unwrap_err().retry_after_ms, Some(60_000));
    }

    #[test]
    fn a_model_may_allow_less() {
        let forecasts = forecasts(Some(Duration::from_secs(2)));
        forecasts.hear(&beat("s", Lane::Interactive, Some(2_000)), NOW);
        assert_eq!(admit(&forecasts, NOW), Ok(()));
        forecasts.hear(&beat("s", Lane::Interactive, Some(2_100)), NOW);
        assert_eq!(admit(&forecasts, NOW).unwrap_err().retry_after_ms, Some(1_000));
    }

    #[test]
    fn what_waits_in_another_lane_or_for_an_unknown_time_refuses_nobody() {
        let forecasts = forecasts(None);
        forecasts.hear(&beat("s", Lane::Bulk, Some(99_000)), NOW);
        assert_eq!(admit(&forecasts, NOW), Ok(()));
        forecasts.hear(&beat("s", Lane::Interactive, None), NOW);
        assert_eq!(admit(&forecasts, NOW), Ok(()));
        assert_eq!(forecasts.queue(&model(), Lane::Interactive, NOW), Some(Queue { requests: 9, time: None }));
    }

    #[test]
    fn an_owners_last_word_counts_and_goes_stale() {
        let forecasts = forecasts(None);
        forecasts.hear(&beat("one", Lane::Interactive, Some(99_000)), NOW);
        assert!(admit(&forecasts, NOW).is_err());
        forecasts.hear(&Heartbeat::Scheduler { id: NodeId::parse("one").unwrap(), owns: vec![model()], waits: Vec::new() }, NOW);
        assert_eq!(admit(&forecasts, NOW), Ok(()));
        forecasts.hear(&beat("one", Lane::Interactive, Some(99_000)), NOW);
        assert_eq!(admit(&forecasts, NOW + STALE_AFTER), Ok(()), "an owner that is silent knows nothing");
    }
}
