//! Probes, metrics, drain.

use crate::harness::{CHAT, CHAT_BODY, KEY, STREAM_BODY, Stand, chunk, meanwhile, raw, soon};
use bytes::Bytes;
use shared::broker::memory::MemoryBroker;
use shared::broker::{Address, Broker};
use shared::domain::NodeId;
use shared::entropy::exec_id;
use shared::wire::{Cancel, Heartbeat, Reply, ToIngress, decode, encode_one};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

#[tokio::test]
async fn readiness_follows_the_broker_and_liveness_does_not() {
    let stand = Stand::start().await;
    let status = async |path| stand.http.send("GET", path, &[], "").await.status.as_u16();
    assert_eq!((status("/livez").await, status("/readyz").await), (200, 200));
    stand.broker.away.store(true, Ordering::Relaxed);
    assert_eq!((status("/livez").await, status("/readyz").await), (200, 503));
}

#[tokio::test(start_paused = true)]
async fn who_has_not_heard_of_changes_for_long_is_not_ready_until_they_do() {
    let stand = Stand::start().await;
    // On a connection of its own each time: a kept one may be at its end when so much time has passed at once.
    let ready = async || raw(stand.addr, b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    stand.broker.mute.store(true, Ordering::Relaxed);
    sleep(Duration::from_secs(29)).await;
    let answer = ready().await;
    assert!(answer.starts_with("HTTP/1.1 200"), "a key that was blocked meanwhile may still pass: {answer}");
    sleep(Duration::from_secs(10)).await;
    let answer = ready().await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("changes of tenants, roles and keys are not heard"), "{answer}");
    stand.broker.mute.store(false, Ordering::Relaxed);
    sleep(Duration::from_secs(15)).await;
    let answer = ready().await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn where_a_worker_is_required_readiness_waits_for_one() {
    let stand = Stand::over(MemoryBroker::new(), |_| (), true).await;
    let answer = stand.http.send("GET", "/readyz", &[], "").await;
    assert_eq!((answer.status.as_u16(), answer.body.contains("worker")), (503, true));
    let beat = Heartbeat::Worker { id: NodeId::parse("worker-1").unwrap(), models: Vec::new() };
    stand.broker.post(&Address::Heartbeats, encode_one(&beat, b"")).await.unwrap();
    while stand.http.send("GET", "/readyz", &[], "").await.status != 200 {}
}

#[tokio::test]
async fn metrics_count_requests_by_outcome_without_unbounded_labels() {
    let mut stand = Stand::start().await;
    let call = stand.http.posting(CHAT, CHAT_BODY);
    let taken = stand.take("sandbox-chat").await;
    stand.reply(taken.envelope.id, exec_id(), 0, true, "{}").await;
    soon(call).await.unwrap();
    stand.http.post(CHAT, r#"{"model":"made-up-by-a-caller","messages":[{}]}"#).await;
    let metrics = stand.metrics().await;
    for line in [
        r#"tidemill_requests_total{code="ok",model="sandbox-chat",operation="chat/completions"} 1"#,
        r#"tidemill_requests_total{code="model_not_found",model="unknown",operation="chat/completions"} 1"#,
        r#"tidemill_request_duration_seconds_count{lane="interactive",model="sandbox-chat"} 1"#,
        r#"tidemill_time_to_first_byte_seconds_count{model="sandbox-chat"} 1"#,
        "tidemill_requests_in_flight 0",
        "tidemill_frames_published_total 1",
        "tidemill_frame_requests_sum 1",
    ] {
        assert!(metrics.contains(line), "{line} is missing in\n{metrics}");
    }
    assert!(!metrics.contains("made-up"));
}

#[tokio::test]
async fn a_drain_finishes_what_runs_takes_nothing_new_and_says_goodbye() {
    let mut stand = Stand::start().await;
    let call = stand.http.streaming(STREAM_BODY);
    let taken = stand.take("sandbox-chat").await;
    let exec = exec_id();
    stand.reply(taken.envelope.id, exec, 0, false, "data: 1\n\n").await;
    let mut body = soon(call).await.unwrap().into_body();
    assert_eq!(chunk(&mut body).await.unwrap(), "data: 1\n\n");

    let mut idle = TcpStream::connect(stand.addr).await.unwrap();
    idle.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();

    let Stand { ingress, http, broker, id, mut heartbeats, .. } = stand;
    let beat: Heartbeat = decode(&soon(heartbeats.next()).await.unwrap()).unwrap()[0].decode().unwrap();
    assert_eq!(beat, Heartbeat::Ingress { id: id.clone() }, "until then it says that it lives");
    let drained = meanwhile(ingress.drain());
    while http.send("GET", "/readyz", &[], "").await.status != 503 {}
    let refused = http.post(CHAT, CHAT_BODY).await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (503, "draining"));
    assert!(refused.headers.contains_key("retry-after"));

    let last =
        ToIngress::Reply(Reply { id: taken.envelope.id, exec: Some(exec), part: 1, last: true, head: None, failure: None, usage: None });
    broker.post(&Address::Ingress(id.clone()), encode_one(&last, b"data: [DONE]\n\n")).await.unwrap();
    assert_eq!(chunk(&mut body).await.unwrap(), "data: [DONE]\n\n");
    assert_eq!(chunk(&mut body).await, None);
    soon(drained).await.unwrap();
    let mut rest = Vec::new();
    soon(idle.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.starts_with(b"HTTP/1.1 200"), "an idle connection is ended with the others");

    let mut last = beat;
    while !matches!(last, Heartbeat::Leaving { .. }) {
        let frame = soon(heartbeats.next()).await.unwrap();
        last = decode(&frame).unwrap().last().unwrap().decode().unwrap();
    }
    assert_eq!(last, Heartbeat::Leaving { id });
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_takes_too_long_cancels_what_is_left() {
    let mut stand = Stand::with(|config| config.limits.drain_timeout_ms = 3_000).await;
    let call = stand.http.streaming(STREAM_BODY);
    let id = stand.take("sandbox-chat").await.envelope.id;
    stand.reply(id, exec_id(), 0, false, "data: 1\n\n").await;
    let _body = soon(call).await.unwrap().into_body();
    let Stand { ingress, broker, .. } = stand;
    let mut cancels = broker.listen(&Address::Cancels).await.unwrap();
    soon(ingress.drain()).await;
    let cancel: Cancel = decode(&soon(cancels.next()).await.unwrap()).unwrap()[0].decode().unwrap();
    assert_eq!(cancel.ids, [id]);
}

#[tokio::test]
async fn http_2_is_spoken_to_whoever_begins_with_it() {
    use http_body_util::{BodyExt, Full};
    use hyper_util::client::legacy::Client;
    use hyper_util::rt::TokioExecutor;
    let stand = Stand::start().await;
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http::<Full<Bytes>>();
    let uri = format!("http://{}/v1/models", stand.addr);
    let request = http::Request::get(uri).header("x-api-key", KEY).body(Full::default()).unwrap();
    let response = soon(client.request(request)).await.unwrap();
    assert_eq!((response.status().as_u16(), response.version()), (200, http::Version::HTTP_2));
    assert!(!soon(response.into_body().collect()).await.unwrap().to_bytes().is_empty());
}
