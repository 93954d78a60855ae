//! Callers that leave, time that runs out, executions that compete, and messages that are lost.

use crate::harness::{CHAT, CHAT_BODY, STREAM_BODY, Stand, chunk, meanwhile, soon};
use shared::broker::{Address, Broker, Inbox};
use shared::domain::NodeId;
use shared::entropy::exec_id;
use shared::wire::{Resend, ToWorker, decode};
use std::sync::atomic::Ordering;

#[tokio::test]
async fn a_caller_that_leaves_cancels_its_request() {
    let mut stand = Stand::start().await;
    let http = stand.http.clone();
    let (leave, left) = tokio::sync::oneshot::channel::<()>();
    meanwhile(async move {
        tokio::select! {
            _ = http.post(CHAT, CHAT_BODY) => unreachable!("nobody answers"),
            _ = left => {}
        }
    });
    let id = stand.take("sandbox-chat").await.envelope.id;
    leave.send(()).unwrap();
    let cancel = stand.cancelled().await;
    assert_eq!((cancel.ids, cancel.exec), (vec![id], None));
}

#[tokio::test]
async fn a_caller_that_breaks_off_a_stream_cancels_its_request() {
    let mut stand = Stand::start().await;
    let call = stand.http.streaming(STREAM_BODY);
    let id = stand.take("sandbox-chat").await.envelope.id;
    stand.reply(id, exec_id(), 0, false, "data: 1\n\n").await;
    let mut body = soon(call).await.unwrap().into_body();
    assert_eq!(chunk(&mut body).await.unwrap(), "data: 1\n\n");
    drop(body);
    assert_eq!(stand.cancelled().await.ids, [id]);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_passes_is_a_504_and_a_cancel() {
    let mut stand = Stand::start().await;
    let http = stand.http.clone();
    let headers = [("authorization", "Bearer sk-test-1"), ("content-type", "application/json"), ("x-request-timeout-ms", "1500")];
    let call = meanwhile(async move { http.send("POST", CHAT, &headers, CHAT_BODY).await });
    let envelope = stand.take("sandbox-chat").await.envelope;
    assert!((1..=1_500).contains(&envelope.remaining_ms));
    let answer = soon(call).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (504, "deadline_exceeded"));
    assert_eq!(stand.cancelled().await.ids, [envelope.id]);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_passes_in_a_stream_is_an_error_event() {
    let mut stand = Stand::with(|config| config.limits.request_timeout_ms = 2_000).await;
    let call = stand.http.streaming(STREAM_BODY);
    let id = stand.take("sandbox-chat").await.envelope.id;
    stand.reply(id, exec_id(), 0, false, "data: 1\n\n").await;
    let mut body = soon(call).await.unwrap().into_body();
    assert_eq!(chunk(&mut body).await.unwrap(), "data: 1\n\n");
    let event = chunk(&mut body).await.unwrap();
    assert!(event.starts_with("data: {\"error\"") && event.contains("deadline_exceeded"), "{event}");
    assert_eq!(chunk(&mut body).await, None);
    assert_eq!(stand.cancelled().await.ids, [id]);
}

#[tokio::test]
async fn a_second_execution_is_cancelled_and_not_heard() {
    let mut stand = Stand::start().await;
    let call = stand.http.posting(CHAT, CHAT_BODY);
    let id = stand.take("sandbox-chat").await.envelope.id;
    let (first, second) = (exec_id(), exec_id());
    stand.reply(id, first, 0, false, "1").await;
    stand.reply(id, second, 0, false, "2").await;
    let cancel = stand.cancelled().await;
    assert_eq!((cancel.ids, cancel.exec), (vec![id], Some(second)));
    stand.reply(id, first, 1, true, "1").await;
    assert_eq!(soon(call).await.unwrap().body, "11");
}

/// Waits until a worker is asked for this; what it was asked for before may have been asked for again.
async fn asked(inbox: &mut dyn Inbox, what: Resend) {
    while decode(&soon(inbox.next()).await.unwrap()).unwrap()[0].decode::<ToWorker>().unwrap() != ToWorker::Resend(what) {}
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_lost_parts_on_the_way_ends_whole() {
    let mut stand = Stand::start().await;
    let (worker, exec) = (NodeId::parse("worker-1").unwrap(), exec_id());
    let mut inbox = stand.broker.listen(&Address::Worker(worker.clone())).await.unwrap();
    let call = stand.http.streaming(STREAM_BODY);
    let id = stand.take("sandbox-chat").await.envelope.id;
    stand.begin(id, exec, &worker, "data: 0\n\n").await;
    let mut body = soon(call).await.unwrap().into_body();
    assert_eq!(chunk(&mut body).await.unwrap(), "data: 0\n\n");

    stand.reply(id, exec, 2, false, "data: 2\n\n").await;
    asked(inbox.as_mut(), Resend { exec, from: 1 }).await;
    stand.reply(id, exec, 1, false, "data: 1\n\n").await;
    assert_eq!(chunk(&mut body).await.unwrap(), "data: 1\n\n");
    stand.reply(id, exec, 2, false, "data: 2\n\n").await;
    assert_eq!(chunk(&mut body).await.unwrap(), "data: 2\n\n");

    // The last part is lost, and the worker names the stream no more.
    asked(inbox.as_mut(), Resend { exec, from: 3 }).await;
    stand.reply(id, exec, 3, true, "data: [DONE]\n\n").await;
    assert_eq!(chunk(&mut body).await.unwrap(), "data: [DONE]\n\n");
    assert_eq!(chunk(&mut body).await, None);
}

#[tokio::test]
async fn a_gap_in_a_stream_that_nobody_keeps_is_an_error_event() {
    let mut stand = Stand::start().await;
    let call = stand.http.streaming(STREAM_BODY);
    let id = stand.take("sandbox-chat").await.envelope.id;
    let exec = exec_id();
    stand.reply(id, exec, 0, false, "data: 1\n\n").await;
    stand.reply(id, exec, 2, false, "data: 3\n\n").await;
    let mut body = soon(call).await.unwrap().into_body();
    assert_eq!(chunk(&mut body).await.unwrap(), "data: 1\n\n");
    assert!(chunk(&mut body).await.unwrap().contains("stream_interrupted"));
    assert_eq!(chunk(&mut body).await, None);
    assert_eq!(stand.cancelled().await.ids, [id]);
}

#[tokio::test]
async fn the_answer_of_an_unknown_request_is_met_with_a_cancel() {
    let mut stand = Stand::start().await;
    let id = shared::entropy::request_id();
    stand.reply(id, exec_id(), 4, false, "x").await;
    let cancel = stand.cancelled().await;
    assert_eq!((cancel.ids, cancel.exec), (vec![id], None));
}

#[tokio::test(start_paused = true)]
async fn a_lost_request_is_published_again_and_answered_by_another_worker() {
    let mut stand = Stand::start().await;
    let call = stand.http.posting(CHAT, CHAT_BODY);
    let taken = stand.take("sandbox-chat").await;
    let dead = exec_id();
    stand.reply(taken.envelope.id, dead, 0, false, "{\"of the dead\":").await;
    stand.held(&taken, vec![taken.envelope.id]).await;
    stand.held(&taken, vec![]).await;
    let again = stand.take("sandbox-chat").await;
    assert_eq!((again.envelope.id, &again.body), (taken.envelope.id, &taken.body));
    assert!(again.sequence > taken.sequence, "stored anew, not taken for a duplicate");
    stand.reply(taken.envelope.id, exec_id(), 0, true, "{}").await;
    assert_eq!(soon(call).await.unwrap().body, "{}");
}

#[tokio::test(start_paused = true)]
async fn a_begun_stream_whose_worker_died_ends_with_an_error_event() {
    let mut stand = Stand::start().await;
    let call = stand.http.streaming(STREAM_BODY);
    let taken = stand.take("sandbox-chat").await;
    stand.reply(taken.envelope.id, exec_id(), 0, false, "data: 1\n\n").await;
    let mut body = soon(call).await.unwrap().into_body();
    assert_eq!(chunk(&mut body).await.unwrap(), "data: 1\n\n");
    stand.held(&taken, vec![]).await;
    assert!(chunk(&mut body).await.unwrap().contains("stream_interrupted"));
    assert_eq!(chunk(&mut body).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_publish_without_an_answer_is_repeated_and_stored_once() {
    let mut stand = Stand::start().await;
    stand.broker.unanswered.store(2, Ordering::Relaxed);
    let call = stand.http.posting(CHAT, CHAT_BODY);
    let taken = stand.take("sandbox-chat").await;
    while stand.broker.unanswered.load(Ordering::Relaxed) > 0 {
        tokio::task::yield_now().await;
        tokio::time::advance(std::time::Duration::from_millis(10)).await;
    }
    assert!(stand.lane_is_empty("sandbox-chat").await);
    stand.reply(taken.envelope.id, exec_id(), 0, true, "{}").await;
    assert_eq!(soon(call).await.unwrap().status, 200);
}
