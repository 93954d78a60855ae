//! core: one event on its way to one target: when it is tried, by whom, and when it is given up.

use super::event::Event;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use shared::domain::Token;
use std::time::Duration;

/// The pause after the first failure; it doubles with each.
const PAUSE_FIRST: Duration = Duration::from_secs(5);
const PAUSE_MAX: Duration = Duration::from_secs(3_600);

/// How long a target may be away before it is told no more.
const PATIENCE: Duration = Duration::from_secs(24 * 3_600);

/// How long what was given up can be looked at and delivered again.
const KEPT: Duration = Duration::from_secs(3 * 24 * 3_600);

/// How long whoever has taken a delivery has for it: its own time limit, and a skew of two machines' clocks.
const LEASE: Duration = Duration::from_secs(30);

/// A record of the broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Delivery {
    pub(crate) tenant: Box<str>,
    /// The event's id, and the receiver's means to know it again.
    pub(crate) event: Box<str>,
    pub(crate) kind: Box<str>,
    pub(crate) url: Box<str>,
    pub(crate) body: Box<str>,
    /// Times are in milliseconds since 1970. Patience counts from here.
    pub(crate) since_ms: u64,
    pub(crate) attempts: u32,
    /// The next try, and until when somebody is at it.
    pub(crate) next_ms: u64,
    pub(crate) taken_until_ms: u64,
    /// Who made this due: the first to look after it.
    pub(crate) by: Box<str>,
    /// What became of the last try.
    pub(crate) last: Option<Box<str>>,
    pub(crate) given_up_ms: Option<u64>,
}

impl Delivery {
    pub(super) fn new(tenant: &str, event: &Event, url: &str, by: &str, now_ms: u64) -> Self {
        Self {
            tenant: tenant.into(),
            event: event.id().into(),
            kind: event.kind().as_str().into(),
            url: url.into(),
            body: event.body().into(),
            since_ms: now_ms,
            attempts: 0,
            next_ms: now_ms,
            taken_until_ms: 0,
            by: by.into(),
            last: None,
            given_up_ms: None,
        }
    }

    /// `<tenant>.<event>.<target>`
    pub(super) fn key(&self) -> String {
        let target = blake3::hash(self.url.as_bytes()).to_hex();
        format!("{}.{}.{}", Token::of_name(&self.tenant), self.event, &target[..12])
    }

    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    pub(super) fn to_bytes(&self) -> Bytes {
        serde_json::to_vec(self).expect("a delivery is plain data").into()
    }

    /// When something is to be done about it: to try, or, if it was given up, to forget it.
    pub(super) fn due_ms(&self) -> u64 {
        self.given_up_ms.map_or(self.next_ms.max(self.taken_until_ms), |at| at + millis(KEPT))
    }

    pub(super) const fn is_given_up(&self) -> bool {
        self.given_up_ms.is_some()
    }

    /// Somebody begins a try.
    pub(super) fn take(&mut self, now_ms: u64) {
        self.attempts += 1;
        self.taken_until_ms = now_ms + millis(LEASE);
    }

    /// A try has failed. `draw` is 64 random bits.
    pub(super) fn failed(&mut self, why: &str, now_ms: u64, draw: u64) {
        self.last = Some(why.into());
        self.taken_until_ms = 0;
        self.next_ms = now_ms + millis(pause(self.attempts, draw));
        if self.next_ms >= self.since_ms + millis(PATIENCE) {
            self.given_up_ms = Some(now_ms);
        }
    }

    /// The target, or the configuration, wants no more of it.
    pub(super) fn give_up(&mut self, why: &str, now_ms: u64) {
        self.last = Some(why.into());
        self.given_up_ms = Some(now_ms);
    }

    /// Begins again, now.
    pub(super) fn renew(&mut self, by: &str, now_ms: u64) {
        self.by = by.into();
        (self.since_ms, self.next_ms) = (now_ms, now_ms);
        (self.attempts, self.taken_until_ms, self.given_up_ms) = (0, 0, None);
    }
}

/// The pause after so many tries: doubling, and drawn from a quarter less to a quarter more, so that what failed together
/// does not come back together.
fn pause(attempts: u32, draw: u64) -> Duration {
    let doubled = PAUSE_FIRST.saturating_mul(1 << attempts.saturating_sub(1).min(16)).min(PAUSE_MAX);
    let half = u64::try_from(doubled.as_millis()).unwrap_or(u64::MAX) / 2;
    doubled * 3 / 4 + Duration::from_millis(draw % half.max(1))
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::config::EventKind;

    fn delivery() -> Delivery {
        Delivery::new("t", &Event::new(EventKind::JobFailed, "job_1", 1), "https://h.example/", "me", 1_000)
    }

    #[test]
    fn pauses_double_from_5_s_to_an_hour_and_differ() {
        for (attempts, seconds) in [(1, 5.0), (2, 10.0), (5, 80.0), (10, 2_560.0), (11, 3_600.0), (1_000, 3_600.0)] {
            assert!((pause(attempts, 0).as_secs_f64() - 0.75 * seconds).abs() < 0.01, "{attempts}");
            assert!(pause(attempts, u64::MAX).as_secs_f64() <= 1.25 * seconds, "{attempts}");
        }
        assert_ne!(pause(3, 1), pause(3, 9_999));
    }

    #[test]
    fn a_target_that_is_away_is_tried_for_a_day_and_then_given_up() {
        let (mut delivery, mut now) = (delivery(), 1_000);
        while !delivery.is_given_up() {
            delivery.take(now);
            assert!(delivery.due_ms() > now, "nobody else tries meanwhile");
            delivery.failed("no connection", now, u64::from(delivery.attempts) * 7_919);
            assert!(delivery.attempts < 100);
            now = delivery.next_ms;
        }
        assert!((22 * 3_600_000..=24 * 3_600_000).contains(&(delivery.given_up_ms.unwrap() - 1_000)));
        assert!((30..40).contains(&delivery.attempts), "{}", delivery.attempts);
        assert_eq!(delivery.due_ms(), delivery.given_up_ms.unwrap() + millis(KEPT));
    }

    #[test]
    fn one_that_is_delivered_again_has_a_day_from_now_on() {
        let mut delivery = delivery();
        delivery.take(1_000);
        delivery.give_up("410 Gone", 1_001);
        delivery.renew("you", 9_000);
        assert_eq!((delivery.due_ms(), delivery.attempts, delivery.is_given_up()), (9_000, 0, false));
        delivery.take(9_000);
        delivery.failed("500", 9_001, 0);
        assert!(!delivery.is_given_up());
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_its_key_is_made_of_tokens() {
        let delivery = delivery();
        assert_eq!(Delivery::read(&delivery.to_bytes()), Some(delivery.clone()));
        assert_eq!(Delivery::read(b"{}"), None);
        assert!(delivery.key().split('.').all(|part| Token::parse(part).is_ok()) && delivery.key().split('.').count() == 3);
    }
}
