//! core: one lane as a work queue with JetStream's semantics: in order, at least once, refused when full.
//!
//! A frame is waiting, or out with a taker until its ack wait has passed. Sequences only grow, so a frame that comes
//! back stands before everything published after it, without any sorting.

use super::recent::RecentIds;
use crate::broker::limits::LaneLimits;
use crate::broker::{BrokerError, LaneFilter, LaneSubject};
use crate::clock::Time;
use crate::domain::Token;
use bytes::Bytes;
use foldhash::HashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

#[derive(Debug)]
pub(super) struct LaneQueue {
    limits: LaneLimits,
    ack_wait: Duration,
    /// Which incarnation of the lane's stream this is.
    epoch: u64,
    last: u64,
    bytes: usize,
    /// By sequence, which is also the order of age.
    frames: BTreeMap<u64, Held>,
    /// Stored frames per subject; an entry goes with its last frame.
    origins: HashMap<LaneSubject, usize>,
    /// One per model and part that was ever used: bounded by the models configured while the process lives.
    readers: HashMap<(Token, u16), Reader>,
    ids: RecentIds,
}

#[derive(Debug)]
struct Held {
    subject: LaneSubject,
    frame: Bytes,
    stored: Time,
    attempts: u64,
    /// When it comes back, while it is out.
    due: Option<Time>,
}

#[derive(Debug, Default)]
struct Reader {
    waiting: BTreeSet<u64>,
    out: BTreeSet<(Time, u64)>,
    /// The highest sequence ever handed out.
    delivered: u64,
    news: Arc<Notify>,
}

/// A frame handed out.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) frame: Bytes,
    pub(super) sequence: u64,
    pub(super) attempt: u64,
    pub(super) stored: Time,
}

impl LaneQueue {
    pub(super) fn new(limits: LaneLimits, ack_wait: Duration, epoch: u64) -> Self {
        let (frames, origins, readers) = Default::default();
        Self { limits, ack_wait, epoch, last: 0, bytes: 0, frames, origins, readers, ids: RecentIds::default() }
    }

    pub(super) const fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn len(&self) -> usize {
        self.frames.len()
    }

    pub(super) fn make_anew(&mut self) {
        let readers = std::mem::take(&mut self.readers);
        *self = Self::new(self.limits, self.ack_wait, self.epoch + 1);
        self.readers = readers.into_iter().map(|(of, Reader { news, .. })| (of, Reader { news, ..Reader::default() })).collect();
    }

    /// Message ids are known from what is stored, so they go with it.
    pub(super) fn lose_tail(&mut self, frames: u64) {
        for _ in 0..frames.min(self.last) {
            self.forget(self.last);
            self.last -= 1;
        }
        self.readers.values_mut().for_each(|reader| reader.delivered = reader.delivered.min(self.last));
        self.forget_ids();
    }

    pub(super) fn forget_ids(&mut self) {
        self.ids = RecentIds::default();
    }

    /// Stores a frame: its sequence, and whether it was there already.
    pub(super) fn publish(&mut self, now: Time, to: &LaneSubject, id: &str, frame: Bytes) -> Result<(u64, bool), BrokerError> {
        self.drop_aged(now);
        if let Some(sequence) = self.ids.get(now, id) {
            return Ok((sequence, true));
        }
        self.check_room(to, frame.len())?;
        self.last += 1;
        self.ids.insert(now, id, self.last);
        self.store(now, to, frame);
        Ok((self.last, false))
    }

    fn check_room(&self, to: &LaneSubject, bytes: usize) -> Result<(), BrokerError> {
        let of_origin = self.origins.get(to).copied().unwrap_or(0);
        let full = of_origin >= self.limits.frames_per_origin_max
            || self.frames.len() >= self.limits.frames_max
            || self.bytes + bytes > self.limits.bytes_max;
        if full { Err(BrokerError::Full) } else { Ok(()) }
    }

    fn store(&mut self, now: Time, to: &LaneSubject, frame: Bytes) {
        self.bytes += frame.len();
        *self.origins.entry(to.clone()).or_default() += 1;
        self.frames.insert(self.last, Held { subject: to.clone(), frame, stored: now, attempts: 0, due: None });
        let reader = self.readers.entry((to.model.clone(), to.part)).or_default();
        reader.waiting.insert(self.last);
        reader.news.notify_one();
    }

    /// Hands out up to `max` frames in order, and says when the next one that is out comes back.
    pub(super) fn take(&mut self, now: Time, from: &LaneFilter, max: usize) -> (Vec<Taken>, Option<Time>) {
        self.drop_aged(now);
        let Some(reader) = self.readers.get_mut(&(from.model.clone(), from.part)) else { return (Vec::new(), None) };
        reader.take_back(now, &mut self.frames);
        let mut taken = Vec::new();
        while taken.len() < max
            && let Some(sequence) = reader.waiting.pop_first()
        {
            let held = self.frames.get_mut(&sequence).expect("what waits is stored");
            reader.hand_out(sequence, held, now + self.ack_wait);
            taken.push(Taken { frame: held.frame.clone(), sequence, attempt: held.attempts, stored: held.stored });
        }
        if !reader.waiting.is_empty() {
            reader.news.notify_one();
        }
        (taken, reader.out.first().map(|(due, _)| *due))
    }

    /// The bell of one reader: rings when a frame arrives or comes back early.
    pub(super) fn news(&mut self, from: &LaneFilter) -> Arc<Notify> {
        self.readers.entry((from.model.clone(), from.part)).or_default().news.clone()
    }

    /// The highest sequence handed out to any reader of `from`; 0 when none was.
    pub(super) fn delivered(&self, from: &LaneFilter) -> u64 {
        self.readers.get(&(from.model.clone(), from.part)).map_or(0, |reader| reader.delivered)
    }

    /// Frames that no reader of `from` has had.
    pub(super) fn left(&self, from: &LaneFilter) -> u64 {
        self.readers.get(&(from.model.clone(), from.part)).map_or(0, |reader| reader.waiting.range(reader.delivered + 1..).count() as u64)
    }

    /// Whether a frame is still stored.
    pub(super) fn holds(&mut self, now: Time, sequence: u64) -> bool {
        self.drop_aged(now);
        self.frames.contains_key(&sequence)
    }

    /// Forgets a frame, if it is still there. False when there never was one. One that nobody has been handed yet has a sequence that
    /// was another's before the lane was lost, and stays.
    pub(super) fn ack(&mut self, sequence: u64) -> bool {
        if self.frames.get(&sequence).is_some_and(|held| held.attempts > 0) {
            self.forget(sequence);
        }
        (1..=self.last).contains(&sequence)
    }

    fn forget(&mut self, sequence: u64) {
        let Some(held) = self.frames.remove(&sequence) else { return };
        self.bytes -= held.frame.len();
        if let Some(reader) = self.readers.get_mut(&(held.subject.model.clone(), held.subject.part)) {
            reader.forget(sequence, held.due);
        }
        let left = self.origins.get_mut(&held.subject).expect("what is stored is counted");
        *left -= 1;
        if *left == 0 {
            self.origins.remove(&held.subject);
        }
    }

    /// Starts the ack wait of a frame that is out again.
    pub(super) fn renew(&mut self, now: Time, sequence: u64) {
        self.reschedule(sequence, now + self.ack_wait);
    }

    /// Has a frame that is out come back at `now + delay`.
    pub(super) fn nak(&mut self, now: Time, sequence: u64, delay: Duration) {
        self.reschedule(sequence, now + delay);
    }

    fn reschedule(&mut self, sequence: u64, due: Time) {
        let Some(held) = self.frames.get_mut(&sequence) else { return };
        let Some(was) = held.due else { return };
        let reader = self.readers.get_mut(&(held.subject.model.clone(), held.subject.part)).expect("what is out has a reader");
        reader.out.remove(&(was, sequence));
        reader.out.insert((due, sequence));
        held.due = Some(due);
        if due < was {
            reader.news.notify_waiters();
        }
    }

    fn drop_aged(&mut self, now: Time) {
        while let Some((&sequence, held)) = self.frames.first_key_value()
            && now.since(held.stored) > self.limits.age_max
        {
            self.forget(sequence);
        }
    }
}

impl Reader {
    fn take_back(&mut self, now: Time, frames: &mut BTreeMap<u64, Held>) {
        while let Some(&(due, sequence)) = self.out.first()
            && due <= now
        {
            self.out.pop_first();
            self.waiting.insert(sequence);
            frames.get_mut(&sequence).expect("what is out is stored").due = None;
        }
    }

    fn hand_out(&mut self, sequence: u64, held: &mut Held, due: Time) {
        held.attempts += 1;
        held.due = Some(due);
        self.out.insert((due, sequence));
        self.delivered = self.delivered.max(sequence);
    }

    fn forget(&mut self, sequence: u64, due: Option<Time>) {
        match due {
            Some(due) => self.out.remove(&(due, sequence)),
            None => self.waiting.remove(&sequence),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Lane;

    const LIMITS: LaneLimits = LaneLimits { frames_per_origin_max: 10, frames_max: 3, bytes_max: 100, age_max: Duration::from_secs(60) };

    fn queue() -> LaneQueue {
        LaneQueue::new(LIMITS, Duration::from_secs(3), 1)
    }

    fn subject(origin: &str) -> LaneSubject {
        LaneSubject { lane: Lane::Interactive, model: Token::of_model("m"), part: 0, origin: Token::parse(origin).unwrap() }
    }

    fn filter() -> LaneFilter {
        LaneFilter { lane: Lane::Interactive, model: Token::of_model("m"), part: 0 }
    }

    #[test]
    fn the_lane_is_full_by_frames_and_by_bytes() {
        let mut queue = queue();
        for (n, origin) in ["a", "b", "c"].iter().enumerate() {
            assert!(queue.publish(Time::ZERO, &subject(origin), &n.to_string(), Bytes::from_static(b"x")).is_ok());
        }
        assert_eq!(queue.publish(Time::ZERO, &subject("d"), "d", Bytes::new()), Err(BrokerError::Full));
        assert_eq!(queue.take(Time::ZERO, &filter(), 1).0.len(), 1);
        assert!(queue.ack(1));
        assert_eq!(queue.publish(Time::ZERO, &subject("d"), "d", Bytes::from(vec![0; 99])), Err(BrokerError::Full));
        assert_eq!(queue.publish(Time::ZERO, &subject("d"), "d", Bytes::from(vec![0; 98])), Ok((4, false)));
    }

    #[test]
    fn a_lost_tail_gives_its_sequences_again() {
        let mut queue = queue();
        queue.publish(Time::ZERO, &subject("a"), "1", Bytes::from_static(b"x")).unwrap();
        queue.publish(Time::ZERO, &subject("a"), "2", Bytes::from_static(b"x")).unwrap();
        assert_eq!(queue.take(Time::ZERO, &filter(), 9).0.len(), 2);
        queue.lose_tail(1);
        assert_eq!((queue.len(), queue.delivered(&filter())), (1, 1));
        assert_eq!(queue.publish(Time::ZERO, &subject("a"), "2", Bytes::from_static(b"x")), Ok((2, false)));
        queue.make_anew();
        assert_eq!((queue.len(), queue.epoch(), queue.delivered(&filter())), (0, 2, 0));
    }

    #[test]
    fn an_ack_of_a_lost_frame_leaves_the_one_that_has_its_sequence_now() {
        let mut queue = queue();
        queue.publish(Time::ZERO, &subject("a"), "1", Bytes::from_static(b"x")).unwrap();
        assert_eq!(queue.take(Time::ZERO, &filter(), 1).0.len(), 1);
        queue.make_anew();
        queue.publish(Time::ZERO, &subject("a"), "2", Bytes::from_static(b"y")).unwrap();
        assert!(queue.ack(1));
        assert_eq!(queue.take(Time::ZERO, &filter(), 1).0[0].frame, "y");
        assert!(queue.ack(1));
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn an_aged_frame_is_dropped_wherever_it_is_and_leaves_no_trace() {
        let mut queue = queue();
        queue.publish(Time::ZERO, &subject("a"), "1", Bytes::from_static(b"x")).unwrap();
        queue.publish(Time::ZERO, &subject("a"), "2", Bytes::from_static(b"x")).unwrap();
        assert_eq!(queue.take(Time::ZERO, &filter(), 1).0.len(), 1);
        let (taken, next) = queue.take(Time::from_millis(60_001), &filter(), 9);
        assert!(taken.is_empty() && next.is_none());
        assert!(queue.bytes == 0 && queue.origins.is_empty() && queue.frames.is_empty());
    }
}
