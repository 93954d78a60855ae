//! core: a run's log, put in order: what each caller saw, what was done to the system, and what was on record at the end.

use super::journal::{Entry, Kind, Line, Outcome, Why};
use std::collections::{BTreeMap, HashMap};

/// After a fault is over, its process still starts, or its connections are still being made again.
const AFTERMATH_MS: u64 = 10_000;

#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) seed: u64,
    pub(super) backends: usize,
    pub(super) calls: BTreeMap<u64, Call>,
    pub(super) faults: Vec<Done>,
    pub(super) died: Vec<Death>,
    pub(super) healed_ms: Option<u64>,
    /// By request, how often the usage journal says that it was answered.
    pub(super) billed: HashMap<String, u32>,
    /// Tokens on record, of a request that was answered twice the first time's.
    pub(super) due: u64,
    /// Where the records said that there are no more, and there were.
    pub(super) kept_back: Vec<u64>,
    /// What the system says was spent.
    pub(super) spent: Option<u64>,
    pub(super) reserved: BTreeMap<String, u64>,
    pub(super) length_ms: u64,
}

#[derive(Debug)]
pub(super) struct Call {
    pub(super) asked_ms: u64,
    pub(super) kind: Kind,
    pub(super) why: Why,
    pub(super) ingress: usize,
    pub(super) told: String,
    /// It is a job or a row that was taken.
    pub(super) accepted: bool,
    /// Each time that an end was seen.
    pub(super) ends: Vec<(u64, Outcome)>,
}

/// What was done.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) class: String,
    pub(super) targets: Vec<String>,
    pub(super) at_ms: u64,
    pub(super) over_ms: u64,
}

#[derive(Debug)]
pub(super) struct Death {
    pub(super) who: String,
    pub(super) at_ms: u64,
    /// It had run for this long.
    pub(super) after_ms: u64,
}

impl Book {
    pub(super) fn of(lines: &[Line]) -> Self {
        let mut book = Self { length_ms: lines.last().map_or(0, |line| line.ms), ..Self::default() };
        let mut under_way = HashMap::new();
        for Line { ms, entry } in lines.iter().cloned() {
            match entry {
                Entry::Began { seed, backends } => (book.seed, book.backends) = (seed, backends),
                Entry::Asked { call, kind, why, ingress, told } => {
                    book.calls.insert(call, Call { asked_ms: ms, kind, why, ingress, told, accepted: false, ends: Vec::new() });
                }
                Entry::Accepted { calls, .. } => calls.iter().for_each(|call| book.accept(*call)),
                Entry::Ended { call, outcome } => book.end(call, ms, outcome),
                Entry::Injected { id, class, targets } => {
                    under_way.insert(id, book.faults.len());
                    book.faults.push(Done { class, targets, at_ms: ms, over_ms: ms });
                }
                Entry::Over { id } => under_way.remove(&id).into_iter().for_each(|place| book.faults[place].over_ms = ms),
                Entry::Died { who, after_ms } => book.died.push(Death { who, at_ms: ms, after_ms }),
                Entry::Healed => book.healed_ms = Some(ms),
                Entry::Billed { request, end, tokens } => book.bill(request, end == "answered", tokens),
                Entry::KeptBack { behind } => book.kept_back.push(behind),
                Entry::Spent { tokens, .. } => book.spent = Some(tokens),
                Entry::Reserved { tenant, open } => drop(book.reserved.insert(tenant, open)),
            }
        }
        // Who was not healed in the log was not healed.
        under_way.into_values().for_each(|place| book.faults[place].over_ms = book.length_ms);
        book
    }

    fn accept(&mut self, call: u64) {
        if let Some(call) = self.calls.get_mut(&call) {
            call.accepted = true;
        }
    }

    fn bill(&mut self, request: String, is_answered: bool, tokens: u64) {
        let times = self.billed.entry(request).or_default();
        self.due += if is_answered && *times > 0 { 0 } else { tokens };
        *times += u32::from(is_answered);
    }

    fn end(&mut self, call: u64, ms: u64, outcome: Outcome) {
        if let Some(call) = self.calls.get_mut(&call) {
            call.ends.push((ms, outcome));
        }
    }

    /// Whether a process was killed, stopped, or ended by itself at some moment of this span, or was not back yet.
    pub(super) fn was_down(&self, who: &str, from_ms: u64, to_ms: u64) -> bool {
        let done = |fault: &Done| {
            (fault.class.starts_with("kill") || fault.class.starts_with("stop")) && fault.targets.iter().any(|one| one == who)
        };
        let downed = self.faults.iter().filter(|fault| done(fault)).map(|fault| (fault.at_ms, fault.over_ms));
        let died = self.died.iter().filter(|death| death.who == who).map(|death| (death.at_ms, death.at_ms));
        downed.chain(died).any(|(at, over)| at <= to_ms && from_ms <= over + AFTERMATH_MS)
    }

    /// Whether any worker was killed in this span.
    pub(super) fn worker_was_killed(&self, from_ms: u64, to_ms: u64) -> bool {
        let is_worker = |who: &String| who.starts_with("worker");
        self.faults.iter().any(|f| f.class == "kill worker" && (from_ms..=to_ms).contains(&f.at_ms))
            || self.died.iter().any(|death| is_worker(&death.who) && (from_ms..=to_ms).contains(&death.at_ms))
    }
}

impl Call {
    pub(super) fn answers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.ends.iter().filter_map(|(_, outcome)| match outcome {
            Outcome::Answered { digest, request } => Some((digest.as_str(), request.as_str())),
            _ => None,
        })
    }

    pub(super) fn is_answered(&self) -> bool {
        self.answers().next().is_some()
    }

    /// When its end was first seen.
    pub(super) fn ended_ms(&self) -> Option<u64> {
        self.ends.first().map(|(ms, _)| *ms)
    }
}
