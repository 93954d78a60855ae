//! core: what one waiting request knows of its road: which execution answers it, and when it must be taken for lost.
//!
//! The caller's ingress is the durability of interactive work: the lane is in memory, replies are lossy, workers die.
//! So each request is bound to the first execution heard, every other one is a stranger, and a request that the lane
//! has handed out and that nobody names any more is published again, as long as its caller has seen no byte. From then on
//! what is missing can only be asked for again.

use crate::missing::Missing;
use shared::broker::Stored;
use shared::clock::Time;
use shared::domain::{ExecId, NodeId};
use shared::wire::Resend;
use std::time::Duration;

/// Silence after which a request that has left the lane is lost. Its holders name it each second, so this is three
/// chances missed in a row.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(3);

/// Silence after which a begun stream may have lost its last part: its worker would have named it.
const QUIET: Duration = Duration::from_millis(1_250);

/// Times one request is published again. Each costs at least [`SILENCE_MAX`], and a request that five workers in a row
/// have not survived would not survive a sixth.
const REPUBLISHED_MAX: u8 = 5;

/// A place in the lane's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) epoch: u64,
    pub(crate) sequence: u64,
}

#[derive(Debug)]
pub(crate) struct Pending {
    stream: bool,
    exec: Option<ExecId>,
    part_next: u32,
    /// The caller has, or is about to have, a byte of the answer: no other execution can take over.
    begun: bool,
    missing: Missing,
    published: Option<(Position, Time)>,
    named_at: Option<Time>,
    republished: u8,
}

/// What to do with a part of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// It is the next part of this request's answer.
    Pass,
    /// It belongs to an execution this request is not, or no longer, bound to.
    Stranger(ExecId),
    /// It changes nothing.
    Nothing,
    /// A part before it is missing, which can be asked for again: then this one comes again, too.
    Ahead,
    /// A part before it is missing for good, and the caller has seen what came before that.
    Gap,
}

/// What a look at the clock finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Waiting,
    /// Lost, and to be published again: this request has just been made as new.
    Again,
    /// Parts of its stream may be missing: they are to be asked for.
    Missing,
    /// Parts of its stream were asked for and did not come.
    Gap,
    /// Lost for good, in the middle of its stream.
    Cut,
    /// Lost too often.
    Lost,
}

impl Pending {
    /// A request about to be published. `stream`: parts reach the caller as they come.
    pub(crate) const fn new(stream: bool) -> Self {
        let missing = Missing::nothing();
        Self { stream, exec: None, part_next: 0, begun: false, missing, published: None, named_at: None, republished: 0 }
    }

    pub(crate) const fn is_bound(&self) -> bool {
        self.exec.is_some()
    }

    /// A part of an answer has come. `exec` is `None` for a scheduler's verdict, which counts only before any worker's.
    pub(crate) fn hear(&mut self, exec: Option<ExecId>, part: u32, now: Time) -> Heard {
        match (exec, self.exec) {
            (None, None) => Heard::Pass,
            (None, Some(_)) => Heard::Nothing,
            (Some(exec), None) => self.bind(exec, part, now),
            (Some(exec), Some(bound)) if exec == bound => self.follow(exec, part, now),
            (Some(exec), Some(_)) => Heard::Stranger(exec),
        }
    }

    /// An execution whose beginning was missed cannot answer: it is left to be cancelled, and the request to another.
    fn bind(&mut self, exec: ExecId, part: u32, now: Time) -> Heard {
        if part != 0 {
            return Heard::Stranger(exec);
        }
        self.exec = Some(exec);
        self.follow(exec, part, now)
    }

    fn follow(&mut self, exec: ExecId, part: u32, now: Time) -> Heard {
        self.named(now);
        if part < self.part_next {
            return Heard::Nothing;
        }
        if part > self.part_next {
            return self.gap(exec, part, now);
        }
        self.part_next += 1;
        self.begun |= self.stream;
        self.missing.came(part, now);
        Heard::Pass
    }

    fn gap(&mut self, exec: ExecId, part: u32, now: Time) -> Heard {
        if self.begun && self.missing.can_be_asked() {
            self.missing.ahead(part, now);
            return Heard::Ahead;
        }
        if self.begun {
            return Heard::Gap;
        }
        self.exec = None;
        self.part_next = 0;
        Heard::Stranger(exec)
    }

    /// The worker that answers keeps the parts of the stream for a while.
    pub(crate) fn kept_by(&mut self, worker: NodeId) {
        self.missing.kept_by(worker);
    }

    /// Whom to ask now for what has not come.
    pub(crate) fn ask(&mut self, now: Time) -> Option<(NodeId, Resend)> {
        let exec = self.exec?;
        Some((self.missing.ask(now)?, Resend { exec, from: self.part_next }))
    }

    /// The broker has stored the request.
    pub(crate) fn published(&mut self, stored: Stored, now: Time) {
        self.published = Some((Position { epoch: stored.epoch, sequence: stored.sequence }, now));
    }

    /// Somebody says that they hold it.
    pub(crate) fn named(&mut self, now: Time) {
        self.named_at = Some(now);
    }

    /// Looks whether the request is lost. `passed` is how far its lane is known to have been handed out.
    pub(crate) fn check(&mut self, passed: Option<Position>, now: Time) -> Fate {
        if self.begun {
            return self.check_stream(now);
        }
        if !self.is_lost(passed, now) {
            return Fate::Waiting;
        }
        if self.republished == REPUBLISHED_MAX {
            return Fate::Lost;
        }
        *self = Self { republished: self.republished + 1, ..Self::new(self.stream) };
        Fate::Again
    }

    /// A stream that has begun is a worker's, whatever is known of its lane.
    fn check_stream(&self, now: Time) -> Fate {
        let silence = now.since(self.named_at.unwrap_or_default());
        match () {
            () if silence >= SILENCE_MAX => Fate::Cut,
            () if self.missing.is_given_up(now) => Fate::Gap,
            () if silence >= QUIET || self.missing.has_gap() => Fate::Missing,
            () => Fate::Waiting,
        }
    }

    /// While the lane holds a request nobody else names it, so the silence begins when it has left.
    fn is_lost(&mut self, passed: Option<Position>, now: Time) -> bool {
        let Some((at, published_at)) = self.published else { return false };
        if passed.is_none_or(|passed| passed.epoch == at.epoch && passed.sequence < at.sequence) {
            self.named(now);
            return false;
        }
        let heard_at = self.named_at.map_or(published_at, |named_at| named_at.max(published_at));
        now.since(heard_at) >= SILENCE_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::entropy::exec_id;

    const LATE: Time = Time::from_millis(10_000);

    fn passed(epoch: u64, sequence: u64) -> Option<Position> {
        Some(Position { epoch, sequence })
    }

    fn keeper() -> NodeId {
        NodeId::parse("worker-1").unwrap()
    }

    /// A stream whose part 0 has come at zero.
    fn kept() -> (Pending, ExecId) {
        let (mut pending, exec) = (Pending::new(true), exec_id());
        pending.hear(Some(exec), 0, Time::ZERO);
        pending.kept_by(keeper());
        (pending, exec)
    }

    fn stored(stream: bool) -> Pending {
        let mut pending = Pending::new(stream);
        pending.published(Stored { sequence: 7, epoch: 1, duplicate: false }, Time::ZERO);
        pending
    }

    #[test]
    fn a_request_is_bound_to_the_first_execution_heard() {
        let (mut pending, first, second) = (Pending::new(true), exec_id(), exec_id());
        assert_eq!(pending.hear(Some(first), 0, Time::ZERO), Heard::Pass);
        assert_eq!(pending.hear(Some(second), 0, Time::ZERO), Heard::Stranger(second));
        assert_eq!(pending.hear(Some(first), 1, Time::ZERO), Heard::Pass);
    }

    #[test]
    fn a_verdict_counts_only_while_no_worker_has_spoken() {
        let mut pending = Pending::new(false);
        assert_eq!(pending.hear(None, 0, Time::ZERO), Heard::Pass);
        pending.hear(Some(exec_id()), 0, Time::ZERO);
        assert_eq!(pending.hear(None, 0, Time::ZERO), Heard::Nothing);
    }

    #[test]
    fn a_gap_in_a_begun_stream_that_nobody_keeps_is_an_error() {
        let (mut pending, exec) = (Pending::new(true), exec_id());
        pending.hear(Some(exec), 0, Time::ZERO);
        assert_eq!(pending.hear(Some(exec), 2, Time::ZERO), Heard::Gap);
    }

    #[test]
    fn a_gap_in_a_kept_stream_is_asked_for_until_it_is_closed() {
        let (mut pending, exec) = kept();
        assert_eq!(pending.hear(Some(exec), 3, Time::ZERO), Heard::Ahead);
        let asked = Some((keeper(), Resend { exec, from: 1 }));
        assert_eq!(pending.ask(Time::ZERO), asked);
        assert_eq!(pending.ask(Time::from_millis(249)), None, "an answer takes its time");
        assert_eq!(pending.check(None, Time::from_millis(500)), Fate::Missing);
        assert_eq!(pending.ask(Time::from_millis(500)), asked);
        for part in 1..=3 {
            assert_eq!(pending.check(None, Time::from_millis(600)), Fate::Missing);
            assert_eq!(pending.hear(Some(exec), part, Time::from_millis(600)), Heard::Pass);
        }
        assert_eq!(pending.check(None, Time::from_millis(600)), Fate::Waiting);
    }

    #[test]
    fn a_gap_that_does_not_narrow_for_two_seconds_is_an_error() {
        let (mut pending, exec) = kept();
        pending.hear(Some(exec), 3, Time::ZERO);
        pending.hear(Some(exec), 1, Time::from_millis(1_000));
        pending.hear(Some(exec), 4, Time::from_millis(2_900));
        assert_eq!(pending.check(None, Time::from_millis(2_999)), Fate::Missing);
        assert_eq!(pending.check(None, Time::from_millis(3_000)), Fate::Gap);
    }

    #[test]
    fn a_stream_that_falls_silent_is_asked_for_before_it_is_given_up() {
        let (mut pending, exec) = kept();
        assert_eq!(pending.check(None, Time::from_millis(1_249)), Fate::Waiting);
        assert_eq!(pending.check(None, Time::from_millis(1_250)), Fate::Missing);
        assert_eq!(pending.ask(Time::from_millis(1_250)), Some((keeper(), Resend { exec, from: 1 })));
        pending.named(Time::from_millis(1_300));
        assert_eq!(pending.check(None, Time::from_millis(2_500)), Fate::Waiting, "a model that thinks");
        assert_eq!(pending.check(None, Time::from_millis(4_300)), Fate::Cut);
    }

    #[test]
    fn a_gap_the_caller_cannot_see_leaves_the_request_to_another_execution() {
        let (mut pending, broken, whole) = (stored(false), exec_id(), exec_id());
        pending.hear(Some(broken), 0, Time::ZERO);
        assert_eq!(pending.hear(Some(broken), 2, Time::ZERO), Heard::Stranger(broken));
        assert_eq!(pending.hear(Some(broken), 3, Time::ZERO), Heard::Stranger(broken));
        assert_eq!(pending.check(passed(1, 7), LATE), Fate::Again);
        assert_eq!(pending.hear(Some(whole), 0, Time::ZERO), Heard::Pass);
    }

    #[test]
    fn a_part_heard_twice_passes_once() {
        let (mut pending, exec) = (Pending::new(true), exec_id());
        pending.hear(Some(exec), 0, Time::ZERO);
        assert_eq!(pending.hear(Some(exec), 0, Time::ZERO), Heard::Nothing);
    }

    #[test]
    fn what_still_waits_in_the_lane_is_not_lost() {
        assert_eq!(stored(false).check(passed(1, 6), LATE), Fate::Waiting);
        assert_eq!(stored(false).check(None, LATE), Fate::Waiting, "no owner has spoken yet");
        assert_eq!(Pending::new(false).check(passed(1, 9), LATE), Fate::Waiting, "the publish is not confirmed");
    }

    #[test]
    fn what_left_the_lane_is_lost_after_three_seconds_of_silence() {
        let mut pending = stored(false);
        pending.named(Time::from_millis(1_000));
        assert_eq!(pending.check(passed(1, 7), Time::from_millis(3_999)), Fate::Waiting);
        assert_eq!(pending.check(passed(1, 7), Time::from_millis(4_000)), Fate::Again);
    }

    #[test]
    fn the_silence_begins_when_the_request_leaves_the_lane() {
        let mut pending = stored(false);
        assert_eq!(pending.check(passed(1, 6), LATE), Fate::Waiting);
        assert_eq!(pending.check(passed(1, 7), LATE + Duration::from_millis(2_999)), Fate::Waiting);
        assert_eq!(pending.check(passed(1, 7), LATE + Duration::from_secs(3)), Fate::Again);
    }

    #[test]
    fn a_stream_made_anew_has_lost_what_the_old_one_held() {
        assert_eq!(stored(false).check(passed(2, 0), LATE), Fate::Again);
    }

    #[test]
    fn a_bound_request_whose_worker_fell_silent_is_lost_too() {
        let (mut whole, mut streamed) = (stored(false), stored(true));
        whole.hear(Some(exec_id()), 0, Time::ZERO);
        streamed.hear(Some(exec_id()), 0, Time::ZERO);
        assert_eq!(whole.check(passed(1, 7), LATE), Fate::Again);
        assert!(!whole.is_bound());
        assert_eq!(streamed.check(passed(1, 7), LATE), Fate::Cut);
    }

    #[test]
    fn publishing_again_has_an_end() {
        let mut pending = Pending::new(false);
        for _ in 0..REPUBLISHED_MAX {
            pending.published(Stored { sequence: 1, epoch: 1, duplicate: false }, Time::ZERO);
            assert_eq!(pending.check(passed(1, 9), LATE), Fate::Again);
            assert_eq!(pending.check(passed(1, 9), LATE), Fate::Waiting, "not before it is published");
        }
        pending.published(Stored { sequence: 1, epoch: 1, duplicate: false }, Time::ZERO);
        assert_eq!(pending.check(passed(1, 9), LATE), Fate::Lost);
    }
}
