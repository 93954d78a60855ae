//! core: what goes wrong in a world: which messages are lost, late or doubled, who is killed, what is forgotten.

use crate::rng::Rng;
use shared::clock::Time;
use shared::domain::Lane;
use std::time::Duration;

/// A message of the wire table, or a step between the broker and its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Row {
    Publish,
    PubAck,
    Delivery,
    Dispatch,
    /// Accept, refuse, done.
    Report,
    Returned,
    Reply,
    Held,
    /// And what is asked for again.
    Cancel,
    Heartbeat,
    /// Acks, renewals and naks.
    Ack,
}

const ROWS: usize = Row::Ack as usize + 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blow {
    KillScheduler,
    /// It does nothing for some seconds, and then goes on as if nothing had been.
    StallScheduler,
    /// The owner gives the model up in good order.
    Surrender,
    /// The owner's lease is another's before it knows.
    StealLease,
    KillWorker,
    StallWorker,
    DrainWorker,
    KillIngress,
    StallIngress,
    /// The lane's stream is made anew.
    LoseStream,
    /// The last frames of a lane were never stored.
    LoseTail(Lane),
    /// Message ids are forgotten before their time.
    ForgetIds,
}

const BLOWS: [Blow; 14] = [
    Blow::KillScheduler,
    Blow::StallScheduler,
    Blow::Surrender,
    Blow::StealLease,
    Blow::KillWorker,
    Blow::KillWorker,
    Blow::StallWorker,
    Blow::DrainWorker,
    Blow::KillIngress,
    Blow::StallIngress,
    Blow::LoseStream,
    Blow::LoseTail(Lane::Async),
    Blow::LoseTail(Lane::Bulk),
    Blow::ForgetIds,
];

/// Blows of one world: enough to meet each other, few enough that work still gets done between them.
const BLOWS_MAX: u64 = 6;

#[derive(Debug)]
pub(crate) struct Faults {
    /// From here on nothing goes wrong.
    pub(crate) until: Time,
    pub(crate) blows: Vec<(Time, Blow)>,
    /// Messages lost of a thousand, by row.
    losses: [u32; ROWS],
    /// Messages of a thousand that come late, and that come twice.
    late: u32,
    twice: u32,
    /// How long a message travels otherwise: what one sends arrives in order.
    usual: Duration,
}

impl Faults {
    pub(crate) fn none(rng: &mut Rng, until: Time) -> Self {
        Self { until, blows: Vec::new(), losses: [0; ROWS], late: 0, twice: 0, usual: rng.micros(20, 300) }
    }

    pub(crate) fn draw(rng: &mut Rng, from: Time, until: Time) -> Self {
        let at = |rng: &mut Rng| Time(rng.between(from.as_micros(), until.as_micros()));
        let mut blows: Vec<(Time, Blow)> = (0..rng.between(0, BLOWS_MAX)).map(|_| (at(rng), rng.pick(&BLOWS))).collect();
        blows.sort_by_key(|(at, _)| *at);
        let (late, twice) = (rng.pick(&[0, 0, 10, 100]), rng.pick(&[0, 0, 10, 100]));
        Self { blows, losses: losses(rng), late, twice, ..Self::none(rng, until) }
    }

    pub(crate) fn are_none(&self) -> bool {
        self.blows.is_empty() && self.late + self.twice == 0 && self.losses.iter().all(|loss| *loss == 0)
    }

    /// Streams forget what they had confirmed.
    pub(crate) fn forget(&self) -> bool {
        self.blows.iter().any(|(_, blow)| matches!(blow, Blow::LoseTail(_) | Blow::LoseStream))
    }

    pub(crate) fn loses(&self, rng: &mut Rng, now: Time, row: Row) -> bool {
        now < self.until && rng.happens(self.losses[row as usize])
    }

    pub(crate) fn doubles(&self, rng: &mut Rng, now: Time) -> bool {
        now < self.until && rng.happens(self.twice)
    }

    pub(crate) fn delay(&self, rng: &mut Rng, now: Time) -> Duration {
        if now < self.until && rng.happens(self.late) { rng.millis(1, 400) } else { self.usual }
    }
}

/// Nothing, one row alone and badly, or every row a little.
fn losses(rng: &mut Rng) -> [u32; ROWS] {
    let mut losses = [0; ROWS];
    match rng.between(0, 3) {
        0 => {}
        1 => losses[rng.index(ROWS)] = rng.pick(&[300, 700, 1_000]),
        2 => losses = [rng.pick(&[5, 20, 50]); ROWS],
        _ => losses.fill_with(|| rng.pick(&[0, 0, 20, 200])),
    }
    losses
}
