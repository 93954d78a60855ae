//! core: calls that have ended and are not yet on record, in order and bounded.

use shared::wire::Call;
use std::collections::VecDeque;

/// Calls that wait while the broker is away: some seconds' worth at full load, in about 20 MiB. Past it the oldest go.
pub(super) const WAITING_MAX: usize = 65_536;

#[derive(Debug, Default)]
pub(super) struct Notes {
    waiting: VecDeque<Call>,
    /// Calls of the round that is being appended.
    taken: usize,
    is_dropping: bool,
}

/// What became of a call that was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Noted {
    /// Nothing was waiting: whoever records is to be woken.
    First,
    More,
    /// It was, and the oldest was dropped for it: the `first` since something was last recorded.
    Dropped {
        first: bool,
    },
}

impl Notes {
    pub(super) fn add(&mut self, call: Call) -> Noted {
        self.waiting.push_back(call);
        if self.waiting.len() > WAITING_MAX {
            self.waiting.pop_front();
            let first = !std::mem::replace(&mut self.is_dropping, true);
            return Noted::Dropped { first };
        }
        if self.waiting.len() == 1 { Noted::First } else { Noted::More }
    }

    /// The oldest, for a round that ends with [`Notes::settle`].
    pub(super) fn take(&mut self, max: usize) -> Vec<Call> {
        let round: Vec<Call> = self.waiting.drain(..max.min(self.waiting.len())).collect();
        self.taken = round.len();
        round
    }

    /// The round is on record.
    pub(super) fn settle(&mut self) {
        self.taken = 0;
        self.is_dropping = false;
    }

    /// Whether everything that was added is on record.
    pub(super) fn are_settled(&self) -> bool {
        self.waiting.is_empty() && self.taken == 0
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::call;
    use super::*;

    #[test]
    fn past_the_bound_the_oldest_go_and_it_is_said_once() {
        let mut notes = Notes::default();
        assert_eq!(notes.add(call("t", 0)), Noted::First);
        assert!((1..WAITING_MAX).all(|n| notes.add(call("t", n)) == Noted::More));
        assert_eq!(notes.add(call("t", WAITING_MAX)), Noted::Dropped { first: true });
        assert_eq!(notes.add(call("t", WAITING_MAX + 1)), Noted::Dropped { first: false });
        assert_eq!(notes.take(1)[0].input, 2);
    }

    #[test]
    fn what_was_taken_is_not_settled_until_it_is_on_record() {
        let mut notes = Notes::default();
        notes.add(call("t", 0));
        assert_eq!(notes.take(8).len(), 1);
        assert!(!notes.are_settled());
        notes.settle();
        assert!(notes.are_settled());
    }
}
