//! core: what one waiting request knows of its road: which execution answers it, and when it must be taken for lost.
//!
//! The caller's ingress is the durability of interactive work: the lane is in memory, replies are lossy, workers die.
//! So each request is bound to the first execution heard, every other one is a stranger, and a request that the lane
//! has handed out and that nobody names any more is published again, as long as its caller has seen no byte.

use shared::broker::Stored;
use shared::clock::Time;
use shared::domain::ExecId;
use std::time::Duration;

/// Silence after which a request that has left the lane is lost. Its holders name it each second, so this is three
/// chances missed in a row.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(3);

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
    /// A part before it is missing, and the caller has seen what came before that.
    Gap,
}

/// What a look at the clock finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Waiting,
    /// Lost, and to be published again: this request has just been made as new.
    Again,
    /// Lost for good, in the middle of its stream.
    Cut,
    /// Lost too often.
    Lost,
}

impl Pending {
    /// A request about to be published. `stream`: parts reach the caller as they come.
    pub(crate) const fn new(stream: bool) -> Self {
        Self { stream, exec: None, part_next: 0, begun: false, published: None, named_at: None, republished: 0 }
    }

    pub(crate) const fn is_bound(&self) -> bool {
        self.exec.is_some()
    }

    /// A part of an answer has come. `exec` is `None` for a scheduler's verdict, which counts only before any worker's.
    pub(crate) fn hear(&mut self, exec: Option<ExecId>, part: u32) -> Heard {
        match (exec, self.exec) {
            (None, None) => Heard::Pass,
            (None, Some(_)) => Heard::Nothing,
            (Some(exec), None) => self.bind(exec, part),
            (Some(exec), Some(bound)) if exec == bound => self.follow(exec, part),
            (Some(exec), Some(_)) => Heard::Stranger(exec),
        }
    }

    /// An execution whose beginning was missed cannot answer: it is left to be cancelled, and the request to another.
    fn bind(&mut self, exec: ExecId, part: u32) -> Heard {
        if part != 0 {
            return Heard::Stranger(exec);
        }
        self.exec = Some(exec);
        self.follow(exec, part)
    }

    fn follow(&mut self, exec: ExecId, part: u32) -> Heard {
        if part < self.part_next {
            return Heard::Nothing;
        }
        if part > self.part_next {
            return self.gap(exec);
        }
        self.part_next += 1;
        self.begun |= self.stream;
        Heard::Pass
    }

    fn gap(&mut self, exec: ExecId) -> Heard {
        if self.begun {
            return Heard::Gap;
        }
        self.exec = None;
        self.part_next = 0;
        Heard::Stranger(exec)
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
        if !self.is_lost(passed, now) {
            return Fate::Waiting;
        }
        if self.begun {
            return Fate::Cut;
        }
        if self.republished == REPUBLISHED_MAX {
            return Fate::Lost;
        }
        *self = Self { republished: self.republished + 1, ..Self::new(self.stream) };
        Fate::Again
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

    fn stored(stream: bool) -> Pending {
        let mut pending = Pending::new(stream);
        pending.published(Stored { sequence: 7, epoch: 1, duplicate: false }, Time::ZERO);
        pending
    }

    #[test]
    fn a_request_is_bound_to_the_first_execution_heard() {
        let (mut pending, first, second) = (Pending::new(true), exec_id(), exec_id());
        assert_eq!(pending.hear(Some(first), 0), Heard::Pass);
        assert_eq!(pending.hear(Some(second), 0), Heard::Stranger(second));
        assert_eq!(pending.hear(Some(first), 1), Heard::Pass);
    }

    #[test]
    fn a_verdict_counts_only_while_no_worker_has_spoken() {
        let mut pending = Pending::new(false);
        assert_eq!(pending.hear(None, 0), Heard::Pass);
        pending.hear(Some(exec_id()), 0);
        assert_eq!(pending.hear(None, 0), Heard::Nothing);
    }

    #[test]
    fn a_gap_in_a_begun_stream_is_an_error() {
        let (mut pending, exec) = (Pending::new(true), exec_id());
        pending.hear(Some(exec), 0);
        assert_eq!(pending.hear(Some(exec), 2), Heard::Gap);
    }

    #[test]
    fn a_gap_the_caller_cannot_see_leaves_the_request_to_another_execution() {
        let (mut pending, broken, whole) = (stored(false), exec_id(), exec_id());
        pending.hear(Some(broken), 0);
        assert_eq!(pending.hear(Some(broken), 2), Heard::Stranger(broken));
        assert_eq!(pending.hear(Some(broken), 3), Heard::Stranger(broken));
        assert_eq!(pending.check(passed(1, 7), LATE), Fate::Again);
        assert_eq!(pending.hear(Some(whole), 0), Heard::Pass);
    }

    #[test]
    fn a_part_heard_twice_passes_once() {
        let (mut pending, exec) = (Pending::new(true), exec_id());
        pending.hear(Some(exec), 0);
        assert_eq!(pending.hear(Some(exec), 0), Heard::Nothing);
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
        whole.hear(Some(exec_id()), 0);
        streamed.hear(Some(exec_id()), 0);
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
