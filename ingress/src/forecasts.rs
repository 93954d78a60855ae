//! core: how long each model's queue is, as its owner says. A call that would only be refused at its deadline is refused at
//! once, before it is queued.

use shared::clock::{Time, millis};
use shared::config::Model;
use shared::domain::{Lane, NodeId, Token};
use shared::error::{Code, Failure};
use shared::jobs::Place;
use shared::wire::{Heartbeat, Span, Wait};
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
    /// Those that the owner has.
    span: Option<Span>,
}

impl Queue {
    /// How many requests came before the one at `place`, and wait still: about so many, for what lies between the frames that the owner has
    /// is not told, and other models' frames lie between those that the broker has.
    fn ahead(&self, place: &Place) -> u64 {
        let Some(span) = self.span else { return 0 };
        let here = match place.sequence.checked_sub(span.first) {
            None => 0,
            Some(_) if place.epoch < span.epoch => 0,
            Some(_) if place.epoch > span.epoch || place.sequence > span.last => span.requests,
            Some(after) => span.requests * after / (span.last - span.first + 1),
        };
        let there = if place.epoch == span.epoch { place.sequence.saturating_sub(span.last + 1) } else { 0 };
        (here + there).min(self.requests.saturating_sub(1))
    }
}

/// Where a request stands in its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// 1 is the next.
    pub(crate) position: u64,
    /// When it is served, at the present pace; in milliseconds since 1970.
    pub(crate) start_ms: Option<u64>,
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
            known.entry(wait.model.clone()).or_insert_with(fresh).lanes[wait.lane.index()] =
                Some(Queue { requests: wait.requests, time, span: wait.span });
        }
    }

    /// What waits in a lane; `None`: nothing, as far as is known.
    pub(crate) fn queue(&self, model: &Token, lane: Lane, now: Time) -> Option<Queue> {
        self.known().get(model).filter(|said| now.since(said.at) < STALE_AFTER)?.lanes[lane.index()]
    }

    /// Where the request at `place` stands; `None` where that is not known.
    pub(crate) fn standing(&self, model: &Token, place: &Place, now: Time, now_ms: u64) -> Option<Standing> {
        let queue = self.queue(model, place.lane, now)?;
        let position = queue.ahead(place) + 1;
        let wait_ms = |of_all: Duration| u64::from(millis(of_all)) * position / queue.requests.max(position);
        Some(Standing { position, start_ms: queue.time.map(|of_all| now_ms.saturating_add(wait_ms(of_all))) })
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
        let waits = vec![Wait { model: model(), lane, requests: 9, ms, span: None }];
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
        assert_eq!(forecasts.queue(&model(), Lane::Interactive, NOW), Some(Queue { requests: 9, time: None, span: None }));
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

    fn standing(first: u64, last: u64, here: u64, requests: u64, sequence: u64) -> Standing {
        let forecasts = forecasts(None);
        let span = (here > 0).then_some(Span { epoch: 7, first, last, requests: here });
        let waits = vec![Wait { model: model(), lane: Lane::Async, requests, ms: Some(10_000), span }];
        forecasts.hear(&Heartbeat::Scheduler { id: NodeId::parse("s").unwrap(), owns: vec![model()], waits }, NOW);
        let place = Place { lane: Lane::Async, epoch: 7, sequence };
        forecasts.standing(&model(), &place, NOW, 5_000).unwrap()
    }

    #[test]
    fn a_job_stands_behind_those_that_came_before_it() {
        let standing = |sequence| standing(101, 200, 100, 1_000, sequence);
        assert_eq!(standing(101), Standing { position: 1, start_ms: Some(5_010) });
        assert_eq!(standing(150), Standing { position: 50, start_ms: Some(5_500) }, "among those that its owner has");
        assert_eq!(standing(201), Standing { position: 101, start_ms: Some(6_010) }, "the first of those at the broker");
        assert_eq!(standing(1_100), Standing { position: 1_000, start_ms: Some(15_000) });
    }

    #[test]
    fn a_standing_is_within_the_queue() {
        assert_eq!(standing(101, 200, 100, 1_000, 99).position, 1, "one that is sent again was before all that wait");
        assert_eq!(standing(101, 200, 100, 1_000, 5_000).position, 1_000, "the frames of other models lie between");
        assert_eq!(standing(101, 200, 10, 20, 151).position, 6, "as many have gone before it as after it");
        assert_eq!(standing(0, 0, 0, 20, 151).position, 1, "nobody says where the queue begins");
    }

    #[test]
    fn nobody_stands_in_a_queue_that_is_not_known() {
        let place = Place { lane: Lane::Async, epoch: 7, sequence: 1 };
        assert_eq!(forecasts(None).standing(&model(), &place, NOW, 5_000), None);
    }
}
