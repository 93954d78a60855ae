//! The table's behaviours, one by one.

use super::*;
use crate::pending::SILENCE_MAX;
use shared::domain::{Lane, NodeId, Operation};
use shared::entropy::{exec_id, request_id};
use shared::quota::Whose;
use shared::wire::{Encoding, ReplyHead};
use tokio::sync::mpsc::{UnboundedReceiver, error::TryRecvError, unbounded_channel};

const LATE: Time = Time::from_millis(60_000);

fn envelope(id: RequestId, stream: bool) -> Envelope {
    Envelope {
        id,
        tenant: "t".into(),
        key: None,
        model: "m".into(),
        lane: Lane::Interactive,
        op: Operation::Chat,
        remaining_ms: 0,
        tokens_in: 1,
        tokens_out: 1,
        items: 1,
        longest: 0,
        bytes: 2,
        compat: 0,
        ingress: NodeId::parse("i").unwrap(),
        stream,
        encoding: Encoding::Float,
        model_at: None,
        params: "".into(),
        traceparent: None,
        claim: None,
        asked: None,
        job: None,
    }
}

/// A table that waits for one request, and that request's end of the channel.
fn waiting(stream: bool) -> (Table, RequestId, UnboundedReceiver<Piece>) {
    let (mut table, id) = (Table::default(), request_id());
    let (pieces, answer) = unbounded_channel();
    table.insert(Entry {
        pending: Pending::new(stream),
        envelope: envelope(id, stream),
        model: Token::of_model("m"),
        body: Bytes::from_static(b"{}"),
        deadline: Time::from_millis(100_000),
        pieces,
        meter: Meter::default(),
        events: EventSizes::default(),
        account: None,
        waits: false,
        lies_in: None,
    });
    (table, id, answer)
}

fn part(id: RequestId, exec: ExecId, number: u32) -> Reply {
    Reply { id, exec: Some(exec), part: number, last: false, head: None, failure: None, usage: None }
}

fn cancel(id: RequestId, exec: Option<ExecId>) -> Option<Action> {
    Some(Action::Cancel(Cancel { ids: vec![id], exec }))
}

fn code(answer: &mut UnboundedReceiver<Piece>) -> Code {
    match answer.try_recv().unwrap() {
        Err(Setback::Failed(failure)) => failure.code,
        other => panic!("{other:?}"),
    }
}

#[test]
fn parts_reach_their_request_and_the_last_ends_it() {
    let (mut table, id, mut answer) = waiting(true);
    let exec = exec_id();
    assert_eq!(table.hear(part(id, exec, 0), Bytes::from_static(b"a"), Time::ZERO), None);
    assert_eq!(table.hear(Reply { last: true, ..part(id, exec, 1) }, Bytes::from_static(b"b"), Time::ZERO), None);
    let bodies = [answer.try_recv().unwrap().unwrap().body, answer.try_recv().unwrap().unwrap().body];
    assert_eq!(bodies, ["a", "b"]);
    assert_eq!(answer.try_recv().unwrap_err(), TryRecvError::Disconnected);
    assert_eq!(table.abandon(id, Time::ZERO), None, "what has ended is not cancelled");
}

#[test]
fn an_unknown_request_is_cancelled_once_a_second_unless_it_has_ended() {
    let (mut table, id, exec) = (Table::default(), request_id(), exec_id());
    assert_eq!(table.hear(part(id, exec, 3), Bytes::new(), Time::ZERO), cancel(id, None));
    assert_eq!(table.hear(part(id, exec, 4), Bytes::new(), Time::from_millis(10)), None);
    assert_eq!(table.hear(Reply { last: true, ..part(id, exec, 5) }, Bytes::new(), LATE), None);
}

#[test]
fn a_second_execution_is_cancelled_by_its_name() {
    let (mut table, id, mut answer) = waiting(true);
    let (first, second) = (exec_id(), exec_id());
    table.hear(part(id, first, 0), Bytes::from_static(b"1"), Time::ZERO);
    assert_eq!(table.hear(part(id, second, 0), Bytes::from_static(b"2"), Time::ZERO), cancel(id, Some(second)));
    assert_eq!(answer.try_recv().unwrap().unwrap().body, "1");
    assert!(answer.try_recv().is_err(), "nothing of the second is heard");
}

#[test]
fn a_gap_that_nobody_can_close_ends_a_begun_stream_with_an_error() {
    let (mut table, id, mut answer) = waiting(true);
    let exec = exec_id();
    table.hear(part(id, exec, 0), Bytes::new(), Time::ZERO);
    assert_eq!(table.hear(part(id, exec, 2), Bytes::new(), Time::ZERO), cancel(id, None));
    answer.try_recv().unwrap().unwrap();
    assert_eq!(code(&mut answer), Code::StreamInterrupted);
}

#[test]
fn a_gap_in_a_stream_that_a_worker_keeps_is_asked_for_and_closed() {
    let (mut table, id, mut answer) = waiting(true);
    let (exec, worker) = (exec_id(), NodeId::parse("worker-1").unwrap());
    let head = Some(Box::new(ReplyHead { keeper: Some(worker.clone()), ..Default::default() }));
    let ask = |from| Action::Ask(worker.clone(), Resend { exec, from });
    table.hear(Reply { head, ..part(id, exec, 0) }, Bytes::from_static(b"a"), Time::ZERO);
    assert_eq!(table.hear(part(id, exec, 2), Bytes::from_static(b"c"), Time::ZERO), Some(ask(1)), "at once");
    assert_eq!(table.hear(part(id, exec, 3), Bytes::from_static(b"d"), Time::from_millis(10)), None, "it was asked for");
    assert_eq!(table.sweep(Time::from_millis(300)), [ask(1)]);
    for (number, text) in [(1, "b"), (2, "c"), (1, "b"), (2, "c")] {
        assert_eq!(table.hear(part(id, exec, number), text.into(), Time::from_millis(310)), None);
    }
    assert_eq!(table.sweep(Time::from_millis(600)), [ask(3)], "part 3 had come, and was not held");
    table.hear(Reply { last: true, ..part(id, exec, 3) }, Bytes::from_static(b"d"), Time::from_millis(610));
    let bodies: Vec<Bytes> = std::iter::from_fn(|| answer.try_recv().ok()).map(|piece| piece.unwrap().body).collect();
    assert_eq!(bodies, ["a", "b", "c", "d"]);
    assert!(table.entries.is_empty());
}

#[test]
fn a_gap_that_is_not_closed_ends_the_stream_with_an_error() {
    let (mut table, id, mut answer) = waiting(true);
    let exec = exec_id();
    let head = Some(Box::new(ReplyHead { keeper: NodeId::parse("worker-1").ok(), ..Default::default() }));
    table.hear(Reply { head, ..part(id, exec, 0) }, Bytes::new(), Time::ZERO);
    table.hear(part(id, exec, 2), Bytes::new(), Time::ZERO);
    table.hear(part(id, exec, 3), Bytes::new(), Time::from_millis(1_900));
    assert_eq!(table.sweep(Time::from_millis(2_000)), [cancel(id, None).unwrap()]);
    answer.try_recv().unwrap().unwrap();
    assert_eq!(code(&mut answer), Code::StreamInterrupted);
}

#[test]
fn a_stream_nobody_reads_is_cut_off_at_its_bound() {
    let (mut table, id, mut answer) = waiting(true);
    let exec = exec_id();
    let quarter = Bytes::from(vec![b'x'; STREAM_WAITING_MAX / 4]);
    for number in 0..5 {
        assert_eq!(table.hear(part(id, exec, number), quarter.clone(), Time::ZERO), None);
    }
    assert_eq!(table.hear(part(id, exec, 5), quarter, Time::ZERO), cancel(id, None));
    for _ in 0..5 {
        answer.try_recv().unwrap().unwrap();
    }
    assert_eq!(code(&mut answer), Code::SlowReader);
}

#[test]
fn an_event_of_several_parts_that_come_at_once_is_nobodys_slowness() {
    let (mut table, id, mut answer) = waiting(true);
    let exec = exec_id();
    let piece = Bytes::from(vec![b'x'; PART_BYTES_MAX]);
    for (number, piece) in [piece.clone(), piece.slice(1..), piece.slice(..100)].into_iter().enumerate() {
        assert_eq!(table.hear(part(id, exec, number as u32), piece, Time::ZERO), None);
    }
    assert!((0..3).all(|_| answer.try_recv().unwrap().is_ok()));
}

#[test]
fn an_answer_in_one_piece_may_be_longer_than_a_streams_buffer() {
    let (mut table, id, mut answer) = waiting(false);
    let exec = exec_id();
    let large = Bytes::from(vec![b'x'; STREAM_WAITING_MAX]);
    assert_eq!(table.hear(part(id, exec, 0), large.clone(), Time::ZERO), None);
    assert_eq!(table.hear(part(id, exec, 1), large, Time::ZERO), None);
    assert!(answer.try_recv().unwrap().is_ok() && answer.try_recv().unwrap().is_ok());
}

#[test]
fn a_part_carries_what_remains_of_the_deadline() {
    let (mut table, id, _answer) = waiting(false);
    let remaining =
        |table: &mut Table, now| table.parts(&[id, request_id()], now).pop().map(|(_, p)| p.decode::<Envelope>().unwrap().remaining_ms);
    assert_eq!(remaining(&mut table, Time::from_millis(30_000)), Some(70_000));
    assert_eq!(remaining(&mut table, Time::from_millis(100_000)), None);
}

#[test]
fn a_refused_publish_ends_the_request_unless_a_worker_has_it_all_the_same() {
    let (mut table, id, mut answer) = waiting(false);
    table.refused(&[id], &Failure::new(Code::QueueFull, "x"));
    assert_eq!(code(&mut answer), Code::QueueFull);

    let (mut table, id, mut answer) = waiting(false);
    table.hear(part(id, exec_id(), 0), Bytes::new(), Time::ZERO);
    table.refused(&[id], &Failure::new(Code::QueueFull, "x"));
    assert!(answer.try_recv().unwrap().is_ok() && answer.try_recv().is_err());
}

#[test]
fn a_lost_request_is_published_again_and_a_named_one_is_not() {
    let (mut table, id, _answer) = waiting(false);
    table.published(&[id], Stored { sequence: 4, epoch: 1, duplicate: false }, Time::ZERO);
    let passed = Passed { model: Token::of_model("m"), epoch: 1, sequence: 4 };
    let held = |ids| Held { from: NodeId::parse("s").unwrap(), ids, passed: vec![passed.clone()] };
    table.held(&held(vec![id]), Time::from_millis(2_000));
    assert_eq!(table.sweep(Time::from_millis(4_900)), []);
    table.held(&held(vec![]), Time::from_millis(4_900));
    assert_eq!(table.sweep(Time::from_millis(5_000)), [Action::Publish(id, Token::of_model("m"))]);
    assert_eq!(table.sweep(LATE), [], "not before the second publish is confirmed");
}

#[test]
fn what_was_sent_on_waits_in_the_lane_where_it_lies() {
    let (mut table, id, _answer) = waiting(false);
    table.published(&[id], Stored { sequence: 4, epoch: 1, duplicate: false }, Time::ZERO);
    let passed = |model, sequence| Passed { model: Token::of_model(model), epoch: 1, sequence };
    let held = |passed| Held { from: NodeId::parse("s").unwrap(), ids: vec![], passed: vec![passed] };
    table.held(&held(passed("m", 4)), Time::ZERO);
    table.moved(Moved { id, model: Token::of_model("fallback"), epoch: 1, sequence: 9 }, Time::from_millis(100));
    table.held(&held(passed("fallback", 8)), LATE);
    assert_eq!(table.sweep(LATE), [], "it has not been read there");
    table.held(&held(passed("fallback", 9)), LATE);
    assert_eq!(table.sweep(LATE + SILENCE_MAX), [Action::Publish(id, Token::of_model("m"))]);
}

#[test]
fn a_begun_stream_whose_worker_is_gone_ends_with_an_error() {
    let (mut table, id, mut answer) = waiting(true);
    table.published(&[id], Stored { sequence: 4, epoch: 1, duplicate: false }, Time::ZERO);
    table.hear(part(id, exec_id(), 0), Bytes::new(), Time::ZERO);
    let passed = vec![Passed { model: Token::of_model("m"), epoch: 1, sequence: 9 }];
    table.held(&Held { from: NodeId::parse("s").unwrap(), ids: vec![], passed }, Time::ZERO);
    assert_eq!(table.sweep(LATE), [cancel(id, None).unwrap()]);
    answer.try_recv().unwrap().unwrap();
    assert_eq!(code(&mut answer), Code::StreamInterrupted);
}

#[test]
fn what_a_limit_refused_waits_here_and_is_not_lost() {
    let (mut table, id, mut answer) = waiting(false);
    table.published(&[id], Stored { sequence: 1, epoch: 1, duplicate: false }, Time::ZERO);
    let account = Arc::new(Account { tenant: "t".into(), key: None, queued: (1, 1) });
    table.entries.get_mut(&id).unwrap().account = Some(account);
    let (_, tokens) = table.give_back(id, Refusal::unavailable(Whose::Tenant)).unwrap();
    assert_eq!(tokens, 2);
    assert!(matches!(answer.try_recv().unwrap(), Err(Setback::Refused(_))));

    // The word on its publication comes late, and its place in the lane has been passed.
    table.published(&[id], Stored { sequence: 1, epoch: 1, duplicate: false }, Time::ZERO);
    let passed = vec![Passed { model: Token::of_model("m"), epoch: 1, sequence: 9 }];
    table.held(&Held { from: NodeId::parse("s").unwrap(), ids: vec![], passed }, Time::ZERO);
    assert_eq!(table.sweep(LATE), []);

    assert_eq!(table.set_out(id), Some(Token::of_model("m")));
    table.published(&[id], Stored { sequence: 2, epoch: 1, duplicate: false }, LATE);
    assert_eq!(table.sweep(LATE + SILENCE_MAX), [Action::Publish(id, Token::of_model("m"))], "lost like any other");
}

#[test]
fn a_refusal_of_what_is_being_answered_changes_nothing() {
    let (mut table, id, mut answer) = waiting(true);
    table.hear(part(id, exec_id(), 0), Bytes::new(), Time::ZERO);
    assert!(table.give_back(id, Refusal::unavailable(Whose::Tenant)).is_none());
    assert!(answer.try_recv().unwrap().is_ok());
    assert!(matches!(answer.try_recv(), Err(TryRecvError::Empty)));
}
