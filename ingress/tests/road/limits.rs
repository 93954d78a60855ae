//! Every input has a bound, and every caller a share.

use crate::harness::{CHAT, CHAT_BODY, STREAM_BODY, Stand, chunk, raw, soon};
use bytes::Bytes;
use shared::broker::limits::Limits as BrokerLimits;
use shared::broker::memory::MemoryBroker;
use shared::entropy::exec_id;
use std::sync::atomic::Ordering;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn a_body_over_the_limit_is_refused_declared_or_not() {
    let stand = Stand::with(|config| config.limits.body_bytes_max = 1_000).await;
    let body = vec![b'x'; 300_000];
    let answer = stand.http.post(CHAT, body.clone()).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (413, "body_too_large"));

    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk-test-1\r\nconnection: close\r\n";
    let mut chunked = format!("{head}transfer-encoding: chunked\r\n\r\n{:x}\r\n", body.len()).into_bytes();
    chunked.extend_from_slice(&body);
    chunked.extend_from_slice(b"\r\n0\r\n\r\n");
    assert!(raw(stand.addr, &chunked).await.starts_with("HTTP/1.1 413"));

    let declared = format!("{head}content-length: 5000000000\r\nexpect: 100-continue\r\n\r\n");
    assert!(raw(stand.addr, declared.as_bytes()).await.starts_with("HTTP/1.1 413"), "without reading any of it");
}

#[tokio::test]
async fn bodies_have_a_bound_together_and_leave_it_with_their_requests() {
    let mut stand = Stand::with(|config| (config.limits.body_bytes_max, config.limits.bodies_bytes_max) = (100_000, 100_000)).await;
    let large = format!(r#"{{"model":"sandbox-chat","messages":[{{"role":"user","content":"{}"}}]}}"#, "x".repeat(60_000));
    for _ in 0..2 {
        let first = stand.http.posting(CHAT, large.clone());
        let taken = stand.take("sandbox-chat").await;
        let second = stand.http.post(CHAT, large.clone()).await;
        assert_eq!((second.status.as_u16(), second.code().as_str()), (503, "overloaded"));
        assert_eq!(second.headers["retry-after"], "1");
        assert!(stand.metrics().await.contains("tidemill_body_bytes 6"));
        stand.reply(taken.envelope.id, exec_id(), 0, true, "{}").await;
        assert_eq!(soon(first).await.unwrap().status, 200);
    }
    while !stand.metrics().await.contains("tidemill_body_bytes 0") {}
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_comes_is_a_timeout() {
    let stand = Stand::start().await;
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk-test-1\r\nconnection: close\r\ncontent-length: 9\r\n\r\n{";
    let answer = raw_held_open(&stand, head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("request_timeout"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_says_nothing_or_half_a_header_is_closed() {
    let stand = Stand::start().await;
    for said in [&b""[..], b"P", b"PRI * HTTP/2.0\r\n\r\n", b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"] {
        raw_held_open(&stand, said).await;
    }
}

/// Sends bytes, keeps the connection open, and reads until the server closes it.
async fn raw_held_open(stand: &Stand, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(stand.addr).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    match tokio::time::timeout(std::time::Duration::from_secs(300), stream.read_to_end(&mut answer)).await {
        Ok(_) => String::from_utf8_lossy(&answer).into_owned(),
        Err(_) => panic!("still open"),
    }
}

#[tokio::test]
async fn a_huge_header_is_refused() {
    let stand = Stand::start().await;
    let request = format!("GET /livez HTTP/1.1\r\nhost: x\r\nx-huge: {}\r\n\r\n", "x".repeat(100_000));
    assert!(raw(stand.addr, request.as_bytes()).await.starts_with("HTTP/1.1 431"));
}

#[tokio::test]
async fn a_tenant_over_its_share_waits_while_another_is_served() {
    let mut stand = Stand::with(|config| config.limits.in_flight_per_tenant_max = 1).await;
    let first = stand.http.posting(CHAT, CHAT_BODY);
    let taken = stand.take("sandbox-chat").await;
    let second = stand.http.post(CHAT, CHAT_BODY).await;
    assert_eq!((second.status.as_u16(), second.code().as_str()), (429, "too_many_in_flight"));
    assert_eq!(second.headers["retry-after"], "1");
    let http = stand.http.clone();
    let headers = [("authorization", "Bearer sk-test-2"), ("content-type", "application/json")];
    let other = crate::harness::meanwhile(async move { http.send("POST", CHAT, &headers, CHAT_BODY).await });
    let others = stand.take("sandbox-chat").await;
    for taken in [taken, others] {
        stand.reply(taken.envelope.id, exec_id(), 0, true, "{}").await;
    }
    assert_eq!((soon(first).await.unwrap().status.as_u16(), soon(other).await.unwrap().status.as_u16()), (200, 200));
}

#[tokio::test]
async fn a_full_queue_is_answered_with_a_wait() {
    let mut limits = BrokerLimits::default();
    limits.interactive.frames_per_origin_max = 1;
    let mut stand = Stand::over(MemoryBroker::with_limits(&limits), |_| (), false).await;
    let first = stand.http.posting(CHAT, CHAT_BODY);
    let key = [("authorization", "Bearer sk-test-1")];
    while !stand.http.send("GET", "/metrics", &key, "").await.body.contains("tidemill_frames_published_total 1") {}
    let second = stand.http.post(CHAT, CHAT_BODY).await;
    assert_eq!((second.status.as_u16(), second.code().as_str()), (429, "queue_full"));
    assert!(second.headers.contains_key("retry-after"));
    let taken = stand.take("sandbox-chat").await;
    stand.reply(taken.envelope.id, exec_id(), 0, true, "{}").await;
    assert_eq!(soon(first).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_slow_reader_is_cut_off_while_others_go_on() {
    let mut stand = Stand::start().await;
    let mut slow = TcpStream::connect(stand.addr).await.unwrap();
    let head =
        format!("POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk-test-1\r\ncontent-length: {}\r\n\r\n", STREAM_BODY.len());
    slow.write_all(format!("{head}{STREAM_BODY}").as_bytes()).await.unwrap();
    let slow_id = stand.take("sandbox-chat").await.envelope.id;
    let other = stand.http.streaming(STREAM_BODY);
    let other_id = stand.take("sandbox-chat").await.envelope.id;
    let (slow_exec, other_exec) = (exec_id(), exec_id());
    stand.reply(other_id, other_exec, 0, false, "data: 0\n\n").await;
    let mut other = soon(other).await.unwrap().into_body();
    assert_eq!(chunk(&mut other).await.unwrap(), "data: 0\n\n");

    let piece = Bytes::from(vec![b'x'; 64 * 1024]);
    let cancelled = std::sync::atomic::AtomicBool::new(false);
    let mut part = 0;
    while !cancelled.load(Ordering::Relaxed) {
        assert!(part < 1_024, "64 MiB were taken in for a caller that does not read");
        stand.reply(slow_id, slow_exec, part, false, piece.clone()).await;
        part += 1;
        stand.reply(other_id, other_exec, part, false, format!("data: {part}\n\n")).await;
        assert_eq!(chunk(&mut other).await.unwrap(), format!("data: {part}\n\n"), "the other stream is not held up");
        let metrics = stand.http.send("GET", "/metrics", &[], "").await.body;
        cancelled.store(metrics.contains("tidemill_cancelled_total 1"), Ordering::Relaxed);
    }
    assert_eq!(stand.cancelled().await.ids, [slow_id]);
    stand.reply(other_id, other_exec, part + 1, true, "data: [DONE]\n\n").await;
    assert_eq!(chunk(&mut other).await.unwrap(), "data: [DONE]\n\n");
    let mut heard = String::new();
    let mut buffer = vec![0; 256 * 1024];
    while !heard.contains("slow_reader") {
        let read = soon(slow.read(&mut buffer)).await.unwrap();
        assert!(read > 0, "the stream ended without an error event");
        heard = heard.split_off(heard.len().saturating_sub(200)) + &String::from_utf8_lossy(&buffer[..read]);
    }
}
