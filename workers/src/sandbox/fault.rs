//! core: the faults, as changes to what would have been sent: pieces left out, broken, or spread over time.

use super::accelerator::Seat;
use super::generation::Generation;
use super::hash::Fnv;
use super::reply::{Piece, Reply, Reset, Script};
use super::stats::Running;
use bytes::Bytes;
use shared::clock;
use shared::config::{Fault, FaultRate};
use std::time::Duration;

/// Between two bytes of a slow drip.
const DRIP: Duration = Duration::from_millis(200);

/// Events of a stream before it breaks: enough that the caller has begun to read.
const EVENTS_BEFORE: usize = 3;

/// Between the last piece and the reset, so that the piece leaves this machine first.
const RESET_LAG: Duration = Duration::from_millis(10);

/// The fault of the `call`-th call, at the configured rates: the same in every run.
pub(crate) fn draw(rates: &[FaultRate], key: Fnv, call: u64) -> Option<Fault> {
    let mut left = unit(key.bytes(&call.to_le_bytes()).finish());
    rates
        .iter()
        .find(|rate| {
            left -= rate.rate;
            left < 0.0
        })
        .map(|rate| rate.fault)
}

/// A hash as a number from 0 to 1. Mixed first: the high bits of FNV hardly depend on the last bytes.
#[expect(clippy::cast_precision_loss, reason = "a draw needs no more than 53 bits")]
fn unit(hash: u64) -> f64 {
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 11) as f64 / (1_u64 << 53) as f64
}

/// A whole answer with a fault in its delivery. A stream's faults mean the nearest thing: a body that is cut off.
pub(crate) fn whole(fault: Option<Fault>, answer: Bytes, running: Running) -> Reply {
    let script = match fault {
        Some(Fault::SlowDrip) => drip(answer),
        Some(Fault::Reset) => reset(std::iter::once(Piece::new(Duration::ZERO, half(&answer)))),
        Some(Fault::MalformedJson | Fault::PartialStream) => {
            running.finish();
            return Reply::whole(half(&answer));
        }
        Some(Fault::Status(_) | Fault::Hang | Fault::WrongCount) | None => {
            running.finish();
            return Reply::whole(answer);
        }
    };
    Reply::pieces(script, false, Seat::aside(clock::now()), running)
}

/// A stream with a fault in it. It has no count to be wrong.
pub(crate) fn stream(fault: Option<Fault>, generation: Generation, seat: Seat, running: Running) -> Reply {
    let events = generation.events();
    let script: Script = match fault {
        Some(Fault::SlowDrip) => drip(events.filter_map(|piece| piece.bytes.ok()).flatten().collect()),
        Some(Fault::Reset) => reset(events.take(EVENTS_BEFORE)),
        Some(Fault::PartialStream) => Box::new(events.take(EVENTS_BEFORE)),
        Some(Fault::MalformedJson) => {
            Box::new(events.enumerate().map(|(index, piece)| if index == EVENTS_BEFORE { broken(piece) } else { piece }))
        }
        Some(Fault::Status(_) | Fault::Hang | Fault::WrongCount) | None => events,
    };
    Reply::pieces(script, true, seat, running)
}

fn half(bytes: &Bytes) -> Bytes {
    bytes.slice(..bytes.len() / 2)
}

fn drip(bytes: Bytes) -> Script {
    let mut at = Duration::ZERO;
    Box::new((0..bytes.len()).map(move |index| {
        at += DRIP;
        Piece::new(at, bytes.slice(index..=index))
    }))
}

/// The pieces, and a reset a little after the last.
fn reset(pieces: impl Iterator<Item = Piece> + Send + 'static) -> Script {
    let mut pieces = pieces.fuse();
    let mut end = Some(Duration::ZERO);
    Box::new(std::iter::from_fn(move || {
        if let Some(piece) = pieces.next() {
            end = Some(piece.at + RESET_LAG);
            return Some(piece);
        }
        end.take().map(|at| Piece { at, bytes: Err(Reset) })
    }))
}

/// An event whose JSON stops in the middle.
fn broken(piece: Piece) -> Piece {
    let bytes = piece.bytes.map(|bytes| [&half(&bytes), b"\n\n".as_slice()].concat().into());
    Piece { bytes, ..piece }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_drawn_at_their_rates_and_alike_in_every_run() {
        let rates = [FaultRate { fault: Fault::Hang, rate: 0.1 }, FaultRate { fault: Fault::Reset, rate: 0.3 }];
        let draws = || (0..10_000).map(|call| draw(&rates, Fnv::keyed(b"k"), call));
        let count = |fault| draws().filter(|f| *f == fault).count();
        assert!((900..1_100).contains(&count(Some(Fault::Hang))), "{}", count(Some(Fault::Hang)));
        assert!((2_800..3_200).contains(&count(Some(Fault::Reset))), "{}", count(Some(Fault::Reset)));
        assert!(draws().eq(draws()));
    }

    #[test]
    fn rates_of_none_and_all_are_exact() {
        let always = [FaultRate { fault: Fault::Hang, rate: 1.0 }];
        assert!((0..1_000).all(|call| draw(&always, Fnv::keyed(b"k"), call).is_some()));
        assert!((0..1_000).all(|call| draw(&[], Fnv::keyed(b"k"), call).is_none()));
    }

    #[test]
    fn a_drip_is_one_byte_at_a_time() {
        let pieces: Vec<_> = drip(Bytes::from_static(b"abc")).map(|p| (p.at, p.bytes.unwrap())).collect();
        assert_eq!(pieces[2], (DRIP * 3, Bytes::from_static(b"c")));
        assert_eq!(pieces.len(), 3);
    }

    #[test]
    fn a_reset_follows_what_was_sent() {
        let sent = std::iter::once(Piece::new(Duration::from_millis(5), Bytes::from_static(b"a")));
        let pieces: Vec<_> = reset(sent).map(|p| (p.at.as_millis(), p.bytes)).collect();
        assert_eq!(pieces, [(5, Ok(Bytes::from_static(b"a"))), (15, Err(Reset))]);
    }
}
