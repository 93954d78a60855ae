//! core: what goes wrong in a world: which rows of the wire table lose messages, how late they come, who is killed.

use crate::rng::Rng;
use shared::clock::Time;
use std::time::Duration;

/// A row of the wire table, or a step between the broker and its client, that may lose a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Row {
    Publish,
    PubAck,
    Delivery,
    Dispatch,
    Accept,
    Refuse,
    Reply,
    Done,
    Returned,
    Held,
    Cancel,
    Heartbeat,
    /// Acks, renewals and naks.
    Ack,
}

const ROWS: usize = Row::Ack as usize + 1;

/// A process or a stream that ends, stops for a while, or hands over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blow {
    KillScheduler,
    /// It does nothing for some seconds, and then goes on as if nothing had been.
    StallScheduler,
    /// The owner gives the model up in good order.
    Surrender,
    KillWorker,
    DrainWorker,
    KillIngress,
    /// The interactive stream is made anew.
    LoseStream,
}

const BLOWS: [Blow; 7] =
    [Blow::KillScheduler, Blow::StallScheduler, Blow::Surrender, Blow::KillWorker, Blow::DrainWorker, Blow::KillIngress, Blow::LoseStream];

/// Blows of one world: enough to meet each other, few enough that work still gets done between them.
const BLOWS_MAX: u64 = 6;

#[derive(Debug)]
pub(crate) struct Faults {
    /// From here on nothing goes wrong.
    pub(crate) until: Time,
    pub(crate) blows: Vec<(Time, Blow)>,
    /// Messages lost of a thousand, by row.
    losses: [u32; ROWS],
    /// Messages of a thousand that come late.
    late: u32,
}

impl Faults {
    /// Nothing goes wrong while load arrives until `until`.
    pub(crate) const fn none(until: Time) -> Self {
        Self { until, blows: Vec::new(), losses: [0; ROWS], late: 0 }
    }

    pub(crate) fn draw(rng: &mut Rng, until: Time) -> Self {
        let mut blows: Vec<(Time, Blow)> =
            (0..rng.between(0, BLOWS_MAX)).map(|_| (Time(rng.between(0, until.as_micros())), rng.pick(&BLOWS))).collect();
        blows.sort_by_key(|(at, _)| *at);
        Self { until, blows, losses: losses(rng), late: rng.pick(&[0, 0, 10, 100]) }
    }

    pub(crate) fn are_none(&self) -> bool {
        self.blows.is_empty() && self.late == 0 && self.losses.iter().all(|loss| *loss == 0)
    }

    pub(crate) fn loses(&self, rng: &mut Rng, now: Time, row: Row) -> bool {
        now < self.until && rng.happens(self.losses[row as usize])
    }

    /// How long a message travels.
    pub(crate) fn delay(&self, rng: &mut Rng, now: Time) -> Duration {
        if now < self.until && rng.happens(self.late) { rng.millis(1, 400) } else { rng.micros(20, 200) }
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
