//! core: the oracle's usage log: each id once, visible a moment after it was written; and what the ledger has been told of it.

use crate::domain::RequestId;
use crate::quota::{Amount, Totals};
use std::collections::{BTreeMap, HashMap};

const DAY_MS: u64 = 86_400_000;
/// The first days of the months after November 2026, counted from 1 December.
const MONTHS: [u64; 13] = [0, 31, 62, 90, 121, 151, 182, 212, 243, 274, 304, 335, 365];
/// 1 December 2026, UTC.
const DECEMBER: u64 = 1_796_083_200_000;

/// How far back a seed lists ids. Nothing becomes visible later than [`LAG_MS`], and no id is used again after as long.
pub(super) const LISTED_MS: u64 = 100_000;
pub(super) const LAG_MS: u64 = 3_000;

pub(super) struct Log {
    now: u64,
    used: HashMap<RequestId, Used>,
    /// Written and not yet visible, by when they will be.
    coming: BTreeMap<(u64, RequestId), ()>,
    /// Visible, by when they were written.
    visible: BTreeMap<(u64, RequestId), ()>,
    shown: Sums,
    /// What each side's counters should hold.
    booked: [Sums; 2],
}

struct Used {
    at: u64,
    amount: Amount,
    booked: [bool; 2],
    /// The ledger knows the id: it was settled, or listed by a seed.
    known: bool,
    visible: bool,
}

#[derive(Default)]
struct Sums {
    days: HashMap<u64, Amount>,
    months: HashMap<usize, Amount>,
}

impl Sums {
    fn add(&mut self, at: u64, amount: Amount) {
        self.days.entry(at / DAY_MS).or_default().add(amount);
        self.months.entry(month(at)).or_default().add(amount);
    }

    fn at(&self, now: u64) -> Totals {
        let day = self.days.get(&(now / DAY_MS)).copied().unwrap_or_default();
        Totals { day, month: self.months.get(&month(now)).copied().unwrap_or_default() }
    }
}

fn month_begin(index: usize) -> u64 {
    DECEMBER + MONTHS[index] * DAY_MS
}

/// 0: November 2026, 1: December, and so on for a year.
fn month(at: u64) -> usize {
    (0..MONTHS.len()).filter(|&index| at >= month_begin(index)).count()
}

impl Log {
    pub(super) fn new(now: u64) -> Self {
        let sums = [Sums::default(), Sums::default()];
        let (coming, visible) = (BTreeMap::new(), BTreeMap::new());
        Self { now, used: HashMap::new(), coming, visible, shown: Sums::default(), booked: sums }
    }

    pub(super) fn advance(&mut self, now: u64) {
        self.now = now;
        while let Some((&(due, id), ())) = self.coming.first_key_value().filter(|((due, _), ())| *due <= now) {
            self.coming.remove(&(due, id));
            let used = self.used.get_mut(&id).expect("it was written");
            used.visible = true;
            self.visible.insert((used.at, id), ());
            self.shown.add(used.at, used.amount);
        }
        while self.visible.first_key_value().is_some_and(|((at, _), ())| at + LISTED_MS < now) {
            self.visible.pop_first();
        }
    }

    /// Writes usage, once for each id.
    pub(super) fn write(&mut self, id: RequestId, amount: Amount, lag_ms: u64) {
        if !self.used.contains_key(&id) {
            let used = Used { at: self.now, amount, booked: [false; 2], known: false, visible: false };
            self.used.insert(id, used);
            self.coming.insert((self.now + lag_ms, id), ());
        }
    }

    pub(super) fn is_known(&self, id: RequestId) -> bool {
        self.used.get(&id).is_some_and(|used| used.known)
    }

    pub(super) fn amount(&self, id: RequestId) -> Option<Amount> {
        self.used.get(&id).map(|used| used.amount)
    }

    /// The ledger is told of an id's usage, which has been written. `books`: the sides that are to charge it, if not done.
    pub(super) fn settle(&mut self, id: RequestId, amount: Amount, books: [bool; 2]) {
        self.write(id, amount, 0);
        let used = self.used.get_mut(&id).expect("it was written");
        for side in [0, 1] {
            if books[side] && !std::mem::replace(&mut used.booked[side], true) {
                self.booked[side].add(self.now, used.amount);
            }
        }
        used.known = true;
    }

    /// The ids that a seed lists.
    pub(super) fn listed(&self) -> Vec<RequestId> {
        self.visible.keys().map(|(_, id)| *id).collect()
    }

    pub(super) fn totals(&self) -> Totals {
        self.shown.at(self.now)
    }

    /// The due sides hold what is visible or was told; what is listed is known from now on.
    pub(super) fn seed(&mut self, due: [bool; 2]) {
        for id in self.listed() {
            self.used.get_mut(&id).expect("it was written").known = true;
        }
        let told: Vec<_> = self.coming.keys().map(|(_, id)| *id).filter(|id| self.is_known(*id)).collect();
        for side in [0, 1].into_iter().filter(|&side| due[side]) {
            let mut totals = Sums::default();
            let shown = self.shown.at(self.now);
            totals.days.insert(self.now / DAY_MS, shown.day);
            totals.months.insert(month(self.now), shown.month);
            told.iter().for_each(|id| totals.add(self.used[id].at, self.used[id].amount));
            self.booked[side] = totals;
            for id in told.iter().copied().chain(self.listed()) {
                self.used.get_mut(&id).expect("it was written").booked[side] = true;
            }
        }
    }

    pub(super) fn booked(&self, side: usize) -> Totals {
        self.booked[side].at(self.now)
    }

    /// Milliseconds to the end of the day and of the month.
    pub(super) fn until_ends(&self) -> (u64, u64) {
        (DAY_MS - self.now % DAY_MS, month_begin(month(self.now)) - self.now)
    }
}
