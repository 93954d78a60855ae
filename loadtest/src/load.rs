//! loop: callers on connections of their own. In a closed loop each sends its next request when it has its answer; in an open
//! loop requests start when they are meant to, whether or not the server keeps up.
//!
//! A latency counts from the *intended* start: a server that is behind is charged for the requests it keeps from starting.

use crate::client::Client;
use crate::clock::Stopwatch;
use crate::connection::Connection;
use crate::exchange::{self, Bad, Seen};
use crate::report::Outcome;
use crate::schedule::Schedule;
use crate::work::Work;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

mod pacer;

/// How requests arrive, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub arrivals: Arrivals,
    pub until: Until,
    /// Before this much time nothing is counted. Only with `Until::Elapsed`.
    pub warm_up: Duration,
    /// Every how manieth answer is compared with what it should be; of the others only status and end are looked at.
    pub check_every: u64,
}

#[derive(Clone, Copy, Debug)]
pub enum Arrivals {
    Closed {
        callers: usize,
    },
    /// Requests a second, over at most so many connections. Only with `Until::Elapsed`.
    Open {
        rate: f64,
        connections: usize,
    },
}

#[derive(Clone, Copy, Debug)]
pub enum Until {
    Requests(u64),
    Elapsed(Duration),
}

/// A server that is this far behind at the end of an open loop, or owes an answer for so long, will not catch up in a sample.
const GRACE: Duration = Duration::from_secs(5);

/// What the callers share.
struct Run {
    client: Client,
    /// Request i is of the i-th work, round and round.
    works: Arc<[Work]>,
    plan: Plan,
    began: Stopwatch,
    next: AtomicU64,
    pace: Option<Pace>,
    /// Locked for one record, never across an await.
    outcome: Mutex<Outcome>,
}

/// The open loop's arrivals: a permit for each that is due.
struct Pace {
    due: Arc<Semaphore>,
    starts: Mutex<Schedule>,
}

/// One request's turn: its number, and when it was meant to start.
struct Turn {
    index: u64,
    intended: Duration,
}

impl Plan {
    /// A closed loop without warm-up, every answer checked.
    pub const fn closed(callers: usize, until: Until) -> Self {
        Self { arrivals: Arrivals::Closed { callers }, until, warm_up: Duration::ZERO, check_every: 1 }
    }

    const fn connections(&self) -> usize {
        match self.arrivals {
            Arrivals::Closed { callers } => callers,
            Arrivals::Open { connections, .. } => connections,
        }
    }

    /// From the beginning, warm-up included; `None`: as long as the requests take.
    fn end(&self) -> Option<Duration> {
        match self.until {
            Until::Requests(_) => None,
            Until::Elapsed(span) => Some(self.warm_up + span),
        }
    }

    /// Whether a request counts. A closed loop counts what ends within the window, so that it is a throughput; an open
    /// loop what was meant to start in it, so that nothing slow is left out.
    fn counts(&self, intended: Duration, ended: Duration) -> bool {
        let at = match self.arrivals {
            Arrivals::Closed { .. } => ended,
            Arrivals::Open { .. } => intended,
        };
        self.end().is_none_or(|end| (self.warm_up..end).contains(&at))
    }
}

/// Runs one kind of work to the end of the plan.
pub async fn run(client: &Client, work: &Work, plan: Plan) -> Outcome {
    run_mix(client, [work.clone()].into(), plan).await
}

/// Runs several kinds of work in turn. A work that stands in the list twice has a double share.
pub async fn run_mix(client: &Client, works: Arc<[Work]>, plan: Plan) -> Outcome {
    let run = Arc::new(Run::new(client.clone(), works, plan));
    let mut callers = JoinSet::new();
    for _ in 0..plan.connections() {
        callers.spawn(caller(Arc::clone(&run)));
    }
    if let Some(pace) = &run.pace {
        pacer::start(pace.starts().clone(), Arc::downgrade(&pace.due), run.began, plan.connections());
    }
    run.join(callers).await
}

async fn caller(run: Arc<Run>) {
    let mut connection = Connection::new(run.client.clone());
    while let Some(turn) = run.turn().await {
        let asked = run.ask(&mut connection, &turn).await;
        run.record(&turn, asked);
    }
}

impl Run {
    fn new(client: Client, works: Arc<[Work]>, plan: Plan) -> Self {
        let pace = match (plan.arrivals, plan.end()) {
            (Arrivals::Open { rate, .. }, Some(end)) => {
                Some(Pace { due: Arc::new(Semaphore::new(0)), starts: Mutex::new(Schedule::new(rate, end)) })
            }
            _ => None,
        };
        Self { client, works, plan, began: Stopwatch::start(), next: AtomicU64::new(0), pace, outcome: Mutex::default() }
    }

    /// The next request, when it is due.
    async fn turn(&self) -> Option<Turn> {
        let paced = match &self.pace {
            Some(pace) => Some(pace.next().await?),
            None => None,
        };
        let now = self.began.elapsed();
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        let goes_on = match self.plan.until {
            Until::Requests(count) => index < count,
            Until::Elapsed(_) => paced.is_some() || self.plan.end().is_some_and(|end| now < end),
        };
        goes_on.then_some(Turn { index, intended: paced.unwrap_or(now) })
    }

    async fn ask(&self, connection: &mut Connection, turn: &Turn) -> Result<Seen, Bad> {
        if self.plan.end().is_some_and(|end| self.began.elapsed() > end + GRACE) {
            return Err(Bad::NeverSent);
        }
        let work = &self.works[usize::try_from(turn.index % self.works.len() as u64).unwrap_or_default()];
        let checked = turn.index.is_multiple_of(self.plan.check_every.max(1));
        exchange::ask(connection, work, turn.index, checked, self.began).await
    }

    fn record(&self, turn: &Turn, asked: Result<Seen, Bad>) {
        let now = self.began.elapsed();
        let ended = asked.as_ref().map_or(now, |seen| seen.ended);
        if !self.plan.counts(turn.intended, ended) {
            return;
        }
        match asked {
            Ok(seen) => self.outcome().answered(seen.first_byte.saturating_sub(turn.intended), seen.ended.saturating_sub(turn.intended)),
            Err(bad) => self.outcome().failed(bad.name()),
        }
    }

    fn outcome(&self) -> MutexGuard<'_, Outcome> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the callers; for those whose answer never comes only for a while.
    async fn join(&self, mut callers: JoinSet<()>) -> Outcome {
        let all = async {
            while let Some(ended) = callers.join_next().await {
                if let Err(error) = ended {
                    self.outcome().failed(format!("a caller ended: {error}"));
                }
            }
        };
        match self.plan.end() {
            None => all.await,
            Some(end) => {
                let _ = tokio::time::timeout(end + GRACE * 2, all).await;
                (0..callers.len()).for_each(|_| self.outcome().failed(Bad::NeverAnswered.name()));
            }
        }
        let mut outcome = std::mem::take(&mut *self.outcome());
        outcome.elapsed = match self.plan.until {
            Until::Requests(_) => self.began.elapsed(),
            Until::Elapsed(span) => span,
        };
        outcome
    }
}

impl Pace {
    fn starts(&self) -> MutexGuard<'_, Schedule> {
        self.starts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn next(&self) -> Option<Duration> {
        self.due.acquire().await.ok()?.forget();
        self.starts().next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn plan(arrivals: Arrivals) -> Plan {
        Plan { warm_up: S, ..Plan { arrivals, ..Plan::closed(1, Until::Elapsed(S * 2)) } }
    }

    #[test]
    fn a_closed_loop_counts_what_ends_in_its_window() {
        let plan = plan(Arrivals::Closed { callers: 1 });
        assert!(plan.counts(S / 2, S) && plan.counts(S, S * 2));
        assert!(!plan.counts(S / 2, S * 9 / 10) && !plan.counts(S * 2, S * 3));
    }

    #[test]
    fn an_open_loop_counts_what_was_meant_to_start_in_its_window() {
        let plan = plan(Arrivals::Open { rate: 1.0, connections: 1 });
        assert!(plan.counts(S, S * 9), "however late its answer");
        assert!(!plan.counts(S / 2, S * 2));
    }
}
